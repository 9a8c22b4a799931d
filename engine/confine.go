package engine

import (
	"context"

	"berth/base/fault"
	"berth/engine/bundle"
	"berth/engine/container"
	"berth/kernel/lsm/apparmor"
	"berth/kernel/lsm/selinux"
)

// confinement is what the kernel's security modules do for containers. The zero value is a kernel without any.
type confinement struct {
	apparmor bool              // profiles can be applied
	labels   *selinux.Labeller // nil: containers carry no labels
}

// openConfinement looks at the machine. What is wanted and cannot be had is told now, and by every start that needs it.
func (e *Engine) openConfinement(ctx context.Context) {
	if e.confinement.apparmor = apparmor.Enabled(); e.confinement.apparmor {
		if err := apparmor.Ensure(ctx, apparmor.DefaultProfile); err != nil {
			e.log.Error("the default AppArmor profile cannot be loaded; containers that want it will not start", "error", err)
		}
	}
	switch {
	case !e.cfg.SELinux:
	case !selinux.Enabled():
		e.log.Warn("selinux-enabled: the kernel runs without SELinux or no policy is loaded; containers are not labelled")
	default:
		e.confinement.labels = selinux.New()
	}
}

// confine decides the container's AppArmor profile and SELinux labels. unconfine gives the labels back.
func (e *Engine) confine(r *container.Record) (warnings []string, err error) {
	asked, options, err := bundle.Confinement(r.Spec.Security.SecurityOpt)
	if err != nil {
		return nil, err
	}
	if e.confinement.apparmor {
		if r.AppArmorProfile = profileOf(asked, r.Spec.Security.Privileged); r.AppArmorProfile != apparmor.Unconfined {
			if err := apparmor.CheckName(r.AppArmorProfile); err != nil {
				return nil, err
			}
		}
	} else if asked != "" && asked != apparmor.Unconfined {
		warnings = append(warnings, "Your kernel does not support AppArmor: the profile "+asked+" is not applied")
	}
	if err := selinux.CheckOptions(options); err != nil {
		return nil, err
	}
	if e.confinement.labels == nil {
		return warnings, nil
	}
	labels, err := e.confinement.labels.Labels(labelOptions(r.Spec, options, e.processLabelOf))
	if err != nil {
		return nil, err
	}
	r.ProcessLabel, r.MountLabel = labels.Process, labels.Mount
	for _, l := range []string{labels.Process, labels.Mount} {
		if l != "" && !selinux.Known(l) {
			e.unconfine(r)
			return nil, fault.New(fault.Invalid, "the SELinux policy of this machine does not know the label %s: install its policy for containers (container-selinux), "+
				"name types that it has with --security-opt label=type:T and --security-opt label=filetype:T, or use --security-opt label=disable", l)
		}
	}
	return warnings, nil
}

func (e *Engine) unconfine(r *container.Record) {
	if e.confinement.labels != nil && r.MountLabel != "" {
		e.confinement.labels.Release(r.MountLabel)
	}
}

// reconfine takes the labels of a container that existed before this engine.
func (e *Engine) reconfine(r *container.Record) {
	if e.confinement.labels != nil && r.MountLabel != "" {
		e.confinement.labels.Reserve(r.MountLabel)
	}
}

// profileOf gives the AppArmor profile of a container that asked for one, or for none ("").
func profileOf(asked string, privileged bool) string {
	switch {
	case asked != "":
		return asked
	case privileged:
		return apparmor.Unconfined
	}
	return apparmor.DefaultProfile
}

// labelOptions gives the options that a container's labels are made of: its own, if it has any. Else one that shares the host's
// processes or IPC is not confined, and one that shares another container's must carry that one's label, or the two could not talk.
func labelOptions(s *container.Spec, own []string, labelOf func(cid string) string) []string {
	if len(own) > 0 {
		return own
	}
	if s.Security.Privileged || s.Namespaces.PID == "host" || s.Namespaces.IPC == "host" {
		return []string{"disable"}
	}
	for _, mode := range []string{s.Namespaces.IPC, s.Namespaces.PID} {
		donor := joined(mode)
		if donor == "" {
			continue
		}
		c, err := selinux.Parse(labelOf(donor))
		if err != nil {
			return []string{"disable"} // the donor is not confined
		}
		options := []string{"user:" + c.User, "role:" + c.Role, "type:" + c.Type}
		if c.Level != "" {
			options = append(options, "level:"+c.Level)
		}
		return options
	}
	return nil
}

func (e *Engine) processLabelOf(cid string) string {
	if c := e.index.get(cid); c != nil {
		return c.record().ProcessLabel
	}
	return ""
}

// applyConfinement makes ready what a start of the container needs: the profile in the kernel, and labels on the files it is given.
func (e *Engine) applyConfinement(ctx context.Context, r *container.Record) error {
	if e.confinement.apparmor && r.AppArmorProfile == apparmor.DefaultProfile {
		if err := apparmor.Ensure(ctx, r.AppArmorProfile); err != nil {
			return fault.In(err, "AppArmor enabled on system but the %s profile could not be loaded", r.AppArmorProfile)
		}
	}
	if e.confinement.labels == nil || r.MountLabel == "" {
		return nil
	}
	if !r.Spec.Network.IsContainer() {
		etc := e.etcOf(r.ID)
		for _, file := range []string{etc.Hostname, etc.Hosts, etc.ResolvConf} {
			if err := selinux.Relabel(file, r.MountLabel, false); err != nil {
				return err
			}
		}
	}
	for _, m := range r.Spec.Mounts {
		if m.Type == "bind" && m.Relabel != "" {
			if err := selinux.Relabel(m.Source, r.MountLabel, m.Relabel == "z"); err != nil {
				return err
			}
		}
	}
	return nil
}

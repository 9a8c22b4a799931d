package engine

import (
	"cmp"
	"context"
	"slices"

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
	if apparmor.Enabled() && !e.cfg.UserXattr { // profiles are the machine's root's to load
		e.confinement.apparmor = e.wantAppArmor(apparmor.Ensure(ctx, apparmor.DefaultProfile))
	}
	switch {
	case !e.cfg.SELinux:
	case !selinux.Enabled():
		e.log.Warn("selinux-enabled: the kernel runs without SELinux or no policy is loaded; containers are not labelled")
	default:
		e.confinement.labels = selinux.New()
	}
}

// wantAppArmor says whether containers are confined where the kernel could, after an attempt to load the default profile. As in Docker
// they are not where AppArmor's own tools are missing: the machine's owner has not set it up. Any other failure is in the way of every start.
func (e *Engine) wantAppArmor(err error) bool {
	switch {
	case fault.Is(err, fault.Unavailable):
		e.log.Warn("containers are not confined by AppArmor", "reason", err)
		return false
	case err != nil:
		e.log.Error("the default AppArmor profile cannot be loaded; containers that want it will not start", "error", err)
	}
	return true
}

// confine decides the container's user namespace, AppArmor profile and SELinux labels. unconfine gives back what it holds.
func (e *Engine) confine(r *container.Record) (warnings []string, err error) {
	if warnings, err = e.giveUserns(r); err != nil {
		return nil, err
	}
	more, err := e.label(r)
	if err != nil {
		e.releaseUserns(r)
	}
	return append(warnings, more...), err
}

// label decides the AppArmor profile and the SELinux labels.
func (e *Engine) label(r *container.Record) (warnings []string, err error) {
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
		why := "Your kernel does not support AppArmor"
		if e.cfg.UserXattr {
			why = "An engine without root applies no AppArmor profiles"
		}
		warnings = append(warnings, why+": the profile "+asked+" is not applied")
	}
	if err := selinux.CheckOptions(options); err != nil {
		if e.confinement.labels != nil {
			return nil, err
		}
		warnings = append(warnings, "SELinux is not enabled: the label options are not applied, and would be refused where it is: "+err.Error())
	}
	if len(options) == 0 {
		if options, err = labelOptions(r.Spec, e.processLabelOf); err != nil {
			return nil, err
		}
		r.Spec.Security.SecurityOpt = withLabels(r.Spec.Security.SecurityOpt, options)
	}
	if e.confinement.labels == nil {
		return warnings, nil
	}
	labels, err := e.confinement.labels.Labels(options)
	if err != nil {
		return nil, err
	}
	r.ProcessLabel, r.MountLabel = labels.Process, labels.Mount
	for _, l := range []string{labels.Process, labels.Mount} {
		if l != "" && !selinux.Known(l) {
			e.confinement.labels.Release(r.MountLabel)
			return nil, fault.New(fault.Invalid, "the SELinux policy of this machine does not know the label %s: install its policy for containers (container-selinux), "+
				"name types that it has with --security-opt label=type:T and --security-opt label=filetype:T, or use --security-opt label=disable", l)
		}
	}
	return warnings, nil
}

func (e *Engine) unconfine(r *container.Record) {
	e.releaseUserns(r)
	if e.confinement.labels != nil && r.MountLabel != "" {
		e.confinement.labels.Release(r.MountLabel)
	}
}

// reconfine takes the ids and the labels of a container that existed before this engine, and gives it a profile if it was made while the kernel had
// no AppArmor.
func (e *Engine) reconfine(r *container.Record) {
	e.keepUserns(r)
	if e.confinement.apparmor && r.AppArmorProfile == "" {
		asked, _, _ := bundle.Confinement(r.Spec.Security.SecurityOpt) // checked at creation
		r.AppArmorProfile = profileOf(asked, r.Spec.Security.Privileged)
	}
	if e.confinement.labels != nil && r.MountLabel != "" {
		e.confinement.labels.Reserve(r.MountLabel)
	}
}

// profileOf gives the AppArmor profile of a container that asked for one, or for none (""). In Docker too privilege wins.
func profileOf(asked string, privileged bool) string {
	switch {
	case privileged:
		return apparmor.Unconfined
	case asked != "":
		return asked
	}
	return apparmor.DefaultProfile
}

// labelOptions gives the options that the labels of a container are made of which names none itself. One that shares the host's processes
// or IPC is not confined; one that shares another container's carries that one's label, or the two could not talk.
func labelOptions(s *container.Spec, labelOf func(cid string) string) ([]string, error) {
	if s.Security.Privileged || s.Namespaces.PID == "host" || s.Namespaces.IPC == "host" {
		return []string{"disable"}, nil
	}
	ipc, pid := joined(s.Namespaces.IPC), joined(s.Namespaces.PID)
	label := labelOf(cmp.Or(ipc, pid))
	if ipc != "" && pid != "" && labelOf(pid) != label {
		return nil, fault.New(fault.Invalid, "--ipc and --pid containers SELinux labels aren't the same")
	}
	c, err := selinux.Parse(label)
	if err != nil {
		return nil, nil // nobody to share with, or one that is not confined: that is no reason for this one not to be
	}
	options := []string{"user:" + c.User, "role:" + c.Role, "type:" + c.Type}
	if c.Level != "" {
		options = append(options, "level:"+c.Level)
	}
	return options, nil
}

// withLabels writes down what was decided where inspect shows it, as Docker does.
func withLabels(list, options []string) []string {
	list = slices.Clone(list)
	for _, o := range options {
		list = append(list, "label="+o)
	}
	return list
}

func (e *Engine) processLabelOf(cid string) string {
	if c := e.index.get(cid); c != nil {
		return c.record().ProcessLabel
	}
	return ""
}

// applyConfinement makes ready what a start of the container needs: the profile in the kernel, and labels on the files it is given.
func (e *Engine) applyConfinement(ctx context.Context, r *container.Record, paths sources) error {
	if err := e.ensureProfile(ctx, r); err != nil {
		return err
	}
	if e.confinement.labels == nil || r.MountLabel == "" {
		return nil
	}
	etc, shared := e.etcOf(r.ID), false
	if donor := joined(r.Spec.Network.Mode); donor != "" {
		etc, shared = e.etcOf(donor), true // two containers with different categories read them
	}
	for _, file := range []string{etc.Hostname, etc.Hosts, etc.ResolvConf} {
		if err := selinux.Relabel(file, r.MountLabel, shared); err != nil {
			return err
		}
	}
	for _, m := range r.AllMounts() {
		source := m.Source
		switch {
		case m.Type == "volume" && m.Driver == "local":
			source = paths[m.Target]
			m.Relabel = cmp.Or(m.Relabel, "z") // files of a volume are for whoever mounts it
		case m.Type != "bind" || m.Relabel == "":
			continue
		}
		if err := selinux.Relabel(source, r.MountLabel, m.Relabel == "z"); err != nil {
			return fault.In(err, "error setting label on mount source '%s'", source)
		}
	}
	return nil
}

// ensureProfile loads the default profile again if the container wants it: a reload of the machine's own profiles may have dropped it.
func (e *Engine) ensureProfile(ctx context.Context, r *container.Record) error {
	if !e.confinement.apparmor || r.AppArmorProfile != apparmor.DefaultProfile {
		return nil
	}
	err := apparmor.Ensure(ctx, r.AppArmorProfile)
	return fault.In(err, "AppArmor enabled on system but the %s profile could not be loaded", r.AppArmorProfile)
}

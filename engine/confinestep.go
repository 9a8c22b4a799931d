package engine

import (
	"context"

	"berth/base/fault"
	"berth/kernel/lsm/apparmor"
	"berth/kernel/lsm/selinux"
)

// StepConfinement is what the kernel's security modules do for a step of a build. "" is what they do not.
type StepConfinement struct {
	AppArmor                 string // a profile that is loaded
	ProcessLabel, MountLabel string
	Free                     func() // gives the labels back
}

// ConfineStep confines a step as a container that asks for nothing: by the default profile, and by labels with a pair of categories of its
// own. What a step writes where others find it is for all of them: shared labels have no categories.
func (e *Engine) ConfineStep(ctx context.Context, shared bool) (c StepConfinement, err error) {
	c.Free = func() {}
	if e.confinement.apparmor {
		c.AppArmor = apparmor.DefaultProfile
		if err := apparmor.Ensure(ctx, c.AppArmor); err != nil {
			return c, fault.In(err, "AppArmor enabled on system but the %s profile could not be loaded", c.AppArmor)
		}
	}
	labels := e.confinement.labels
	if labels == nil {
		return c, nil
	}
	var l selinux.Labels
	if shared {
		l, err = labels.Shared()
	} else if l, err = labels.Labels(nil); err == nil {
		c.Free = func() { labels.Release(l.Mount) }
	}
	if err != nil {
		return c, err
	}
	for _, name := range []string{l.Process, l.Mount} {
		if name != "" && !selinux.Known(name) {
			c.Free()
			return StepConfinement{}, fault.New(fault.Invalid, "the SELinux policy of this machine does not know the label %s: install its policy for containers "+
				"(container-selinux), or start the engine without --selinux-enabled", name)
		}
	}
	c.ProcessLabel, c.MountLabel = l.Process, l.Mount
	return c, nil
}

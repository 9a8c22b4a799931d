package exec

import (
	"context"
	"net"
	"slices"

	"github.com/moby/buildkit/solver/pb"

	"berth/base/fault"
	"berth/kernel/lsm/selinux"
)

// Security has the kernel's security modules confine steps, as they confine the engine's containers.
type Security interface {
	// Confine decides for one box. shared says that it has cache mounts: what it writes there is for others, perhaps while it runs, so
	// its labels must not keep them out. Whoever asked calls Free, if there is one, when the box is taken down.
	Confine(ctx context.Context, shared bool) (Confined, error)
}

// Confined is what one box has of them. The zero value is a kernel without any.
type Confined struct {
	AppArmor string // a profile that is loaded
	// SELinux labels: of its processes, and of the files that they see.
	ProcessLabel, MountLabel string
	Free                     func()
}

// confine asks once for all that the box mounts and starts. What is insecure is not confined, but its files are labelled as others' are:
// the next step, which is confined, reads them.
func (b *box) confine(ctx context.Context) (err error) {
	if b.r.cfg.Security == nil {
		return nil
	}
	shared := slices.ContainsFunc(b.cfg.mounts, func(m Mount) bool { return m.MountType == pb.MountType_CACHE })
	b.confined, err = b.r.cfg.Security.Confine(ctx, shared)
	if b.cfg.limits.LabelsDisabled {
		b.confined.ProcessLabel = ""
	}
	return err
}

// modules gives the profile and the label of a command's process.
func (b *box) modules(cmd command) (profile, label string) {
	if cmd.insecure {
		return "", ""
	}
	if !b.cfg.limits.ApparmorUnconfined {
		profile = b.confined.AppArmor
	}
	return profile, b.confined.ProcessLabel
}

// listen makes the socket of an agent. A step may connect only to one that carries its own label, which is that of the one who listens.
func (b *box) listen(sock string) (*net.UnixListener, error) {
	var l *net.UnixListener
	listen := func() (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
		return fault.Wrap(fault.Internal, err, "make a socket for the ssh agent")
	}
	if b.confined.ProcessLabel == "" {
		err := listen()
		return l, err
	}
	if err := selinux.WithSocketLabel(b.confined.ProcessLabel, listen); err != nil {
		return nil, err
	}
	if err := selinux.Relabel(sock, b.confined.MountLabel, false); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// shareCache labels the files of a cache mount for all steps. Those that steps add later are labelled so by the kernel.
func (b *box) shareCache(dir string) error {
	if b.confined.MountLabel == "" {
		return nil
	}
	return selinux.Share(dir, b.confined.MountLabel)
}

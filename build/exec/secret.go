package exec

import (
	"context"
	"errors"

	"github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/solver/pb"

	"berth/base/fault"
	"berth/build/session"
	"berth/kernel/mount"
	"berth/kernel/tree"
)

// maxSecret bounds a secret, as BuildKit's clients do.
const maxSecret = 500 << 10

// secretPlace prepares a file with a secret: on a tmpfs of its own, which is attached nowhere but in the step.
func (b *box) secretPlace(ctx context.Context, p *place) error {
	o := p.m.SecretOpt
	if o == nil {
		return fault.New(fault.Invalid, "invalid secret mount options")
	}
	value, found, err := b.r.secret(ctx, b.cfg.sessions, o.ID, o.Optional)
	if err != nil || !found {
		p.absent = !found
		return err
	}
	defer clear(value)
	options := []string{"nodev", "nosuid"}
	if o.Mode&0o111 == 0 {
		options = append(options, "noexec")
	}
	fd, dir, err := b.memory(options)
	if err != nil {
		return err
	}
	p.fd = fd
	defer dir.Close()
	const name = "secret"
	f, err := dir.Create(name, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(value); err != nil {
		return err
	}
	uid, gid, err := b.host(o.Uid, o.Gid)
	if err != nil {
		return err
	}
	if err := f.Chown(int(uid), int(gid)); err != nil {
		return err
	}
	if err := f.Chmod(o.Mode & 0o777); err != nil {
		return err
	}
	p.options = append([]string{"ro"}, options...)
	return b.selectPart(p, name)
}

// memory makes a tmpfs that is attached nowhere. Its pages are not swapped out where the kernel can promise that (Linux 6.4).
func (b *box) memory(options []string) (fd int, dir *tree.Dir, err error) {
	m := mount.Mount{Type: "tmpfs", Source: "tmpfs", Label: b.confined.MountLabel, Options: append([]string{"mode=700", "size=1m", "noswap"}, options...)}
	if fd, err = mount.Make(m); err != nil {
		m.Options = append([]string{"mode=700", "size=1m"}, options...)
		if fd, err = mount.Make(m); err != nil {
			return -1, nil, fault.In(err, "make a tmpfs for a secret")
		}
	}
	if dir, err = tree.OpenFD(fd); err != nil {
		mount.Drop(fd)
		return -1, nil, err
	}
	return fd, dir, nil
}

// secret asks the clients for a secret; found is false where an optional one is missing.
func (r *Runner) secret(ctx context.Context, g session.Group, id string, optional bool) (value []byte, found bool, err error) {
	if id == "" {
		return nil, false, fault.New(fault.Invalid, "secret ID missing from mount options")
	}
	if r.cfg.Sessions == nil {
		err = fault.Wrap(fault.NotFound, secrets.ErrNotFound, "secret %s", id)
	} else {
		value, err = r.cfg.Sessions.Secret(ctx, g, id)
	}
	switch {
	case err == nil && len(value) > maxSecret:
		return nil, false, fault.New(fault.Invalid, "secret %s is larger than %d bytes", id, maxSecret)
	case err == nil:
		return value, true, nil
	case optional && (errors.Is(err, secrets.ErrNotFound) || fault.Is(err, fault.NotFound)):
		return nil, false, nil
	}
	return nil, false, err
}

// secretEnv gives the variables whose values are secrets. An optional one that is missing is empty, as in BuildKit.
func (r *Runner) secretEnv(ctx context.Context, g session.Group, list []*pb.SecretEnv) ([]string, error) {
	var env []string
	for _, s := range list {
		if s.ID == "" {
			return nil, fault.New(fault.Invalid, "secret ID missing for %q environment variable", s.Name)
		}
		value, _, err := r.secret(ctx, g, s.ID, s.Optional)
		if err != nil {
			return nil, err
		}
		env = append(env, s.Name+"="+string(value))
		clear(value)
	}
	return env, nil
}

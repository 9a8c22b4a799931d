package local

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"berth/base/fault"
	"berth/kernel/mount"
)

// mount puts the volume's file system in its place, if it is not there yet.
func (d *Driver) mount(ctx context.Context, name string, o *options) error {
	at := d.data(name)
	if mounted, err := isMounted(at); err != nil || mounted {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, d.cfg.MountTimeout)
	defer cancel()
	m, err := o.mount(ctx, d.names)
	if err != nil {
		return err
	}
	if err := d.attach(ctx, name, m, at); err != nil {
		return maskedError(fault.KindOf(err), err, "failed to mount local volume: "+described(m, at), strings.Join(m.Options, ","))
	}
	return nil
}

// described tells a mount as Docker's errors do.
func described(m mount.Mount, at string) string {
	text := fmt.Sprintf("mount %s:%s", m.Source, at)
	o, err := mount.ParseOptions(m.Options)
	if err == nil && o.Flags != 0 {
		text += fmt.Sprintf(", flags: %#x", o.Flags)
	}
	if err == nil && o.Data != "" {
		text += ", data: " + o.Data
	}
	return text
}

// maskedError is fault.Wrap without the password in the words.
func maskedError(kind fault.Kind, err error, text, words string) error {
	if kind == fault.NotFound || kind == fault.Forbidden || kind == fault.NotImplemented {
		kind = fault.Internal // of the mount; the volume itself is there. Docker answers 500
	}
	if shown := masked(err.Error(), words); shown != err.Error() {
		err = errors.New(shown)
	}
	return fault.Wrap(kind, err, "%s", masked(text, words))
}

// attach makes the mount in a goroutine of its own and attaches it when it comes in time.
func (d *Driver) attach(ctx context.Context, name string, m mount.Mount, at string) error {
	d.mu.Lock()
	if since, ok := d.stuck[name]; ok {
		d.mu.Unlock()
		return fault.New(fault.Unavailable, "an earlier try, of %s ago, is still waiting for %s; it must end first",
			time.Since(since).Round(time.Second), server(m))
	}
	d.stuck[name] = time.Now()
	d.mu.Unlock()

	type result struct {
		fd  int
		err error
	}
	made := make(chan result) // unbuffered: what nobody receives any more is dropped by its maker
	go func() {
		fd, err := d.cfg.Make(m)
		d.mu.Lock()
		delete(d.stuck, name)
		d.mu.Unlock()
		select {
		case made <- result{fd, err}:
		case <-ctx.Done():
			if err == nil {
				mount.Drop(fd)
			}
		}
	}()
	select {
	case r := <-made:
		if r.err != nil {
			return explained(r.err, m)
		}
		return mount.Attach(r.fd, at)
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
		return fault.New(fault.Deadline, "%s did not answer within %s", server(m), d.cfg.MountTimeout)
	}
}

// server names what a mount waits for.
func server(m mount.Mount) string {
	if addr := word(strings.Join(m.Options, ","), "addr"); addr != "" {
		return fmt.Sprintf("the %s server %s", m.Type, addr)
	}
	return fmt.Sprintf("%s file system %q", m.Type, m.Source)
}

// explained adds what to do about errors that say little.
func explained(err error, m mount.Mount) error {
	switch {
	case errors.Is(err, syscall.ENODEV):
		return err // kernel/mount names the module
	case errors.Is(err, syscall.ECONNREFUSED):
		return fault.Wrap(fault.Unavailable, err, "%s runs no such service", server(m))
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.ETIMEDOUT):
		return fault.Wrap(fault.Unavailable, err, "%s cannot be reached", server(m))
	case errors.Is(err, syscall.EACCES) && strings.HasPrefix(m.Type, "nfs"):
		return fault.Wrap(fault.Forbidden, err, "%s does not export %s to this host", server(m), m.Source)
	}
	return err
}

// unmount takes the mount away. A server that is gone may keep the kernel from finishing: it then goes on without us.
func (d *Driver) unmount(ctx context.Context, name string) error {
	at := d.data(name)
	mounted, err := isMounted(at)
	if err != nil {
		return err
	}
	if mounted {
		ctx, cancel := context.WithTimeout(ctx, d.cfg.MountTimeout)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- mount.UnmountBelow(at) }()
		select {
		case err = <-done:
		case <-ctx.Done():
			// The mount has left the tree at once (MNT_DETACH); only its end with the server is still under way.
			if still, merr := isMounted(at); merr != nil || still {
				return fault.New(fault.Deadline, "unmount %s: not done within %s", at, d.cfg.MountTimeout)
			}
		}
		if err != nil {
			return err
		}
	}
	if none, err := d.unused(name); err != nil || !none {
		return err
	}
	return d.users.Clear(name)
}

func isMounted(path string) (bool, error) {
	list, err := mount.Self(func(i *mount.Info) bool { return i.Point == path })
	return len(list) > 0, err
}

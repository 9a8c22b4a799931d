package volume

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/kernel/mount"
	"berth/kernel/tree"
	"berth/volume/driver"
)

// Mount makes a volume, or what is at subpath in it, reachable for a container and gives its host path. The same call again
// gives the same path. subpath is resolved inside the volume and pinned: what the path shows cannot be swapped by whoever
// writes into the volume. A snapshot is shown read-only. Errors: fault.NotFound (the volume, the subpath), and what the driver
// says; then nothing is left mounted that was not before.
func (v *Volumes) Mount(ctx context.Context, name, subpath, containerID string) (string, error) {
	if err := errors.Join(CheckName(name), checkUser(containerID)); err != nil {
		return "", err
	}
	if err := CheckSubpath(subpath); err != nil {
		return "", err
	}
	release, err := v.turns.Take(ctx, name)
	if err != nil {
		return "", fault.In(err, "mount volume %s", name)
	}
	defer release()
	rec, d, err := v.mountable(ctx, name)
	if err != nil {
		return "", err
	}
	had := v.uses(name, containerID)
	at, err := d.Mount(ctx, name, containerID)
	if err != nil {
		return "", err
	}
	v.use(name, containerID)
	if subpath = path.Clean("/" + subpath)[1:]; subpath != "" || rec.SnapshotOf != "" {
		at, err = v.pin(ctx, rec, at, subpath, containerID)
		if err != nil && !had {
			v.unuse(name, containerID)
			if uerr := d.Unmount(context.WithoutCancel(ctx), name, containerID); uerr != nil {
				v.log.Error("volume stays mounted", "volume", name, "error", uerr)
			}
		}
	}
	return at, err
}

// mountable gives what is needed to mount a volume. A volume that only its driver knows can be mounted too.
func (v *Volumes) mountable(ctx context.Context, name string) (*Volume, driver.Driver, error) {
	rec, ok := v.record(name)
	if !ok {
		vol, err := v.Get(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		rec = &vol
	}
	d, err := v.driver(ctx, rec.Driver)
	return rec, d, err
}

// Unmount ends a container's use of a volume, all its pins included. One that it does not use is no error.
func (v *Volumes) Unmount(ctx context.Context, name, containerID string) error {
	if err := errors.Join(CheckName(name), checkUser(containerID)); err != nil {
		return err
	}
	release, err := v.turns.Take(ctx, name)
	if err != nil {
		return fault.In(err, "unmount volume %s", name)
	}
	defer release()
	return v.unmount(ctx, name, containerID)
}

func (v *Volumes) unmount(ctx context.Context, name, user string) error {
	if err := v.unpin(name, user); err != nil {
		return err
	}
	rec, ok := v.record(name)
	kind := localDriver
	if ok {
		kind = rec.Driver
	} else if vol, found := v.elsewhere(ctx, name); found {
		kind = vol.Driver
	}
	d, err := v.driver(ctx, kind)
	if err != nil {
		return fault.In(err, "unmount volume %s", name)
	}
	// Whatever the driver says, this user has ended. What it could not undo it has noted, and tries again with the next Mount or Remove.
	v.unuse(name, user)
	return fault.In(d.Unmount(ctx, name, user), "unmount volume %s", name)
}

func (v *Volumes) uses(name, user string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.users[name][user]
}

func (v *Volumes) use(name, user string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.users[name] == nil {
		v.users[name] = map[string]bool{}
	}
	v.users[name][user] = true
}

func (v *Volumes) unuse(name, user string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.users[name], user)
	if len(v.users[name]) == 0 {
		delete(v.users, name)
	}
}

// pin binds what is at subpath to a path of our own. A server that does not answer is given up like a mount.
func (v *Volumes) pin(ctx context.Context, rec *Volume, at, subpath, user string) (string, error) {
	to := v.pinPath(rec.Name, subpath, user)
	if mounted, err := mount.Self(func(i *mount.Info) bool { return i.Point == to }); err != nil || len(mounted) > 0 {
		return to, err
	}
	found, err := await(ctx, v.mountTimeout(), "open "+filepath.Join(at, subpath),
		func() (part, error) { return v.part(rec, at, subpath) }, func(late part) { mount.Drop(late.fd) })
	if err != nil {
		return "", err
	}
	if err := makePlace(to, found.dir); err != nil {
		mount.Drop(found.fd)
		return "", err
	}
	if err := mount.Attach(found.fd, to); err != nil {
		v.unpinOne(to)
		return "", err
	}
	failpoint.Hit("volume/pinned")
	return to, nil
}

// part is a piece of a volume that is mounted nowhere yet.
type part struct {
	fd  int
	dir bool
}

func (v *Volumes) part(rec *Volume, at, subpath string) (part, error) {
	root, err := tree.OpenDir(at)
	if err != nil {
		return part{}, fault.Wrap(fault.Internal, err, "open volume %s", rec.Name)
	}
	defer root.Close()
	if err := mount.CheckBeneath(v.cfg.Facts, root.FD(), subpath); err != nil {
		return part{}, fault.Wrap(fault.Invalid, err, "subpath %q of volume %s", subpath, rec.Name)
	}
	fd, dir, err := mount.PinInRoot(v.cfg.Facts, root.FD(), subpath)
	if err != nil {
		return part{}, cannotAccess(err, filepath.Join(at, subpath))
	}
	if rec.SnapshotOf != "" {
		if err := mount.ReadOnly(fd); err != nil {
			mount.Drop(fd)
			return part{}, err
		}
	}
	return part{fd, dir}, nil
}

// cannotAccess says it in Docker's words.
func cannotAccess(err error, path string) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return fault.New(fault.KindOf(err), "cannot access path %s: lstat %s: %v", path, path, errno)
	}
	return fault.In(err, "cannot access path %s", path)
}

// pinPath is RUNROOT/pins/USER/NAME/KEY.
func (v *Volumes) pinPath(name, subpath, user string) string {
	key := sha256.Sum256([]byte(subpath))
	return filepath.Join(v.pinsOf(name, user), hex.EncodeToString(key[:8]))
}

func (v *Volumes) pinsOf(name, user string) string {
	return filepath.Join(v.cfg.RunRoot, "pins", user, name)
}

// makePlace makes an empty directory or file to mount on.
func makePlace(path string, dir bool) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o701); err != nil {
		return err
	}
	if dir {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// unpin takes the pins that a user has of a volume away.
func (v *Volumes) unpin(name, user string) error {
	dir := v.pinsOf(name, user)
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := v.unpinOne(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// unpinOne takes one pin away, and its directories with the last.
func (v *Volumes) unpinOne(at string) error {
	if err := mount.UnmountBelow(at); err != nil {
		return err
	}
	if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := filepath.Dir(at)
	if os.Remove(dir) == nil {
		os.Remove(filepath.Dir(dir))
	}
	return nil
}

package access

import (
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"berth/base/fault"
)

// listen makes the socket of a policy. It appears under its name with its owner and mode right, so that nobody gets in before.
func (p *Policy) listen(path string) (net.Listener, error) {
	uid, gid, err := p.owner()
	if err != nil {
		return nil, err
	}
	mode, err := p.mode()
	if err != nil {
		return nil, err
	}
	temporary := path + "~"
	_ = os.Remove(temporary)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "access %q: listening on %s", p.Name, path)
	}
	l.SetUnlinkOnClose(false)
	for _, step := range []func() error{
		func() error { return os.Chown(temporary, uid, gid) },
		func() error { return os.Chmod(temporary, mode) },
		func() error { return os.Rename(temporary, path) },
	} {
		if err := step(); err != nil {
			l.Close()
			os.Remove(temporary)
			return nil, fault.Wrap(fault.Internal, err, "access %q: setting up %s", p.Name, path)
		}
	}
	return l, nil
}

// mode gives the socket's permissions.
func (p *Policy) mode() (os.FileMode, error) {
	if p.Mode == "" {
		if p.Group != "" {
			return 0o660, nil
		}
		return 0o600, nil
	}
	n, err := strconv.ParseUint(p.Mode, 8, 32)
	if err != nil || n > 0o777 {
		return 0, fault.New(fault.Invalid, "access %q: the mode %q is no octal number of permissions, as 0660", p.Name, p.Mode)
	}
	return os.FileMode(n), nil
}

// owner gives the socket's owner: who runs the engine, where nothing is said.
func (p *Policy) owner() (uid, gid int, err error) {
	uid, gid = os.Getuid(), os.Getgid()
	if p.User != "" {
		if uid, err = strconv.Atoi(p.User); err != nil {
			u, err := user.Lookup(p.User)
			if err != nil {
				return 0, 0, fault.Wrap(fault.Invalid, err, "access %q: --user", p.Name)
			}
			uid, _ = strconv.Atoi(u.Uid)
		}
	}
	if p.Group != "" {
		if gid, err = strconv.Atoi(p.Group); err != nil {
			g, err := user.LookupGroup(p.Group)
			if err != nil {
				return 0, 0, fault.Wrap(fault.Invalid, err, "access %q: --group", p.Name)
			}
			gid, _ = strconv.Atoi(g.Gid)
		}
	}
	return uid, gid, nil
}

// maxSocketPath is how long the path of a unix socket may be (unix(7)).
const maxSocketPath = 107

func checkSocketPath(path string) error {
	if len(path)+1 > maxSocketPath || !filepath.IsAbs(path) {
		return fault.New(fault.Invalid, "access: %s is too long for a unix socket: choose a shorter name or exec root", path)
	}
	return nil
}

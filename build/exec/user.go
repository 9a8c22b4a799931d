package exec

import (
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/base/userdb"
	"berth/kernel/mount"
	"berth/kernel/tree"
)

// maxUserFile bounds what is read of passwd and group, as in BuildKit.
const maxUserFile = 10 << 20

// lookup finds who a process runs as, in the passwd and group of the root. Without a name it is root, in the groups that the image lists it in
// where these files can be understood: so BuildKit.
func (b *box) lookup(name string) (userdb.User, error) {
	root, err := tree.OpenFD(b.root.fd)
	if err != nil {
		return userdb.User{}, err
	}
	defer root.Close()
	passwd, err := readText(root, "etc/passwd")
	if err != nil {
		return userdb.User{}, err
	}
	byDefault := name == ""
	if byDefault {
		name = "0"
	}
	var group []byte
	if !numeric(name) {
		if group, err = readText(root, "etc/group"); err != nil {
			return userdb.User{}, err
		}
	}
	u, err := userdb.Lookup(name, passwd, group, nil)
	if err != nil && byDefault {
		return userdb.User{Home: "/"}, nil
	}
	return u, err
}

// numeric tells "uid:gid" in numbers, for which no group has to be looked up.
func numeric(name string) bool {
	uid, gid, ok := strings.Cut(name, ":")
	digits := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	return ok && digits(uid) && digits(gid)
}

// readText reads a file of the root, resolved inside it; nothing where there is none.
func readText(root *tree.Dir, name string) ([]byte, error) {
	f, err := root.OpenFile(name)
	if err != nil {
		if tree.Missing(err) || tree.NotDir(err) {
			return nil, nil
		}
		return nil, fault.Wrap(fault.Invalid, err, "read /%s of the image", name)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxUserFile+1))
	if err == nil && len(text) > maxUserFile {
		err = fault.New(fault.Invalid, "/%s of the image is larger than %d bytes", name, maxUserFile)
	}
	return text, err
}

// makeWorkingDir makes the working directory and its missing parents, which then belong to the user, as BuildKit has it.
func (b *box) makeWorkingDir(dir string, uid, gid uint32) error {
	dir = path.Clean("/" + dir)
	open := func(p string) (int, error) {
		return mount.OpenInRoot(b.r.facts, b.root.fd, p, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	fd, err := open(dir)
	if err == nil {
		mount.Drop(fd)
		return nil
	}
	if b.root.m.Readonly || !tree.Missing(err) {
		return nil // the launch says what is wrong with it
	}
	root, err := tree.OpenFD(b.root.fd)
	if err != nil {
		return err
	}
	defer root.Close()
	made, err := root.Follow(dir) // a link that leads nowhere yet: what it leads to is made
	if err != nil {
		return nil
	}
	for i := range made {
		if i == 0 || made[i] != '/' && i != len(made)-1 {
			continue
		}
		part := made[:i]
		if i == len(made)-1 {
			part = made
		}
		if err := b.makeDir(part, uid, gid); err != nil {
			return fault.In(err, "failed to create working directory %s", dir)
		}
	}
	return nil
}

func (b *box) makeDir(dir string, uid, gid uint32) error {
	parent, err := mount.OpenInRoot(b.r.facts, b.root.fd, path.Dir(dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer mount.Drop(parent)
	at, err := tree.OpenFD(parent)
	if err != nil {
		return err
	}
	defer at.Close()
	name := path.Base(dir)
	if err := at.Mkdir(name, 0o755); err != nil {
		if tree.Exists(err) {
			return nil
		}
		return err
	}
	if err := at.Chmod(name, 0o755); err != nil { // whatever the umask
		return err
	}
	return at.Chown(name, int(uid), int(gid))
}

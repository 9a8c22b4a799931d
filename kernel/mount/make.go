package mount

import (
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/probe"
)

// Make makes what fstab's words describe as a detached mount: m.Source, m.Type and m.Options, a bind included. Nobody sees
// it before Attach; closing the descriptor undoes it, also when the call took so long that its caller has given up.
// The kernel works in this call: for a network file system it talks to the server. Errors: NotFound (device or
// directory), NotImplemented (no such file system), Invalid (an option, in the file system's own words), and what a server
// refuses, with its errno.
func Make(m Mount) (fd int, err error) {
	o, err := ParseOptions(m.Options)
	if err != nil {
		return -1, err
	}
	if m.IsBind() || o.Flags&unix.MS_BIND != 0 {
		return makeBind(m.Source, &o)
	}
	fs, err := OpenFS(m.Type)
	if err != nil {
		return -1, err
	}
	defer fs.Close()
	if m.Source != "" {
		if err := fs.Set("source", m.Source); err != nil {
			return -1, err
		}
	}
	for _, w := range Super(o.Flags) {
		if err := fs.Flag(w); err != nil {
			return -1, err
		}
	}
	if m.Label != "" { // apart from the other words: it may have a comma in it
		if err := fs.Set("context", m.Label); err != nil {
			return -1, err
		}
	}
	if o.Flags&unix.MS_RDONLY != 0 {
		if err := fs.Flag("ro"); err != nil {
			return -1, err
		}
	}
	// fsconfig takes strings of at most 255 bytes; its own error would be a bare EINVAL.
	for word := range strings.SplitSeq(o.Data, ",") {
		if _, value, _ := strings.Cut(word, "="); len(value) > 255 {
			return -1, fault.New(fault.Invalid, "mount option of %d bytes: the kernel takes at most 255", len(value))
		}
	}
	if err := fs.Data(o.Data); err != nil {
		return -1, err
	}
	return fs.Mount(Attributes(o.Flags))
}

func makeBind(source string, o *Options) (int, error) {
	// A link at the end of the source is followed, as mount(8) does: it is the host administrator's word.
	at, err := unix.Open(source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, failed(err, "open", source)
	}
	defer unix.Close(at)
	fd, err := OpenTree(at, "", true, o.Flags&unix.MS_REC != 0)
	if err != nil {
		return -1, err
	}
	set, clear := Attributes(o.Flags), Attributes(o.Cleared)
	if set|clear != 0 {
		if err := SetAttributes(fd, "", set, clear, false); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// Attach puts a detached mount at a path of this process, following links on the way, and closes its descriptor whatever
// happens.
func Attach(fd int, path string) error {
	defer unix.Close(fd)
	at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return failed(err, "open", path)
	}
	defer unix.Close(at)
	return Move(fd, at, "")
}

// Drop closes a descriptor from Make, OpenTree or OpenInRoot. A detached mount that was nowhere put is gone with it.
func Drop(fd int) { unix.Close(fd) }

// PinInRoot gives a detached bind of what is at path p inside root, resolved as OpenInRoot does: what it shows stays the same
// however names are changed afterwards. dir tells whether it is a directory. Mounts below come along.
func PinInRoot(have probe.Features, root int, p string) (fd int, dir bool, err error) {
	at, err := OpenInRoot(have, root, p, unix.O_PATH, 0)
	if err != nil {
		return -1, false, err
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return -1, false, failed(err, "stat", p)
	}
	fd, err = OpenTree(at, "", true, true)
	return fd, st.Mode&unix.S_IFMT == unix.S_IFDIR, err
}

// ReadOnly makes the detached mount fd, and those below it, read-only. Before Linux 5.12 it is refused: a bind could only be
// remounted where it is attached.
func ReadOnly(fd int) error {
	return SetAttributes(fd, "", unix.MOUNT_ATTR_RDONLY, 0, true)
}

// Share makes the directory a mount point whose mounts show wherever it is bound with shared propagation, and the other way round;
// one that is such a mount point stays. mount(2), mount_namespaces(7).
func Share(path string) error {
	list, err := Self(func(i *Info) bool { return i.Point == path })
	if err != nil {
		return err
	}
	if len(list) == 0 {
		if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
			return failed(err, "bind", path)
		}
	}
	return failed(unix.Mount("", path, "", unix.MS_SHARED, ""), "make shared", path)
}

package exec

import (
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"berth/kernel/mount"
	"berth/kernel/tree"
)

// outlivesSignal tells whether PR_SET_PDEATHSIG might not end the command's process with the engine. The kernel watches the thread that clones, and only
// those of a rootful engine's launcher live as long as itself; and whose program makes it another user, gives it capabilities or
// takes it to a domain of AppArmor's or SELinux's is free of the signal. An enclosure ends them all the same. It takes one process more for each, unless there is a user namespace, where that is
// needed anyway. What a program does later is not known here: one that becomes another user by itself, or executes what makes it one, is free of the signal,
// and ends when the next engine starts.
func (b *box) outlivesSignal(cmd command) bool {
	if b.r.cfg.InUserNS || b.mapping != nil {
		return true
	}
	if profile, label := b.modules(cmd); profile != "" || label != "" {
		return true // apparmor_bprm_committing_creds, selinux_bprm_committing_creds
	}
	var paths []string
	if name := cmd.args[0]; strings.Contains(name, "/") {
		paths = []string{path.Join("/", cmd.cwd, name)}
		if path.IsAbs(name) {
			paths[0] = name
		}
	} else {
		for _, e := range cmd.env {
			if list, ok := strings.CutPrefix(e, "PATH="); ok {
				paths = nil // the last one counts
				for dir := range strings.SplitSeq(list, ":") {
					paths = append(paths, path.Join("/", dir, name))
				}
			}
		}
	}
	for _, p := range paths {
		fd, err := mount.OpenInRoot(b.r.facts, b.root.fd, p, unix.O_PATH|unix.O_CLOEXEC, 0)
		if tree.Missing(err) || tree.NotDir(err) {
			continue
		}
		if err != nil {
			return true
		}
		plain := plainProgram(fd)
		mount.Drop(fd)
		return !plain
	}
	return true // perhaps on another mount
}

// plainProgram tells a program that surely runs as whoever executes it. Of a script, that would be a matter of what interprets it. at (O_PATH) is opened
// only once it is known for a file: an image may have the node of a device there, and to open one can be all that it takes (a watchdog).
func plainProgram(at int) bool {
	var st unix.Stat_t
	if unix.Fstat(at, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		return false
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(at), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if n, err := unix.Fgetxattr(fd, "security.capability", nil); n > 0 || err != unix.ENODATA && err != unix.ENOTSUP {
		return false
	}
	var magic [2]byte
	n, err := unix.Pread(fd, magic[:], 0)
	return err == nil && n == len(magic) && string(magic[:]) != "#!"
}

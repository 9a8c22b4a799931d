package mount

import (
	"strings"

	"golang.org/x/sys/unix"

	"berth/kernel/probe"
)

// OpenInRoot opens a path of a container: links and ".." in it are resolved as if root were "/", so that
// nothing outside can be reached however the tree is changed meanwhile. Magic links (/proc/PID/root,
// fd/…) are refused with ELOOP. flags and mode are openat's. Uses openat2(RESOLVE_IN_ROOT), Linux 5.6;
// where a sandbox hides it, every part is opened for itself.
func OpenInRoot(have probe.Features, root int, p string, flags int, mode uint32) (int, error) {
	fd, err := openInRoot(have, root, p, flags, mode)
	return fd, failed(err, "open", p)
}

func openInRoot(have probe.Features, root int, p string, flags int, mode uint32) (int, error) {
	if !have.Has(probe.Openat2) {
		return walk(root, p, flags, mode)
	}
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flags&unix.O_CREAT != 0 || flags&unix.O_TMPFILE == unix.O_TMPFILE {
		how.Mode = uint64(mode)
	}
	p = strings.TrimLeft(p, "/")
	if p == "" {
		p = "."
	}
	for range 128 {
		fd, err := unix.Openat2(root, p, &how)
		// EAGAIN: something was renamed or mounted on the way, so that the kernel cannot be sure.
		if err != unix.EAGAIN && err != unix.EINTR {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

const maxLinks = 40 // the kernel's own limit, MAXSYMLINKS

// walk is OpenInRoot without openat2. It keeps a descriptor for each directory on the way, so that ".."
// goes back to where it came from, wherever that has been moved since.
func walk(root int, p string, flags int, mode uint32) (int, error) {
	var stack []int
	defer func() {
		for _, fd := range stack {
			unix.Close(fd)
		}
	}()
	here := func() int {
		if len(stack) == 0 {
			return root
		}
		return stack[len(stack)-1]
	}
	up := func() {
		if n := len(stack); n > 0 {
			unix.Close(stack[n-1])
			stack = stack[:n-1]
		}
	}
	links := 0
	todo := p
	for {
		todo = strings.TrimLeft(todo, "/")
		var part string
		mustBeDir := strings.Contains(todo, "/")
		part, todo, _ = strings.Cut(todo, "/")
		last := strings.Trim(todo, "/") == ""
		switch part {
		case "", ".", "..":
			if part == ".." {
				up()
			}
			if !last {
				continue
			}
			return unix.Openat(here(), ".", flags|unix.O_CLOEXEC, mode)
		}
		fd, err := unix.Openat(here(), part, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT && last && flags&unix.O_CREAT != 0 && !mustBeDir {
			return unix.Openat(here(), part, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		}
		if err != nil {
			return -1, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return -1, err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			if last && flags&unix.O_NOFOLLOW != 0 && !mustBeDir {
				if flags&unix.O_PATH != 0 {
					return fd, nil
				}
				unix.Close(fd)
				return -1, unix.ELOOP
			}
			target, err := followable(fd)
			unix.Close(fd)
			if err != nil {
				return -1, err
			}
			if links++; links > maxLinks {
				return -1, unix.ELOOP
			}
			if strings.HasPrefix(target, "/") {
				for len(stack) > 0 {
					up()
				}
			}
			rest := todo
			todo = target
			if mustBeDir {
				todo += "/" + rest
			}
			continue
		}
		if last {
			unix.Close(fd)
			if mustBeDir {
				flags |= unix.O_DIRECTORY
			}
			// The name may have become a link meanwhile: O_NOFOLLOW then refuses it.
			return unix.Openat(here(), part, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			unix.Close(fd)
			return -1, unix.ENOTDIR
		}
		stack = append(stack, fd)
	}
}

// followable reads a link's target. Links of procfs may be magic, leading anywhere: they are refused.
func followable(fd int) (string, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return "", err
	}
	if fs.Type == unix.PROC_SUPER_MAGIC {
		return "", unix.ELOOP
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "", unix.ENOENT
	}
	return string(buf[:n]), nil
}

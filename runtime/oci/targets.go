package oci

import (
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// checkTargets refuses mounts that links in the image lead into /proc: what is refused by name
// (checkMount) must not be had by another name. The launch program resolves targets again, inside the
// root; it cannot leave the root, but it does not know that it is in /proc.
//
// A target whose links lead to nothing yet becomes the path that they lead to, which can be made.
func checkTargets(root string, mounts []specs.Mount) error {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "open %s", root)
	}
	defer unix.Close(dir)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS}
	for i := range mounts {
		dest := filepath.Clean("/" + mounts[i].Destination)
		fd, err := unix.Openat2(dir, strings.TrimPrefix(dest, "/"), &how)
		if err == nil {
			unix.Close(fd)
		}
		if err != unix.ELOOP && err != unix.ENOSYS {
			continue // no link on the way
		}
		if t := mounts[i].Type; t == "proc" || t == "sysfs" {
			return fault.New(fault.Invalid, "filesystem %q must be mounted on ordinary directory: %s is or goes through a link of the image", t, dest)
		}
		resolved, err := followLinks(dir, dest)
		if err != nil {
			return fault.In(err, "mounts[%d] (%s)", i, dest)
		}
		m := mounts[i]
		m.Destination = resolved
		if resolved == "/proc" && dest != "/proc" || checkMount(&m) != nil {
			return fault.New(fault.Invalid, "mounts[%d]: %q cannot be mounted because links of the image lead it inside /proc (%s)", i, dest, resolved)
		}
		if dangles(dir, dest) && !covered(dest, mounts[:i]) {
			mounts[i].Destination = resolved
		}
	}
	return nil
}

// dangles reports whether a container's path leads to nothing.
func dangles(root int, path string) bool {
	fd, err := unix.Openat2(root, strings.TrimPrefix(path, "/"), &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err == nil {
		unix.Close(fd)
	}
	return err == unix.ENOENT
}

// covered reports whether the path leads through one of the mounts, so that the image's links do not count.
func covered(path string, mounts []specs.Mount) bool {
	for i := range mounts {
		if strings.HasPrefix(path, filepath.Clean("/"+mounts[i].Destination)+"/") {
			return true
		}
	}
	return false
}

// maxLinks is how many links a path may have (the kernel's own limit, path_resolution(7)).
const maxLinks = 40

// followLinks gives the path that a container's path means once its links are followed, as seen from
// inside. What does not exist ends the following: the rest is taken by name.
func followLinks(root int, path string) (string, error) {
	done, rest := "", path
	for links := 0; rest != ""; {
		rest = strings.TrimLeft(rest, "/")
		name, after, _ := strings.Cut(rest, "/")
		rest = after
		switch name {
		case "", ".":
			continue
		case "..":
			done = done[:max(0, strings.LastIndexByte(done, '/'))]
			continue
		}
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(root, strings.TrimPrefix(done+"/"+name, "/"), buf)
		if err != nil { // no link, or nothing there; parts before are no links, so nothing leaves the root
			done += "/" + name
			continue
		}
		if links++; links > maxLinks {
			return "", fault.Wrap(fault.Invalid, unix.ELOOP, "follow the links of %s", path)
		}
		target := string(buf[:n])
		if strings.HasPrefix(target, "/") {
			done = ""
		}
		rest = target + "/" + rest
	}
	if done == "" {
		return "/", nil
	}
	return done, nil
}

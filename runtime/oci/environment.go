package oci

import (
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/kernel/mount"
	"berth/kernel/probe"
)

// completeEnv gives a process's environment the form that programs expect: of a variable that is there
// twice the last one counts, and HOME is what the container's /etc/passwd says unless it is set.
// root is where the container's files are, as we see them; mounts are still to be made over them.
func completeEnv(env []string, uid uint32, root string, mounts []specs.Mount) []string {
	if env == nil {
		return nil // no environment was asked for
	}
	out := make([]string, 0, len(env)+1)
	home := false
	for i, kv := range env {
		key, value, _ := strings.Cut(kv, "=")
		if overridden(env[i+1:], key) || key == "HOME" && value == "" {
			continue
		}
		home = home || key == "HOME"
		out = append(out, kv)
	}
	if !home {
		out = append(out, "HOME="+homeOf(readPasswd(root, mounts), uid))
	}
	return out
}

func overridden(later []string, key string) bool {
	for _, kv := range later {
		if len(kv) > len(key) && kv[len(key)] == '=' && kv[:len(key)] == key {
			return true
		}
	}
	return false
}

// readPasswd reads the container's list of users; whatever keeps us from it, there is none then.
func readPasswd(root string, mounts []specs.Mount) string {
	const file = "/etc/passwd"
	for _, m := range mounts {
		if m.Destination == file && m.Source != "" {
			text, _ := readFile(m.Source)
			return string(text)
		}
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(dir)
	// Looked at before it is opened: an image may have put a device there, and to open some does something (/dev/watchdog).
	place, err := mount.OpenInRoot(probe.Host(), dir, file, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(place)
	var st unix.Stat_t
	if unix.Fstat(place, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > 1<<20 {
		return "" // whatever it is, it is no list of users
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(place), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	text := make([]byte, st.Size)
	n, err := unix.Pread(fd, text, 0)
	if err != nil {
		return ""
	}
	return string(text[:n])
}

// homeOf finds a user's home directory in the text of passwd(5), "/" if he has none.
func homeOf(passwd string, uid uint32) string {
	want := strconv.FormatUint(uint64(uid), 10)
	for line := range strings.SplitSeq(passwd, "\n") {
		f := strings.Split(line, ":")
		if len(f) >= 6 && f[2] == want && f[5] != "" {
			return f[5]
		}
	}
	return "/"
}

package selinux

import (
	"os"
	"runtime"
	"strings"

	"berth/base/fault"
)

// Context is a label taken apart. Level is "" under a policy without categories.
type Context struct{ User, Role, Type, Level string }

// Parse takes a label apart.
func Parse(label string) (Context, error) {
	parts := strings.SplitN(label, ":", 4)
	if len(parts) < 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" || strings.ContainsAny(label, "\x00\n\t \"") {
		return Context{}, fault.New(fault.Invalid, "invalid SELinux label %q: want user:role:type:level", label)
	}
	c := Context{User: parts[0], Role: parts[1], Type: parts[2]}
	if len(parts) == 4 {
		c.Level = parts[3]
	}
	return c, nil
}

// String puts the label together again.
func (c Context) String() string {
	s := c.User + ":" + c.Role + ":" + c.Type
	if c.Level != "" {
		s += ":" + c.Level
	}
	return s
}

// ExecAttr gives the file a process opens below /proc and the words it writes there in one write(2) to
// carry a label from its next execve(2) on. Both are "" for no label.
func ExecAttr(label string) (path, value string) {
	if label == "" {
		return "", ""
	}
	return "/proc/self/attr/exec", label
}

// KeyAttr is ExecAttr for the label of keys and keyrings that the process makes; a session keyring made
// without it carries the runtime's label, and the container cannot use it.
func KeyAttr(label string) (path, value string) {
	if label == "" {
		return "", ""
	}
	return "/proc/self/attr/keycreate", label
}

// WithSocketLabel runs f, whose sockets carry the label: a confined process may connect only to those with a label that its own allows.
// f must not start goroutines that make sockets.
func WithSocketLabel(label string, f func() error) (err error) {
	if label == "" {
		return f()
	}
	runtime.LockOSThread()
	const attr = "/proc/thread-self/attr/sockcreate"
	if err := os.WriteFile(attr, []byte(label), 0); err != nil {
		runtime.UnlockOSThread()
		return fault.Wrap(fault.Internal, err, "label sockets %s", label)
	}
	defer func() {
		// A thread that would label what others make is left to end with its goroutine.
		if os.WriteFile(attr, nil, 0) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

// MountOption gives the option by which a file system that keeps no labels shows one label on all its
// files, as mount(2) takes it; fsconfig(2) takes the part behind the = without the quotes. "" for no label.
func MountOption(label string) string {
	if label == "" {
		return ""
	}
	return `context="` + label + `"`
}

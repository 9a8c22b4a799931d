package link

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"berth/base/fault"
)

// Sysctl reads a setting of the calling thread's network namespace: "net.ipv4.ip_forward". A link's name in it stands
// between slashes: "net/ipv4/conf/eth0.10/forwarding".
func Sysctl(key string) (string, error) {
	b, err := os.ReadFile(sysctlPath(key))
	if err != nil {
		return "", fault.Wrap(sysctlKind(err), err, "read %s", key)
	}
	return strings.TrimSpace(string(b)), nil
}

// SetSysctl writes a setting, unless it is so already. NotFound: this kernel has none of that name; Forbidden: /proc/sys
// is read-only here.
func SetSysctl(key, value string) error {
	path := sysctlPath(key)
	if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == value {
		return nil
	}
	return WriteSysctl(key, value)
}

// WriteSysctl writes a setting without looking at it first.
func WriteSysctl(key, value string) error {
	f, err := os.OpenFile(sysctlPath(key), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(value)
		f.Close()
	}
	return fault.Wrap(sysctlKind(err), err, "set %s to %s", key, value)
}

func sysctlPath(key string) string {
	if !strings.Contains(key, "/") {
		key = strings.ReplaceAll(key, ".", "/")
	}
	return "/proc/sys/" + key
}

func sysctlKind(err error) fault.Kind {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.NotFound
	case errors.Is(err, fs.ErrPermission), err != nil && strings.Contains(err.Error(), "read-only"):
		return fault.Forbidden
	}
	return fault.Internal
}

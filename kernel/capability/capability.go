package capability

import (
	"os"
	"strconv"
	"strings"
	"sync"
)

// names in the order of their bits (linux/capability.h).
var names = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
	"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
	"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
	"PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// Number gives a capability's bit. The name may have or lack its CAP_, in any case of letters.
func Number(name string) (bit int, ok bool) {
	name = strings.TrimPrefix(strings.ToUpper(name), "CAP_")
	for i, n := range names {
		if n == name {
			return i, i <= Last()
		}
	}
	return 0, false
}

// Mask gives the bits of names, and the names that this kernel does not know.
func Mask(list []string) (mask uint64, unknown []string) {
	for _, name := range list {
		bit, ok := Number(name)
		if !ok {
			unknown = append(unknown, name)
			continue
		}
		mask |= 1 << bit
	}
	return mask, unknown
}

// Last is the highest capability this kernel has (/proc/sys/kernel/cap_last_cap, Linux 3.2).
func Last() int { return last() }

var last = sync.OnceValue(func() int {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return len(names) - 1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return len(names) - 1
	}
	return n
})

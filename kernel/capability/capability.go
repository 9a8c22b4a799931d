package capability

import (
	"math/bits"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// names in the order of their bits (linux/capability.h, Linux 5.9's last is CHECKPOINT_RESTORE).
var names = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

const prefix = "CAP_"

// Bit gives a capability's bit, whether this kernel has it or not. The name may have or lack its CAP_
// and be written in any case of letters.
func Bit(name string) (bit int, ok bool) {
	short := name
	if len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
		short = name[len(prefix):]
	}
	for i, n := range names {
		if len(short) == len(n)-len(prefix) && strings.EqualFold(n[len(prefix):], short) { // the length keeps non-ASCII letters out
			return i, true
		}
	}
	return 0, false
}

// Number gives the bit of a capability that this kernel has. The name is as for Bit.
func Number(name string) (bit int, ok bool) {
	bit, ok = Bit(name)
	return bit, ok && bit <= Last()
}

// Mask gives the set of the named capabilities, and the names that this kernel does not know.
func Mask(list []string) (set uint64, unknown []string) {
	for _, name := range list {
		bit, ok := Number(name)
		if !ok {
			unknown = append(unknown, name)
			continue
		}
		set |= 1 << bit
	}
	return set, unknown
}

// Names lists a set's members by their full names, the lowest bit first. Bits without a name are left out.
func Names(set uint64) []string {
	list := make([]string, 0, bits.OnesCount64(set))
	for bit, name := range names {
		if set&(1<<bit) != 0 {
			list = append(list, name)
		}
	}
	return list
}

// Last is the highest capability this kernel has (/proc/sys/kernel/cap_last_cap, Linux 3.2).
func Last() int { return last() }

// All is the set of every capability this kernel has and we can name.
func All() uint64 { return 1<<(min(Last(), len(names)-1)+1) - 1 }

// Permitted is the set this process may use and pass on to what it starts, capget(2)'s permitted. It
// is smaller than All inside a container or a restricted service.
func Permitted() (uint64, error) {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return 0, fault.Wrap(fault.Internal, err, "read this process's capabilities")
	}
	return uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted), nil
}

var last = sync.OnceValue(func() int {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return len(names) - 1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 0 || n > 63 {
		return len(names) - 1
	}
	return n
})

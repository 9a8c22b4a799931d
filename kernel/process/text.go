package process

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ForgetText takes this program's own code and constants out of its page tables and gives their size in bytes. What start-up alone
// needed then counts for nothing any more, and the kernel may have the memory back when it is short; the rest comes back with the next
// use, from the page cache (madvise(2), MADV_DONTNEED: a private mapping that was never written to is read from its file again). The
// mappings stay, and so does everything that can be written.
func ForgetText() (bytes uint64, err error) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return 0, err
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || strings.Join(fields[5:], " ") != exe || strings.Contains(fields[1], "w") {
			continue
		}
		var from, to uintptr
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &from, &to); err != nil {
			return bytes, err
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return bytes, errno
		}
		bytes += uint64(to - from)
	}
	return bytes, nil
}

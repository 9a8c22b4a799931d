package process

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Killed reports whether a thread has SIGKILL pending: it will never run its program again, whatever it is answered. A
// thread that is not known here (another pid namespace, or gone) is taken for alive.
func Killed(tid int) bool {
	if tid <= 0 {
		return false
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	return err == nil && (pending(status, "SigPnd:") || pending(status, "ShdPnd:"))
}

func pending(status []byte, field string) bool {
	_, rest, ok := bytes.Cut(status, []byte("\n"+field))
	if !ok {
		return false
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	mask, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 64)
	return err == nil && mask&(1<<(unix.SIGKILL-1)) != 0
}

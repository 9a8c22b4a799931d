package engine

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

const (
	sigMax = 64
	// The C library keeps the first two real-time signals for itself, so that programs count from 34.
	sigRTMin = 34
)

// parseSignal reads "SIGTERM", "term", "15", "RTMIN+3".
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > sigMax {
			return 0, fault.New(fault.Invalid, "invalid signal: %s", s)
		}
		return unix.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n := unix.SignalNum("SIG" + name); n != 0 {
		return n, nil
	}
	n, ok := realTime(name)
	if !ok {
		return 0, fault.New(fault.Invalid, "invalid signal: %s", s)
	}
	return n, nil
}

func realTime(name string) (unix.Signal, bool) {
	base, sign, rest := sigRTMin, 1, ""
	switch {
	case strings.HasPrefix(name, "RTMIN"):
		rest = strings.TrimPrefix(strings.TrimPrefix(name, "RTMIN"), "+")
	case strings.HasPrefix(name, "RTMAX"):
		base, sign, rest = sigMax, -1, strings.TrimPrefix(strings.TrimPrefix(name, "RTMAX"), "-")
	default:
		return 0, false
	}
	if rest == "" {
		return unix.Signal(base), true
	}
	n, err := strconv.ParseUint(rest, 10, 6)
	if err != nil || int(n) > sigMax-sigRTMin {
		return 0, false
	}
	return unix.Signal(base + sign*int(n)), true
}

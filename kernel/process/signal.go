package process

import (
	"strconv"
	"strings"

	"berth/base/fault"
)

// The first and last real-time signals as the C library counts them; 32 and 33 are its own.
const (
	SIGRTMIN = 34
	SIGRTMAX = 64
)

// signals are the names of 1 to 31, as amd64 and arm64 number them.
var signals = [...]string{1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL",
	10: "USR1", 11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM", 16: "STKFLT", 17: "CHLD", 18: "CONT",
	19: "STOP", 20: "TSTP", 21: "TTIN", 22: "TTOU", 23: "URG", 24: "XCPU", 25: "XFSZ", 26: "VTALRM", 27: "PROF",
	28: "WINCH", 29: "IO", 30: "PWR", 31: "SYS"}

// SignalName gives "SIGTERM", "SIGRTMIN+3", or the number where there is no name.
func SignalName(n int) string {
	switch {
	case n >= 1 && n < len(signals):
		return "SIG" + signals[n]
	case n == SIGRTMIN:
		return "SIGRTMIN"
	case n == SIGRTMAX:
		return "SIGRTMAX"
	case n > SIGRTMIN && n <= SIGRTMIN+15:
		return "SIGRTMIN+" + strconv.Itoa(n-SIGRTMIN)
	case n > SIGRTMIN && n < SIGRTMAX:
		return "SIGRTMAX-" + strconv.Itoa(SIGRTMAX-n)
	}
	return strconv.Itoa(n)
}

// SignalNumber gives the number of a name, with or without SIG, in any case; real-time signals are
// RTMIN+n and RTMAX-n.
func SignalNumber(name string) (int, bool) {
	name = strings.TrimPrefix(strings.ToUpper(name), "SIG")
	for n, s := range signals {
		if s == name && s != "" {
			return n, true
		}
	}
	switch name {
	case "CLD":
		return 17, true
	case "IOT":
		return 6, true
	case "POLL":
		return 29, true
	case "UNUSED":
		return 31, true
	}
	if rest, ok := strings.CutPrefix(name, "RTMIN"); ok {
		return realtime(SIGRTMIN, rest, '+', 1)
	}
	if rest, ok := strings.CutPrefix(name, "RTMAX"); ok {
		return realtime(SIGRTMAX, rest, '-', -1)
	}
	return 0, false
}

func realtime(base int, rest string, sign byte, direction int) (int, bool) {
	if rest == "" {
		return base, true
	}
	if len(rest) < 2 || len(rest) > 3 || rest[0] != sign || rest[1] < '0' || rest[1] > '9' {
		return 0, false
	}
	n, err := strconv.Atoi(rest[1:])
	if err != nil || n > SIGRTMAX-SIGRTMIN {
		return 0, false
	}
	return base + direction*n, true
}

// ParseSignal reads a signal as Docker takes it: a number or a name. The errors have Docker's words.
func ParseSignal(s string) (int, error) {
	if n, err := strconv.Atoi(s); err == nil {
		switch {
		case n == 0:
			return 0, fault.New(fault.Invalid, "invalid signal: %s", s)
		case n < 1 || n > SIGRTMAX:
			return 0, fault.New(fault.Invalid, "the linux daemon does not support signal %d", n)
		}
		return n, nil
	}
	if n, ok := SignalNumber(s); ok {
		return n, nil
	}
	return 0, fault.New(fault.Invalid, "invalid signal: %s", s)
}

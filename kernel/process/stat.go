package process

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Stat is what /proc/PID/stat tells of a process (proc_pid_stat(5)).
type Stat struct {
	PID        int
	Name       string // the first 15 bytes of the program's name
	State      byte   // R running, S sleeping, D waiting, T stopped, Z zombie, X dead …
	PPID       int
	Group      int
	Session    int
	Threads    int
	StartTicks uint64 // clock ticks (1/100 s) from boot to its start: with the PID it names it for good
}

// ReadStat reads the stat of a process. NotFound: there is none of that number.
func ReadStat(pid int) (Stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		if os.IsNotExist(err) || isGone(err) {
			return Stat{}, fault.Wrap(fault.NotFound, err, "process %d", pid)
		}
		return Stat{}, fault.Wrap(fault.Internal, err, "process %d", pid)
	}
	return ParseStat(b)
}

// ParseStat reads the text of /proc/PID/stat.
func ParseStat(text []byte) (Stat, error) {
	bad := fault.New(fault.Internal, "not the text of /proc/PID/stat: %q", text)
	// The name stands in parentheses and may hold anything, ") R 1 (" included: the last one ends it.
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 2 || end < open || end+2 >= len(text) || text[open-1] != ' ' || text[end+1] != ' ' {
		return Stat{}, bad
	}
	pid, err := strconv.Atoi(string(text[:open-1]))
	if err != nil {
		return Stat{}, bad
	}
	f := bytes.Fields(text[end+2:])
	if len(f) < 20 || len(f[0]) != 1 {
		return Stat{}, bad
	}
	s := Stat{PID: pid, Name: string(text[open+1 : end]), State: f[0][0]}
	for _, n := range [...]struct {
		to *int
		at int
	}{{&s.PPID, 1}, {&s.Group, 2}, {&s.Session, 3}, {&s.Threads, 17}} {
		if *n.to, err = strconv.Atoi(string(f[n.at])); err != nil {
			return Stat{}, bad
		}
	}
	if s.StartTicks, err = strconv.ParseUint(string(f[19]), 10, 64); err != nil {
		return Stat{}, bad
	}
	return s, nil
}

// Zombie reports whether the process has ended and waits to be reaped.
func (s Stat) Zombie() bool { return s.State == 'Z' || s.State == 'X' }

// StartTicks gives the start time that, with the number, names a process for good.
func StartTicks(pid int) (uint64, error) {
	s, err := ReadStat(pid)
	return s.StartTicks, err
}

// Same reports whether the process of that number is still the one that started at those ticks and has
// not ended.
func Same(pid int, startTicks uint64) bool {
	s, err := ReadStat(pid)
	return err == nil && s.StartTicks == startTicks && !s.Zombie()
}

func isGone(err error) bool {
	pe, ok := err.(*os.PathError)
	return ok && pe.Err == unix.ESRCH
}

// Package top makes process tables: rows of /proc for chosen processes in the columns of `ps -ef`, and the same rows picked out of the
// output of a real ps. It is told which processes; it knows no containers.
package top

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/base/fault"
)

// Table is a process table.
type Table struct {
	Titles []string
	Rows   [][]string
}

// Host is what Full reads.
type Host struct {
	Proc  fs.FS                // /proc
	Name  func(uid int) string // a user's name, or "" when he has none
	Now   time.Time
	Ticks int64 // clock ticks per second, 100 on every Linux that Go runs on
}

// Full lists processes as `ps -ef` does. A process that ended meanwhile is left out.
func Full(h Host, pids []int) (Table, error) {
	t := Table{Titles: []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"}}
	boot, err := bootTime(h.Proc)
	if err != nil {
		return t, err
	}
	for _, pid := range pids {
		p, ok := readProcess(h, pid)
		if !ok {
			continue
		}
		start := boot.Add(time.Duration(p.start) * time.Second / time.Duration(h.Ticks))
		cpu := time.Duration(p.cpu) * time.Second / time.Duration(h.Ticks)
		t.Rows = append(t.Rows, []string{
			userName(h, p.uid), strconv.Itoa(pid), strconv.Itoa(p.ppid), strconv.Itoa(percent(cpu, h.Now.Sub(start))),
			startText(start, h.Now), ttyName(p.tty), hms(cpu), p.command,
		})
	}
	return t, nil
}

type process struct {
	ppid, uid, tty int
	cpu, start     int64 // ticks; start since boot
	command        string
}

func readProcess(h Host, pid int) (process, bool) {
	dir := strconv.Itoa(pid)
	stat, err := fs.ReadFile(h.Proc, path.Join(dir, "stat"))
	if err != nil {
		return process{}, false
	}
	p, comm, ok := parseStat(string(stat))
	if !ok {
		return process{}, false
	}
	status, err := fs.ReadFile(h.Proc, path.Join(dir, "status"))
	if err != nil {
		return process{}, false
	}
	p.uid = effectiveUID(string(status))
	cmdline, _ := fs.ReadFile(h.Proc, path.Join(dir, "cmdline"))
	if p.command = printable(string(bytes.ReplaceAll(bytes.TrimRight(cmdline, "\x00"), []byte{0}, []byte{' '}))); p.command == "" {
		p.command = "[" + printable(comm) + "]" // a zombie, or a kernel thread
	}
	return p, true
}

// parseStat reads /proc/PID/stat, see proc_pid_stat(5). The name may hold spaces and parentheses; the last one closes it.
func parseStat(s string) (p process, comm string, ok bool) {
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open {
		return p, "", false
	}
	f := strings.Fields(s[end+1:]) // f[0] is field 3
	if len(f) < 20 {
		return p, "", false
	}
	number := func(field int) int64 { n, _ := strconv.ParseInt(f[field-3], 10, 64); return n }
	p.ppid, p.tty = int(number(4)), int(number(7))
	p.cpu, p.start = number(14)+number(15), number(22)
	return p, s[open+1 : end], true
}

func effectiveUID(status string) int {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			if f := strings.Fields(rest); len(f) > 1 {
				n, _ := strconv.Atoi(f[1])
				return n
			}
		}
	}
	return 0
}

func bootTime(proc fs.FS) (time.Time, error) {
	b, err := fs.ReadFile(proc, "stat")
	if err != nil {
		return time.Time{}, fault.Wrap(fault.Internal, err, "reading the boot time")
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return time.Unix(n, 0), fault.Wrap(fault.Internal, err, "reading the boot time")
		}
	}
	return time.Time{}, fault.New(fault.Internal, "/proc/stat names no boot time")
}

// userName as ps: the name where it fits its column, cut with a + where not, else the number.
func userName(h Host, uid int) string {
	name := h.Name(uid)
	switch {
	case name == "":
		return strconv.Itoa(uid)
	case len(name) > 8:
		return name[:7] + "+"
	}
	return name
}

func percent(cpu, lived time.Duration) int {
	if lived <= 0 {
		return 0
	}
	return min(99, int(cpu*100/lived))
}

func startText(start, now time.Time) string {
	switch {
	case now.Sub(start) < 24*time.Hour && start.YearDay() == now.YearDay():
		return start.Format("15:04")
	case start.Year() == now.Year():
		return start.Format("Jan02")
	}
	return start.Format("2006")
}

// ttyName names the usual terminals by their device number, see proc_pid_stat(5) field 7.
func ttyName(dev int) string {
	major := dev >> 8 & 0xfff
	minor := dev&0xff | dev>>12&0xfff00
	switch {
	case dev == 0:
		return "?"
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", (major-136)*256+minor)
	case major == 4 && minor < 64:
		return fmt.Sprintf("tty%d", minor)
	case major == 4:
		return fmt.Sprintf("ttyS%d", minor-64)
	}
	return fmt.Sprintf("%d,%d", major, minor)
}

func hms(d time.Duration) string {
	s := int(d / time.Second)
	if s >= 24*3600 {
		return fmt.Sprintf("%d-%02d:%02d:%02d", s/86400, s/3600%24, s/60%60, s%60)
	}
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// printable takes away what would move a terminal's cursor: command lines are the container's own words.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

var renamedPID = regexp.MustCompile(`\s+(\S*)=\s*(PID\S*)`)

// CheckArgs refuses arguments of ps that give another column the title PID, by which rows are found.
func CheckArgs(args string) error {
	for _, m := range renamedPID.FindAllStringSubmatch(" "+args, -1) {
		if m[1] != "pid" && m[1] != "-opid" {
			return fault.New(fault.Invalid, "specifying \"%s=%s\" is not allowed", m[1], m[2])
		}
	}
	return nil
}

// Pick reads ps's output and keeps the rows of pids.
func Pick(output string, pids []int) (Table, error) {
	lines := strings.Split(output, "\n")
	t := Table{Titles: strings.Fields(lines[0])}
	at := slices.Index(t.Titles, "PID")
	if at < 0 {
		return t, fault.New(fault.Invalid, "Couldn't find PID field in ps output")
	}
	shown := false // whether the last row with a pid was kept: threads of it (ps -m) follow with "-"
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		if len(f) <= at {
			continue
		}
		if f[at] != "-" {
			pid, err := strconv.Atoi(f[at])
			if err != nil {
				return t, fault.New(fault.Internal, "Unexpected pid '%s': %s", f[at], err)
			}
			shown = slices.Contains(pids, pid)
		}
		if !shown {
			continue
		}
		if n := len(t.Titles); len(f) > n { // the last column may hold spaces
			f = append(f[:n-1:n-1], strings.Join(f[n-1:], " "))
		}
		t.Rows = append(t.Rows, f)
	}
	return t, nil
}

package oci

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"berth/base/fault"
)

// ps shows a container's processes: their numbers as JSON, or the lines of the host's ps that are
// about them.
func (t *tool) ps(f *flagSet) (int, error) {
	c, err := t.load(f.arg(0))
	if err != nil {
		return 1, err
	}
	format := f.text("format")
	if format != "table" && format != "json" {
		return 1, fault.New(fault.Invalid, "invalid format option")
	}
	cg, err := c.mustCgroup("list the processes of")
	if err != nil {
		return 1, err
	}
	pids, err := cg.Procs()
	if err != nil {
		return 1, err
	}
	if format == "json" {
		_, err = fmt.Fprintln(t.out, pidList(pids))
		return 0, err
	}
	args := f.args[1:]
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	output, err := exec.Command("ps", args...).CombinedOutput()
	if err != nil {
		return 1, fmt.Errorf("%w: %s", err, output)
	}
	lines, err := processLines(string(output), pids)
	if err != nil {
		return 1, err
	}
	_, err = fmt.Fprint(t.out, lines)
	return 0, err
}

func pidList(pids []int) string {
	if len(pids) == 0 {
		return "null" // runc prints Go's nil slice
	}
	b := []byte{'['}
	for i, pid := range pids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(pid), 10)
	}
	return string(append(b, ']'))
}

// processLines picks from ps's output the title and the lines about the given processes.
func processLines(output string, pids []int) (string, error) {
	title, rest, _ := strings.Cut(output, "\n")
	column := slices.Index(strings.Fields(title), "PID")
	if column < 0 {
		return "", fault.New(fault.Invalid, "couldn't find PID field in ps output")
	}
	out := title + "\n"
	for line := range strings.SplitSeq(rest, "\n") {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil {
			return "", fault.Wrap(fault.Internal, err, "unable to parse pid")
		}
		if slices.Contains(pids, pid) {
			out += line + "\n"
		}
	}
	return out, nil
}

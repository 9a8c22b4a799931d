package main

import (
	"fmt"
	"io"

	"berth/kernel/cgroup"
	"berth/kernel/probe"
)

// systemCheck is `berthd system check`, which `berth system check` runs: what this machine has and lacks for containers, without any
// engine. It gives the exit code: 1 when no engine can run here.
func systemCheck(w io.Writer) int {
	facts := probe.Host()
	fmt.Fprintf(w, "Linux %s\n", probe.Release())
	code := 0
	if err := facts.CheckFloor(); err != nil {
		fmt.Fprintf(w, "NOT ENOUGH: %v\n", err)
		code = 1
	}
	if layout, err := cgroup.Detect(); err != nil {
		fmt.Fprintf(w, "NO CGROUPS: %v\n", err)
		code = 1
	} else {
		fmt.Fprintf(w, "cgroup %v\n", layout.Mode)
	}
	fmt.Fprintln(w)
	if err := facts.WriteTable(w); err != nil {
		fmt.Fprintf(w, "%v\n", err)
		return 1
	}
	return code
}

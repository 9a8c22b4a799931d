package main

import (
	"context"
	"fmt"
	"io"

	"berth/kernel/cgroup"
	"berth/kernel/probe"
	"berth/runtime/rootless"
)

// systemCheck is `berthd system check`, which `berth system check` runs: what this machine has and lacks for containers, without any
// engine, and for an ordinary user what his engine would have and what differs in it. It gives the exit code: 1 when no engine can run here.
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
	if rootless.Wanted() {
		can, err := rootless.WriteNeeds(w, rootless.Needs(context.Background()))
		if err != nil || !can {
			code = 1
		}
		fmt.Fprintln(w)
		if err := rootless.WriteDifferences(w); err != nil {
			return 1
		}
		fmt.Fprintln(w)
	}
	if err := facts.WriteTable(w); err != nil {
		fmt.Fprintf(w, "%v\n", err)
		return 1
	}
	return code
}

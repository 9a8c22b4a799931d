package probe

import (
	"io"
	"strings"
	"text/tabwriter"

	"berth/base/fault"
)

// CheckFloor refuses kernels that cannot run containers at all: older than Linux 5.10, or without one of
// the calls that have no fallback. The error names the version and what is missing.
func (f Features) CheckFloor() error {
	v := KernelVersion()
	if f.a != nil && f.a.fixed {
		v = floor
	}
	var missing []string
	for _, x := range [...]Facility{Clone3, PidfdOpen, MountFD, CloseRange} {
		if r := f.Why(x); r != "" {
			missing = append(missing, x.String()+" ("+r+")")
		}
	}
	lacks := strings.Join(missing, ", ")
	switch {
	case v.Less(floor) && lacks == "":
		return fault.New(fault.NotImplemented, "this is Linux %s; Berth needs Linux %s or newer", v, floor)
	case v.Less(floor):
		return fault.New(fault.NotImplemented, "this is Linux %s; Berth needs Linux %s or newer; missing here: %s", v, floor, lacks)
	case lacks != "":
		return fault.New(fault.NotImplemented, "this kernel (Linux %s) lacks what Berth cannot do without: %s", v, lacks)
	}
	return nil
}

// WriteTable prints every facility with its answer and its use, as `berth info --kernel` shows it. It
// asks the kernel for all of them.
func (f Features) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(cells ...string) { io.WriteString(t, strings.Join(cells, "\t")+"\n") }
	line("FACILITY", "SINCE", "HERE", "USED FOR; WITHOUT IT")
	for x := range facilityCount {
		since, here := "-", "yes"
		if s := x.Since(); s != (Version{}) {
			since = s.String()
		}
		if r := f.Why(x); r != "" {
			here = "no: " + r
		}
		line(x.String(), since, here, table[x].use)
	}
	return t.Flush()
}

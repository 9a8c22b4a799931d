package oci

import (
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/runtime/oci/config"
)

var updateFlags = [...]flagDef{
	{name: "resources", short: "r", usage: `file with the resources as in config.json, or "-" for standard input; no other flag counts then`},
	{name: "blkio-weight", kind: intFlag, usage: "weight of block I/O, 10 to 1000"},
	{name: "cpu-period", usage: "length of a CPU period in microseconds; 0 is the system's default"},
	{name: "cpu-quota", usage: "CPU time in a period, in microseconds"},
	{name: "cpu-burst", usage: "CPU time that may be saved up for bursts, in microseconds"},
	{name: "cpu-share", usage: "CPU shares against other containers"},
	{name: "cpu-rt-period", usage: "length of a realtime period in microseconds"},
	{name: "cpu-rt-runtime", usage: "realtime CPU time in a period, in microseconds"},
	{name: "cpuset-cpus", usage: "CPUs to use"},
	{name: "cpuset-mems", usage: "memory nodes to use"},
	{name: "kernel-memory", hidden: true, usage: "ignored"},
	{name: "kernel-memory-tcp", hidden: true, usage: "ignored"},
	{name: "memory", usage: "memory limit in bytes, with k, m, g if you like; -1 for none"},
	{name: "cpu-idle", usage: "1 to run only when nobody else wants to (SCHED_IDLE), 0 for normal"},
	{name: "memory-reservation", usage: "memory kept back from reclaim, in bytes"},
	{name: "memory-swap", usage: "memory and swap together, in bytes; -1 for no limit on swap"},
	{name: "pids-limit", kind: intFlag, usage: "number of processes; -1 for no limit"},
	{name: "l3-cache-schema", hidden: true, usage: "refused: this runtime does not manage Intel RDT"},
	{name: "mem-bw-schema", hidden: true, usage: "refused: this runtime does not manage Intel RDT"},
}

// update changes a container's limits.
func (t *tool) update(f *flagSet) (int, error) {
	c, err := t.loadLocked(f.arg(0))
	if err != nil {
		return 1, err
	}
	if c.status() == stopped {
		return 1, errNotRunning
	}
	r, err := t.newLimits(f)
	if err != nil {
		return 1, err
	}
	if c.rec.Scope != "" {
		return 0, c.updateScope(r)
	}
	cg, err := c.mustCgroup("update")
	if err != nil {
		return 1, err
	}
	return 0, cg.Update(r)
}

// newLimits gives the limits to change: those of a file, or of flags. What is absent stays as it is.
func (t *tool) newLimits(f *flagSet) (*specs.LinuxResources, error) {
	for _, name := range [...]string{"l3-cache-schema", "mem-bw-schema"} {
		if f.text(name) != "" {
			return nil, fault.New(fault.NotImplemented, "--%s: this runtime does not manage Intel RDT", name)
		}
	}
	r, err := readLimits(f)
	if err != nil {
		return nil, err
	}
	if m := r.Memory; m != nil {
		//lint:ignore SA1019 deprecated; said so to the user
		if m.Kernel != nil || m.KernelTCP != nil {
			t.log.Warn("Kernel memory settings are ignored and will be removed")
			//lint:ignore SA1019 as above
			m.Kernel, m.KernelTCP = nil, nil
		}
		if m.Limit != nil && *m.Limit == -1 && m.Swap == nil {
			all := int64(-1) // a limit on swap alone would be left over
			m.Swap = &all
		}
	}
	somePids(r)
	r.Devices = nil // as in runc, an update does not touch devices
	return r, nil
}

// somePids makes a limit of no process at all a limit of one, which comes to the same: systemd knows no other.
// (In the specification 0 has been a limit since 1.3, as in runc since 1.4.)
func somePids(r *specs.LinuxResources) {
	if r != nil && r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit == 0 {
		one := int64(1)
		r.Pids = &specs.LinuxPids{Limit: &one}
	}
}

func readLimits(f *flagSet) (*specs.LinuxResources, error) {
	switch path := f.text("resources"); path {
	case "":
		return flagLimits(f)
	case "-":
		text, err := io.ReadAll(os.Stdin)
		if err != nil {
			return nil, err
		}
		r, err := config.ParseResources(text)
		return r, fault.Wrap(fault.Invalid, err, "resources from standard input")
	default:
		text, err := readFile(path)
		if err != nil {
			return nil, err
		}
		r, err := config.ParseResources(text)
		return r, fault.Wrap(fault.Invalid, err, "%s", path)
	}
}

// flagLimits reads the limits that flags name.
func flagLimits(f *flagSet) (*specs.LinuxResources, error) {
	var cpu specs.LinuxCPU
	var mem specs.LinuxMemory
	r := &specs.LinuxResources{}
	cpu.Cpus, cpu.Mems = f.text("cpuset-cpus"), f.text("cpuset-mems")
	var err error
	number := func(name string, low int64) *int64 {
		text := f.text(name)
		if text == "" || err != nil {
			return nil
		}
		n, e := strconv.ParseInt(text, 10, 64)
		if e == nil && n < low {
			e = strconv.ErrRange
		}
		if e != nil {
			err = fault.Wrap(fault.Invalid, e, "invalid value for %s", name)
			return nil
		}
		return &n
	}
	positive := func(name string) *uint64 {
		n := number(name, 0)
		if n == nil {
			return nil
		}
		u := uint64(*n)
		return &u
	}
	size := func(name string) *int64 {
		text := f.text(name)
		if text == "" || err != nil {
			return nil
		}
		n, e := parseSize(text)
		if e != nil {
			err = fault.Wrap(fault.Invalid, e, "invalid value for %s", name)
			return nil
		}
		return &n
	}
	cpu.Burst, cpu.Period, cpu.RealtimePeriod, cpu.Shares = positive("cpu-burst"), positive("cpu-period"), positive("cpu-rt-period"), positive("cpu-share")
	cpu.Quota, cpu.RealtimeRuntime, cpu.Idle = number("cpu-quota", math.MinInt64), number("cpu-rt-runtime", math.MinInt64), number("cpu-idle", 0)
	mem.Limit, mem.Swap, mem.Reservation = size("memory"), size("memory-swap"), size("memory-reservation")
	//lint:ignore SA1019 deprecated; said so to the user
	mem.Kernel, mem.KernelTCP = size("kernel-memory"), size("kernel-memory-tcp")
	if err != nil {
		return nil, err
	}
	if cpu != (specs.LinuxCPU{}) {
		r.CPU = &cpu
	}
	if mem != (specs.LinuxMemory{}) {
		r.Memory = &mem
	}
	if w := f.int("blkio-weight"); w != 0 {
		if w < 0 || w > math.MaxUint16 {
			return nil, fault.New(fault.Invalid, "invalid value for blkio-weight: %d", w)
		}
		weight := uint16(w)
		r.BlockIO = &specs.LinuxBlockIO{Weight: &weight}
	}
	if n := f.int("pids-limit"); f.given("pids-limit") {
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
	return r, nil
}

// parseSize reads a number of bytes: digits, perhaps with a fraction, and perhaps a unit, which is
// binary whether or not it says so (k, kb, KiB, m, …). -1 means no limit.
func parseSize(text string) (int64, error) {
	if text == "-1" {
		return -1, nil
	}
	digits := strings.TrimRight(text, "bBiIkKmMgGtTpP ")
	unit := strings.ToLower(strings.TrimSpace(text[len(digits):]))
	unit = strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i")
	shift := 0
	if unit != "" {
		shift = 10 * (1 + strings.Index("kmgtp", unit))
		if len(unit) != 1 || shift == 0 {
			return 0, fault.New(fault.Invalid, "%q is not a size", text)
		}
	}
	if n, err := strconv.ParseInt(digits, 10, 64); err == nil && n >= 0 && n <= math.MaxInt64>>shift {
		return n << shift, nil
	}
	x, err := strconv.ParseFloat(digits, 64)
	if x *= float64(uint64(1) << shift); err != nil || !(x >= 0 && x < math.MaxInt64) {
		return 0, fault.New(fault.Invalid, "%q is not a size", text)
	}
	return int64(x), nil
}

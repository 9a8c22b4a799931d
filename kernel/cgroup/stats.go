package cgroup

import (
	"strings"
	"time"

	"berth/base/fault"
)

// Stats is what a cgroup has used, in one shape for v1 and v2. Counters grow from the cgroup's making.
// What the kernel or the version of cgroups does not tell is zero (or nil); a limit that is not set is
// Unlimited.
type Stats struct {
	CPU     CPUStats
	Memory  MemoryStats
	Pids    PidsStats
	IO      IOStats
	Hugetlb map[string]HugetlbStats // by page size: "2MB"
	Rdma    map[string]RdmaStats    // by device
}

// Unlimited stands for "no limit" in Stats.
const Unlimited = ^uint64(0)

// CPUStats counts processor time, in nanoseconds.
type CPUStats struct {
	Usage, User, System uint64
	PerCPU              []uint64 // v1 only
	Periods             uint64   // elapsed enforcement periods of the quota
	ThrottledPeriods    uint64
	Throttled           uint64 // nanoseconds
	Bursts              uint64 // periods in which a burst was used
	BurstTime           uint64 // nanoseconds
	Pressure            *Pressure
}

// MemoryStats counts memory, in bytes.
type MemoryStats struct {
	Usage, Limit uint64
	Max          uint64 // highest use so far; v2 since Linux 5.19
	Failures     uint64 // how often the limit was hit
	Cache        uint64 // page cache, within Usage
	Inactive     uint64 // inactive page cache: Usage less this is the working set
	Swap         uint64 // swap alone
	SwapLimit    uint64 // swap alone on v2, memory plus swap on v1: see SwapCombined
	SwapMax      uint64
	SwapFailures uint64
	SwapCombined bool // v1: SwapUsage and SwapLimit count memory and swap together
	SwapUsage    uint64
	Kernel       uint64
	KernelTCP    uint64
	OOMKills     uint64
	Stat         map[string]uint64 // memory.stat as the kernel gives it
	Pressure     *Pressure
}

// PidsStats counts tasks.
type PidsStats struct {
	Current, Limit uint64
	Failures       uint64 // forks that the limit refused
}

// IOStats lists block I/O by device and direction, as the controllers count it.
type IOStats struct {
	Bytes    []IOEntry // Op: Read, Write; v1 also Sync, Async, Discard, Total
	Ops      []IOEntry
	Queued   []IOEntry // v1 with a proportional scheduler: requests waiting
	Merged   []IOEntry
	WaitTime []IOEntry // nanoseconds
	Service  []IOEntry // nanoseconds
	Time     []IOEntry
	Sectors  []IOEntry
	Pressure *Pressure
}

// IOEntry is one counter of one device.
type IOEntry struct {
	Major, Minor uint64
	Op           string
	Value        uint64
}

// HugetlbStats counts huge pages of one size, in bytes.
type HugetlbStats struct {
	Usage, Max, Failures uint64
}

// RdmaStats counts handles and objects of one RDMA device.
type RdmaStats struct {
	Handles, Objects           uint64
	HandlesLimit, ObjectsLimit uint64
}

// Pressure is how long tasks waited for a resource (pressure stall information, Linux 4.20, v2 only):
// some of them, or all at once.
type Pressure struct{ Some, Full PressureLine }

// PressureLine holds the share of time in percent over 10 s, 60 s and 300 s, and the total in microseconds.
type PressureLine struct {
	Avg10, Avg60, Avg300 float64
	Total                uint64
}

// Stats reads all figures. A cgroup that is gone is NotFound; a controller that is not there is skipped.
func (c *Cgroup) Stats() (Stats, error) {
	var s Stats
	found := false
	for i := range c.layout.Hierarchies {
		dir := c.dirs[i]
		if dir == "" || !exists(dir) {
			continue
		}
		found = true
		h := &c.layout.Hierarchies[i]
		if h.V2 {
			c.statsV2(&s, dir)
			continue
		}
		for _, controller := range h.Controllers {
			statsV1(&s, controller, dir)
		}
	}
	if !found {
		return s, fault.New(fault.NotFound, "cgroup %s does not exist", c.path)
	}
	return s, nil
}

// each calls f with the words of each line of the file.
func each(file string, f func(line string)) {
	b, err := readFile(file)
	if err != nil {
		return
	}
	for rest := string(b); rest != ""; {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		if line != "" {
			f(line)
		}
	}
}

// eachPair calls f with the key and number of each "key number" line.
func eachPair(file string, f func(key string, n uint64)) {
	each(file, func(line string) {
		key, value, _ := strings.Cut(line, " ")
		if n, ok := atou(value); ok {
			f(key, n)
		}
	})
}

// figure reads a file that holds one number.
func figure(file string) uint64 {
	n, _ := atou(trimmed(file))
	return n
}

// limit reads a file that holds a limit; v1's huge numbers and v2's "max" are Unlimited.
func limit(file string) uint64 {
	n, ok := atou(trimmed(file))
	if !ok {
		return 0
	}
	if n >= unlimitedV1 {
		return Unlimited
	}
	return n
}

// pressure reads a PSI file; nil where it is missing or switched off.
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=0
//	full avg10=0.00 …
func pressure(file string) *Pressure {
	b, err := readFile(file)
	if err != nil {
		return nil
	}
	return parsePressure(string(b))
}

func parsePressure(text string) *Pressure {
	var p Pressure
	found := false
	for line := range strings.SplitSeq(text, "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		var to *PressureLine
		switch kind {
		case "some":
			to = &p.Some
		case "full":
			to = &p.Full
		default:
			continue
		}
		found = true
		for word := range strings.FieldsSeq(rest) {
			key, value, _ := strings.Cut(word, "=")
			switch key {
			case "avg10":
				to.Avg10 = percent(value)
			case "avg60":
				to.Avg60 = percent(value)
			case "avg300":
				to.Avg300 = percent(value)
			case "total":
				to.Total, _ = atou(value)
			}
		}
	}
	if !found {
		return nil
	}
	return &p
}

// percent reads the kernel's "12.34".
func percent(s string) float64 {
	whole, part, _ := strings.Cut(s, ".")
	n, ok := atou(whole)
	if !ok {
		return 0
	}
	v := float64(n)
	if len(part) == 2 {
		if cents, ok := atou(part); ok {
			v += float64(cents) / 100
		}
	}
	return v
}

// device reads "8:0".
func device(s string) (major, minor uint64, ok bool) {
	a, b, ok := strings.Cut(s, ":")
	if !ok {
		return 0, 0, false
	}
	major, ok1 := atou(a)
	minor, ok2 := atou(b)
	return major, minor, ok1 && ok2
}

// ticks converts USER_HZ ticks (100 a second on all of Linux) to nanoseconds.
func ticks(n uint64) uint64 { return n * uint64(time.Second/100) }

func micros(n uint64) uint64 { return n * 1000 }

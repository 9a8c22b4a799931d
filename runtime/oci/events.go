package oci

import (
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/cgroup"
)

// events prints a container's statistics now and then, and a line when memory ran out in it, until it
// ends.
func (t *tool) events(f *flagSet) (int, error) {
	interval, err := time.ParseDuration(f.text("interval"))
	if err != nil {
		return 1, fault.Wrap(fault.Invalid, err, "interval")
	}
	if interval <= 0 {
		return 1, fault.New(fault.Invalid, "duration interval must be greater than 0")
	}
	c, err := t.load(f.arg(0))
	if err != nil {
		return 1, err
	}
	if c.status() == stopped {
		return 1, fault.New(fault.Conflict, "container with id %s is not running", c.id)
	}
	cg, err := c.mustCgroup("watch")
	if err != nil {
		return 1, err
	}
	if f.bool("stats") {
		return 0, t.printStats(c.id, cg)
	}
	return 0, t.watch(c, cg, interval)
}

// watch prints until the container ends.
func (t *tool) watch(c *container, cg *cgroup.Cgroup, interval time.Duration) error {
	pidfd, err := c.openPIDFD()
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	oom, err := cg.WatchOOM()
	if err != nil {
		return err
	}
	defer oom.Close()
	for next := time.Now().Add(interval); ; {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: int32(oom.FD()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(max(0, time.Until(next)).Milliseconds())+1); err != nil && err != unix.EINTR {
			return fmt.Errorf("poll: %w", err)
		}
		if fds[1].Revents != 0 && oom.Drain() {
			if err := t.printEvent(event{Type: "oom", ID: c.id}); err != nil {
				return err
			}
		}
		if fds[0].Revents != 0 {
			return nil
		}
		if time.Now().Before(next) {
			continue
		}
		next = time.Now().Add(interval)
		if err := t.printStats(c.id, cg); err != nil && !fault.Is(err, fault.NotFound) {
			t.log.Error(err.Error())
		}
	}
}

func (t *tool) printStats(id string, cg *cgroup.Cgroup) error {
	s, err := cg.Stats()
	if err != nil {
		return err
	}
	return t.printEvent(event{Type: "stats", ID: id, Data: runcStats(&s)})
}

func (t *tool) printEvent(e event) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = t.out.Write(append(b, '\n'))
	return err
}

// What follows has runc's shape: containerd's and cAdvisor's parsers know it.

type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data *stats `json:"data,omitempty"`
}

type stats struct {
	CPU struct {
		Usage struct {
			Total  uint64   `json:"total,omitempty"`
			PerCPU []uint64 `json:"percpu,omitempty"`
			Kernel uint64   `json:"kernel"`
			User   uint64   `json:"user"`
		} `json:"usage,omitempty"`
		Throttling struct {
			Periods          uint64 `json:"periods,omitempty"`
			ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
			ThrottledTime    uint64 `json:"throttledTime,omitempty"`
		} `json:"throttling,omitempty"`
		PSI *pressure `json:"psi,omitempty"`
	} `json:"cpu"`
	CPUSet struct{} `json:"cpuset"`
	Memory struct {
		Cache     uint64            `json:"cache,omitempty"`
		Usage     memoryEntry       `json:"usage,omitempty"`
		Swap      memoryEntry       `json:"swap,omitempty"`
		Kernel    memoryEntry       `json:"kernel,omitempty"`
		KernelTCP memoryEntry       `json:"kernelTCP,omitempty"`
		Raw       map[string]uint64 `json:"raw,omitempty"`
		PSI       *pressure         `json:"psi,omitempty"`
	} `json:"memory"`
	Pids struct {
		Current uint64 `json:"current,omitempty"`
		Limit   uint64 `json:"limit,omitempty"`
	} `json:"pids"`
	Blkio struct {
		Bytes   []blkioEntry `json:"ioServiceBytesRecursive,omitempty"`
		Ops     []blkioEntry `json:"ioServicedRecursive,omitempty"`
		Queued  []blkioEntry `json:"ioQueueRecursive,omitempty"`
		Service []blkioEntry `json:"ioServiceTimeRecursive,omitempty"`
		Wait    []blkioEntry `json:"ioWaitTimeRecursive,omitempty"`
		Merged  []blkioEntry `json:"ioMergedRecursive,omitempty"`
		Time    []blkioEntry `json:"ioTimeRecursive,omitempty"`
		Sectors []blkioEntry `json:"sectorsRecursive,omitempty"`
		PSI     *pressure    `json:"psi,omitempty"`
	} `json:"blkio"`
	Hugetlb           map[string]hugetlb `json:"hugetlb"`
	IntelRdt          struct{}           `json:"intel_rdt"`
	NetworkInterfaces []struct{}         `json:"network_interfaces"`
}

type memoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type blkioEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

type hugetlb struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type pressure struct {
	Some pressureLine `json:"some,omitempty"`
	Full pressureLine `json:"full,omitempty"`
}

type pressureLine struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

// runcStats translates a cgroup's figures.
func runcStats(s *cgroup.Stats) *stats {
	d := &stats{Hugetlb: map[string]hugetlb{}}
	d.CPU.Usage.Total, d.CPU.Usage.PerCPU = s.CPU.Usage, s.CPU.PerCPU
	d.CPU.Usage.Kernel, d.CPU.Usage.User = s.CPU.System, s.CPU.User
	d.CPU.Throttling.Periods, d.CPU.Throttling.ThrottledPeriods, d.CPU.Throttling.ThrottledTime = s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.Throttled
	d.CPU.PSI = runcPressure(s.CPU.Pressure)
	m := &s.Memory
	d.Memory.Cache, d.Memory.Raw, d.Memory.PSI = m.Cache, m.Stat, runcPressure(m.Pressure)
	d.Memory.Usage = memoryEntry{Limit: m.Limit, Usage: m.Usage, Max: m.Max, Failcnt: m.Failures}
	d.Memory.Swap = memoryEntry{Limit: m.SwapLimit, Usage: m.Swap, Max: m.SwapMax, Failcnt: m.SwapFailures}
	if m.SwapCombined {
		d.Memory.Swap.Usage = m.SwapUsage
	}
	d.Memory.Kernel.Usage, d.Memory.KernelTCP.Usage = m.Kernel, m.KernelTCP
	d.Pids.Current = s.Pids.Current
	if s.Pids.Limit != cgroup.Unlimited {
		d.Pids.Limit = s.Pids.Limit // runc gives 0 for no limit
	}
	b := &d.Blkio
	b.Bytes, b.Ops, b.Queued, b.Service = runcIO(s.IO.Bytes), runcIO(s.IO.Ops), runcIO(s.IO.Queued), runcIO(s.IO.Service)
	b.Wait, b.Merged, b.Time, b.Sectors = runcIO(s.IO.WaitTime), runcIO(s.IO.Merged), runcIO(s.IO.Time), runcIO(s.IO.Sectors)
	b.PSI = runcPressure(s.IO.Pressure)
	for size, h := range s.Hugetlb {
		d.Hugetlb[size] = hugetlb{Usage: h.Usage, Max: h.Max, Failcnt: h.Failures}
	}
	return d
}

func runcIO(all []cgroup.IOEntry) []blkioEntry {
	var out []blkioEntry
	for _, e := range all {
		out = append(out, blkioEntry(e))
	}
	return out
}

func runcPressure(p *cgroup.Pressure) *pressure {
	if p == nil {
		return nil
	}
	return &pressure{Some: pressureLine(p.Some), Full: pressureLine(p.Full)}
}

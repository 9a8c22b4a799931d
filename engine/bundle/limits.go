package bundle

import (
	"regexp"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/engine/container"
	"berth/runtime/spec"
)

// nanoPeriod is the period, in µs, over which a number of CPUs is measured out.
const nanoPeriod = 100000

// Limits gives the part of the resources that goes to the cgroup, devices left out: they never change.
func Limits(r *container.Resources) (*specs.LinuxResources, error) {
	l := &specs.LinuxResources{Memory: memory(r), CPU: cpu(r)}
	if r.PidsLimit != nil {
		l.Pids = &specs.LinuxPids{Limit: r.PidsLimit}
		if *r.PidsLimit <= 0 { // as an update leaves it that lifted the limit
			none := int64(-1)
			l.Pids.Limit = &none
		}
	}
	io, err := blockIO(r)
	l.BlockIO = io
	return l, err
}

func memory(r *container.Resources) *specs.LinuxMemory {
	var m specs.LinuxMemory
	set := func(to **int64, v int64) {
		if v != 0 {
			*to = &v
		}
	}
	set(&m.Limit, r.Memory)
	set(&m.Reservation, r.MemoryReservation)
	set(&m.KernelTCP, r.KernelMemoryTCP)
	set(&m.Swap, r.MemorySwap)
	if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 {
		v := uint64(*r.MemorySwappiness)
		m.Swappiness = &v
	}
	m.DisableOOMKiller = r.OOMKillDisable
	if m == (specs.LinuxMemory{}) {
		return nil
	}
	return &m
}

func cpu(r *container.Resources) *specs.LinuxCPU {
	c := specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	unsigned := func(to **uint64, v int64) {
		if v != 0 {
			u := uint64(v)
			*to = &u
		}
	}
	signed := func(to **int64, v int64) {
		if v != 0 {
			*to = &v
		}
	}
	unsigned(&c.Shares, r.CPUShares)
	unsigned(&c.Period, r.CPUPeriod)
	signed(&c.Quota, r.CPUQuota)
	if r.NanoCPUs > 0 {
		unsigned(&c.Period, nanoPeriod)
		signed(&c.Quota, r.NanoCPUs*nanoPeriod/1e9)
	}
	unsigned(&c.RealtimePeriod, r.CPURealtimePeriod)
	signed(&c.RealtimeRuntime, r.CPURealtimeRuntime)
	if c == (specs.LinuxCPU{}) {
		return nil
	}
	return &c
}

func blockIO(r *container.Resources) (*specs.LinuxBlockIO, error) {
	b := &specs.LinuxBlockIO{}
	used := false
	if r.BlkioWeight > 0 {
		b.Weight, used = &r.BlkioWeight, true
	}
	for _, w := range r.BlkioWeightDevice {
		major, minor, err := blockNumbers(w.Path)
		if err != nil {
			return nil, err
		}
		d := specs.LinuxWeightDevice{Weight: &w.Weight}
		d.Major, d.Minor = major, minor
		b.WeightDevice, used = append(b.WeightDevice, d), true
	}
	for _, t := range []struct {
		from []container.ThrottleDevice
		to   *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioDeviceReadBps, &b.ThrottleReadBpsDevice}, {r.BlkioDeviceWriteBps, &b.ThrottleWriteBpsDevice},
		{r.BlkioDeviceReadIOps, &b.ThrottleReadIOPSDevice}, {r.BlkioDeviceWriteIOps, &b.ThrottleWriteIOPSDevice},
	} {
		for _, dev := range t.from {
			major, minor, err := blockNumbers(dev.Path)
			if err != nil {
				return nil, err
			}
			d := specs.LinuxThrottleDevice{Rate: dev.Rate}
			d.Major, d.Minor = major, minor
			*t.to, used = append(*t.to, d), true
		}
	}
	if !used {
		return nil, nil
	}
	return b, nil
}

func blockNumbers(path string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, fault.Wrap(fault.Invalid, err, "block device %s", path)
	}
	return int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev))), nil
}

func (r *Rules) resources(out *specs.Spec, in Input, _ options) error {
	l, err := Limits(&in.Record.Spec.Resources)
	if err != nil {
		return err
	}
	if in.Record.Spec.Security.Privileged {
		l.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	} else {
		l.Devices = spec.DeviceRules()
	}
	out.Linux.Resources = l
	return nil
}

var deviceRule = regexp.MustCompile(`^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$`)

// parseDeviceRule reads "c 13:* rwm".
func parseDeviceRule(s string) (specs.LinuxDeviceCgroup, error) {
	m := deviceRule.FindStringSubmatch(s)
	if m == nil {
		return specs.LinuxDeviceCgroup{}, fault.New(fault.Invalid, "invalid device cgroup rule format: '%s'", s)
	}
	number := func(s string) *int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			n = -1 // "*"
		}
		return &n
	}
	return specs.LinuxDeviceCgroup{Allow: true, Type: m[1], Major: number(m[2]), Minor: number(m[3]), Access: m[4]}, nil
}

// devices adds what was asked for by --device and --device-cgroup-rule, or everything for a privileged container.
func (r *Rules) devices(out *specs.Spec, in Input, _ options) error {
	s := in.Record.Spec
	rules := &out.Linux.Resources.Devices
	if s.Security.Privileged {
		all, err := in.Devices.All()
		out.Linux.Devices = all
		return err
	}
	for _, d := range s.Resources.Devices {
		found, err := in.Devices.Expand(d.Source, d.Target)
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "error gathering device information while adding custom device %q", d.Source)
		}
		for _, f := range found {
			out.Linux.Devices = append(out.Linux.Devices, f)
			access := d.Permissions
			if access == "" {
				access = "rwm"
			}
			*rules = append(*rules, specs.LinuxDeviceCgroup{Allow: true, Type: f.Type, Major: &f.Major, Minor: &f.Minor, Access: access})
		}
	}
	for _, text := range s.Resources.DeviceCgroupRules {
		rule, err := parseDeviceRule(text)
		if err != nil {
			return err
		}
		*rules = append(*rules, rule)
	}
	*rules = append(*rules, blockVolumes(in)...)
	return nil
}

// blockVolumes allows the container the volumes that are a block device rather than a file system. Who may make a volume decides which
// device that is; what a bind mount shows stays denied without --device, as in Docker.
func blockVolumes(in Input) (rules []specs.LinuxDeviceCgroup) {
	for _, m := range in.Record.AllMounts() {
		if m.Type != "volume" {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(in.Sources[m.Target], &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
			continue // a missing source is refused by the mount itself
		}
		major, minor, access := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), "rw"
		if m.ReadOnly {
			access = "r"
		}
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: &major, Minor: &minor, Access: access})
	}
	return rules
}

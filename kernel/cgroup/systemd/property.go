package systemd

import (
	"math"
	"math/big"
	"sort"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/kernel/cgroup"
)

// Property is one setting of a unit, as D-Bus takes it: struct (name, variant).
type Property struct {
	Name  string
	Value dbus.Variant
}

// String gives "CPUWeight=100".
func (p Property) String() string {
	list, ok := p.Value.Value().([]device)
	if !ok {
		return p.Name + "=" + p.Value.String()
	}
	words := make([]string, len(list))
	for i, d := range list {
		words[i] = d.Path + " " + d.Access
	}
	return p.Name + "=[" + strings.Join(words, ", ") + "]"
}

func property(name string, value any) Property { return Property{name, dbus.MakeVariant(value)} }

// device is an entry of DeviceAllow, a(ss).
type device struct{ Path, Access string }

const unlimited = math.MaxUint64

// unitProperties are those that every container's unit has at its start.
func unitProperties(u Unit, description string, pid int) []Property {
	list := []Property{
		property("Description", description),
		property("Delegate", true),
		property("MemoryAccounting", true),
		property("CPUAccounting", true),
		property("IOAccounting", true),
		property("TasksAccounting", true),
		property("DefaultDependencies", false),
	}
	if u.IsSlice() {
		// A slice is in the slice that its name says, and wants it to be there.
		return append(list, property("Wants", []string{u.Slice}))
	}
	list = append(list, property("Slice", u.Slice))
	if pid > 0 {
		list = append(list, property("PIDs", []uint32{uint32(pid)}))
	}
	return list
}

// Properties translates limits to a unit's properties. version is systemd's: what it is too old for is left
// out, and so is what systemd has no word for; the cgroup's files get those directly. The order is fixed.
func Properties(mode cgroup.Mode, version int, r *specs.LinuxResources) ([]Property, error) {
	if r == nil {
		return nil, nil
	}
	t := translator{v2: mode == cgroup.V2, version: version}
	if len(r.Devices) > 0 {
		t.devices(r.Devices)
	}
	if r.Memory != nil {
		t.memory(r.Memory)
	}
	if r.CPU != nil {
		t.cpu(r.CPU)
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		t.pids(*r.Pids.Limit)
	}
	if r.BlockIO != nil {
		t.io(r.BlockIO)
	}
	if t.v2 {
		t.unified(r.Unified)
	}
	return t.list, t.err
}

type translator struct {
	v2      bool
	version int
	list    []Property
	err     error
}

func (t *translator) add(name string, value any) { t.list = append(t.list, property(name, value)) }

func (t *translator) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

func (t *translator) memory(m *specs.LinuxMemory) {
	bytes := func(n int64) uint64 {
		if n < 0 {
			return unlimited
		}
		return uint64(n)
	}
	limit, swap := value(m.Limit), value(m.Swap)
	if !t.v2 {
		if limit != 0 {
			t.add("MemoryLimit", bytes(limit))
		}
		return // memsw and reservation have no property on v1
	}
	if limit != 0 {
		t.add("MemoryMax", bytes(limit))
	}
	if n := value(m.Reservation); n != 0 {
		t.add("MemoryLow", bytes(n))
	}
	if swap == 0 && limit != -1 {
		return
	}
	n, set, err := cgroup.SwapMax(limit, swap)
	if err != nil {
		// With the limit unset only the files, which are written after systemd, know what holds.
		return
	}
	if set {
		t.add("MemorySwapMax", bytes(n))
	}
}

func (t *translator) cpu(c *specs.LinuxCPU) {
	if n := value(c.Shares); n != 0 {
		if t.v2 {
			t.add("CPUWeight", cgroup.WeightFromShares(n))
		} else {
			t.add("CPUShares", n)
		}
	}
	if c.Idle != nil && *c.Idle == 1 && t.v2 && t.version >= 252 {
		t.add("CPUWeight", uint64(0)) // systemd's word for idle
	}
	t.quota(value(c.Quota), value(c.Period))
	if t.version >= 244 && t.v2 { // on v1 systemd does not touch cpusets
		t.cpuset("AllowedCPUs", c.Cpus)
		t.cpuset("AllowedMemoryNodes", c.Mems)
	}
}

// quota: systemd keeps the quota as time in each second, in steps of 10 ms.
func (t *translator) quota(quota int64, period uint64) {
	if quota == 0 && period == 0 {
		return
	}
	if period != 0 && t.version >= 242 {
		t.add("CPUQuotaPeriodUSec", period)
	}
	if quota == 0 {
		return
	}
	perSecond := uint64(unlimited)
	if quota > 0 {
		if period == 0 {
			period = 100000 // the kernel's default
		}
		const step = 10000
		perSecond = (uint64(quota)*1000000/period + step - 1) / step * step
	}
	t.add("CPUQuotaPerSecUSec", perSecond)
}

func (t *translator) cpuset(name, list string) {
	if list == "" {
		return
	}
	mask, err := Bitmask(list)
	if err != nil {
		t.fail(err)
		return
	}
	t.add(name, mask)
}

func (t *translator) pids(limit int64) {
	switch {
	case limit > 0:
		t.add("TasksMax", uint64(limit))
	case limit == 0:
		t.add("TasksMax", uint64(1)) // systemd refuses 0; see cgroup's pids
	default:
		t.add("TasksMax", uint64(unlimited))
	}
}

func (t *translator) io(b *specs.LinuxBlockIO) {
	if n := value(b.Weight); n != 0 {
		if t.v2 {
			t.add("IOWeight", cgroup.IOWeight(n))
		} else {
			t.add("BlockIOWeight", uint64(n))
		}
	}
}

// unified translates the v2 files that have a property.
func (t *translator) unified(files map[string]string) {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		text := strings.TrimSpace(files[name])
		switch name {
		case "cpu.max":
			quota, period, _ := strings.Cut(text, " ")
			q, p := int64(-1), uint64(0)
			var err error
			if quota != "max" {
				if q, err = strconv.ParseInt(quota, 10, 64); err != nil || q <= 0 {
					t.fail(fault.New(fault.Invalid, "linux.resources.unified[cpu.max]: %q is not \"QUOTA PERIOD\"", text))
					return
				}
			}
			if period != "" {
				if p, err = strconv.ParseUint(period, 10, 64); err != nil {
					t.fail(fault.New(fault.Invalid, "linux.resources.unified[cpu.max]: %q is not \"QUOTA PERIOD\"", text))
					return
				}
			}
			t.quota(q, p)
		case "cpu.weight":
			t.number("CPUWeight", name, text)
		case "cpu.idle":
			if text == "1" && t.version >= 252 {
				t.add("CPUWeight", uint64(0))
			}
		case "cpuset.cpus", "cpuset.mems":
			if t.version >= 244 {
				property := "AllowedCPUs"
				if name == "cpuset.mems" {
					property = "AllowedMemoryNodes"
				}
				t.cpuset(property, text)
			}
		case "memory.high":
			t.number("MemoryHigh", name, text)
		case "memory.low":
			t.number("MemoryLow", name, text)
		case "memory.min":
			t.number("MemoryMin", name, text)
		case "memory.max":
			t.number("MemoryMax", name, text)
		case "memory.swap.max":
			t.number("MemorySwapMax", name, text)
		case "pids.max":
			t.number("TasksMax", name, text)
		}
	}
}

func (t *translator) number(property, file, text string) {
	n := uint64(unlimited)
	if text != "max" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.fail(fault.New(fault.Invalid, "linux.resources.unified[%s]: %q is neither a number nor max", file, text))
			return
		}
	}
	t.add(property, n)
}

// devices: systemd's lists only allow, beside a policy that denies. What it cannot express is allowed here
// and denied by the rules that the cgroup's own files get afterwards; where everything is allowed by
// default, systemd is told to allow everything.
func (t *translator) devices(list []specs.LinuxDeviceCgroup) {
	rules, open, err := cgroup.DeviceRules(list)
	if err != nil {
		t.fail(err)
		return
	}
	if open {
		t.add("DevicePolicy", "auto")
		t.add("DeviceAllow", []device{})
		return
	}
	t.add("DevicePolicy", "strict")
	t.add("DeviceAllow", []device{}) // begin anew
	allow := make([]device, 0, len(rules))
	for _, r := range rules {
		if !r.Allow {
			continue
		}
		for _, kind := range []struct{ letter, name string }{{"c", "char"}, {"b", "block"}} {
			if r.Type != "a" && r.Type != kind.letter {
				continue
			}
			major, minor := value(r.Major), value(r.Minor)
			switch {
			case r.Major == nil || major < 0:
				allow = append(allow, device{kind.name + "-*", r.Access})
			case r.Minor == nil || minor < 0:
				allow = append(allow, device{kind.name + "-" + strconv.FormatInt(major, 10), r.Access})
			default:
				// Numbers, not a node's path: the node need not exist on the host (systemd 240).
				allow = append(allow, device{"/dev/" + kind.name + "/" + strconv.FormatInt(major, 10) + ":" + strconv.FormatInt(minor, 10), r.Access})
			}
		}
	}
	t.add("DeviceAllow", allow)
}

// Bitmask turns a list such as "0-3,8" into systemd's bytes, in which bit n of byte m is number 8·m+n.
func Bitmask(list string) ([]byte, error) {
	bad := func() error { return fault.New(fault.Invalid, "%q is not a list such as 0-3,8", list) }
	const most = 1 << 16 // far above the kernel's largest CPU number
	bits := new(big.Int)
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 32)
		b, err2 := strconv.ParseUint(to, 10, 32)
		if err1 != nil || err2 != nil || a > b || b >= most {
			return nil, bad()
		}
		for n := a; n <= b; n++ {
			bits.SetBit(bits, int(n), 1)
		}
	}
	mask := bits.Bytes() // the highest byte first
	if len(mask) == 0 {
		return nil, bad()
	}
	for i, j := 0, len(mask)-1; i < j; i, j = i+1, j-1 {
		mask[i], mask[j] = mask[j], mask[i]
	}
	return mask, nil
}

// annotationPrefix marks OCI annotations that are further properties of the unit.
const annotationPrefix = "org.systemd.property."

// FromAnnotations reads properties from OCI annotations "org.systemd.property.NAME" with values in D-Bus
// text form ("'value'", "true", "uint64 5", "['a', 'b']"). A NAME that ends in "Sec" is a number of
// seconds and becomes the USec property.
func FromAnnotations(annotations map[string]string) ([]Property, error) {
	var list []Property
	for key, text := range annotations {
		name, ok := strings.CutPrefix(key, annotationPrefix)
		if !ok {
			continue
		}
		if name == "" || strings.ContainsFunc(name, func(c rune) bool {
			return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9')
		}) {
			return nil, fault.New(fault.Invalid, "annotation %s: %q is no property's name", key, name)
		}
		v, err := dbus.ParseVariant(text, dbus.Signature{})
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "annotation %s=%s", key, text)
		}
		if short, ok := strings.CutSuffix(name, "Sec"); ok && !strings.HasSuffix(name, "USec") {
			usec, err := microseconds(v.Value())
			if err != nil {
				return nil, fault.In(err, "annotation %s=%s", key, text)
			}
			name, v = short+"USec", dbus.MakeVariant(usec)
		}
		list = append(list, Property{name, v})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}

func microseconds(v any) (uint64, error) {
	var seconds float64
	switch n := v.(type) {
	case float64:
		seconds = n
	case int32:
		seconds = float64(n)
	case uint32:
		seconds = float64(n)
	case int64:
		seconds = float64(n)
	case uint64:
		seconds = float64(n)
	case int16:
		seconds = float64(n)
	case uint16:
		seconds = float64(n)
	case byte:
		seconds = float64(n)
	default:
		return 0, fault.New(fault.Invalid, "not a number of seconds")
	}
	if seconds < 0 || seconds > math.MaxUint64/2e6 {
		return 0, fault.New(fault.Invalid, "not a number of seconds")
	}
	return uint64(seconds * 1e6), nil
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

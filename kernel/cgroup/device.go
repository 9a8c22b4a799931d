package cgroup

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// access is the set of things done with a device, numbered as the kernel's BPF context does.
type access uint8

const (
	mknod access = 1 << iota
	readAccess
	writeAccess
	allAccess = mknod | readAccess | writeAccess
)

func (a access) String() string {
	b := make([]byte, 0, 3)
	if a&readAccess != 0 {
		b = append(b, 'r')
	}
	if a&writeAccess != 0 {
		b = append(b, 'w')
	}
	if a&mknod != 0 {
		b = append(b, 'm')
	}
	return string(b)
}

const wild = -1 // a major or minor number that matches all

// rule is one device rule: the last that matches an access decides it.
type rule struct {
	allow        bool
	kind         byte // 'a' all, 'b' block, 'c' character
	major, minor int64
	access       access
}

// key is the rule in v1's words: "c 1:3 rwm".
func (r rule) key(a access) string {
	num := func(n int64) string {
		if n == wild {
			return "*"
		}
		return itoa(n)
	}
	return string(r.kind) + " " + num(r.major) + ":" + num(r.minor) + " " + a.String()
}

func (r rule) String() string {
	if r.allow {
		return "allow " + r.key(r.access)
	}
	return "deny " + r.key(r.access)
}

// everything reports whether the rule decides all accesses to all devices.
func (r rule) everything() bool {
	return r.kind == 'a' && r.major == wild && r.minor == wild && r.access == allAccess
}

// covers reports whether every device that matches o matches r too.
func (r rule) covers(o rule) bool {
	return (r.kind == 'a' || r.kind == o.kind) && (r.major == wild || r.major == o.major) && (r.minor == wild || r.minor == o.minor)
}

// meets reports whether some device matches both.
func (r rule) meets(o rule) bool {
	agree := func(a, b int64) bool { return a == wild || b == wild || a == b }
	return (r.kind == 'a' || o.kind == 'a' || r.kind == o.kind) && agree(r.major, o.major) && agree(r.minor, o.minor)
}

// defaultDevices are allowed in every container: the OCI specification's default devices, consoles and
// ptys, and making (not opening) any node.
var defaultDevices = [...]rule{
	{true, 'c', wild, wild, mknod},
	{true, 'b', wild, wild, mknod},
	{true, 'c', 1, 3, allAccess},      // null
	{true, 'c', 1, 5, allAccess},      // zero
	{true, 'c', 1, 7, allAccess},      // full
	{true, 'c', 1, 8, allAccess},      // random
	{true, 'c', 1, 9, allAccess},      // urandom
	{true, 'c', 5, 0, allAccess},      // tty
	{true, 'c', 5, 1, allAccess},      // console
	{true, 'c', 5, 2, allAccess},      // ptmx
	{true, 'c', 136, wild, allAccess}, // pts
}

// maxNumber is the largest number a rule may name; the kernel's device numbers are 12 and 20 bits.
const maxNumber = 1<<32 - 1

// parseRules reads the specification's list. An unset type or number matches all.
func parseRules(list []specs.LinuxDeviceCgroup) ([]rule, error) {
	rules := make([]rule, 0, len(list)+len(defaultDevices))
	for i, d := range list {
		bad := func(what string) error {
			return fault.New(fault.Invalid, "linux.resources.devices[%d]: %s", i, what)
		}
		r := rule{allow: d.Allow, kind: 'a', major: wild, minor: wild}
		switch d.Type {
		case "", "a":
		case "b", "c":
			r.kind = d.Type[0]
		default:
			return nil, bad("type " + d.Type + " is none of a, b, c")
		}
		for _, n := range [...]struct {
			to   *int64
			from *int64
			name string
		}{{&r.major, d.Major, "major"}, {&r.minor, d.Minor, "minor"}} {
			if n.from == nil {
				continue
			}
			if *n.from < -1 || *n.from > maxNumber {
				return nil, bad(n.name + " number " + itoa(*n.from) + " is out of range")
			}
			*n.to = *n.from
		}
		for _, c := range []byte(d.Access) {
			switch c {
			case 'r':
				r.access |= readAccess
			case 'w':
				r.access |= writeAccess
			case 'm':
				r.access |= mknod
			default:
				return nil, bad("access " + d.Access + " has letters other than r, w, m")
			}
		}
		if r.access == 0 {
			return nil, bad("access is empty: give some of r, w, m")
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// devices plans the device rules: the specification's, then the default devices.
func (b *builder) devices(list []specs.LinuxDeviceCgroup) {
	if b.err != nil {
		return
	}
	rules, err := parseRules(list)
	if err != nil {
		b.err = err
		return
	}
	rules = trimRules(append(rules, defaultDevices[:]...))
	if h := b.l.Find("devices"); h != nil && !h.V2 {
		b.devicesV1(h.Place(b.l.Mode, b.path), rules)
		return
	}
	// Beside v1 hierarchies without a devices controller, v2's part can still hold a program.
	if h := b.l.V2(); h != nil {
		b.steps = append(b.steps, Step{Op: Devices, Dir: h.Place(b.l.Mode, b.path), Program: compileDevices(rules), Field: "linux.resources.devices"})
		return
	}
	if len(list) > 0 {
		b.fail(fault.NotImplemented, "linux.resources.devices: neither cgroup v1's devices controller nor cgroup v2 is mounted here")
	}
}

// DeviceRules gives the rules that Plan would keep to for a specification's list: the default devices
// added, overridden rules dropped, the last match decides. open is true when everything is allowed but
// what a rule denies; else everything is denied but what a rule allows. Letters and unset numbers are as
// in the specification. It is for other ways of keeping to them, such as systemd's.
func DeviceRules(list []specs.LinuxDeviceCgroup) (rules []specs.LinuxDeviceCgroup, open bool, err error) {
	parsed, err := parseRules(list)
	if err != nil {
		return nil, false, err
	}
	parsed = trimRules(append(parsed, defaultDevices[:]...))
	for _, r := range parsed {
		if r.everything() {
			open = r.allow
			continue
		}
		d := specs.LinuxDeviceCgroup{Allow: r.allow, Type: string(r.kind), Access: r.access.String()}
		if r.major != wild {
			d.Major = &r.major
		}
		if r.minor != wild {
			d.Minor = &r.minor
		}
		rules = append(rules, d)
	}
	return rules, open, nil
}

// trimRules drops what a later rule for everything overrides. If nothing else is left to decide the rest,
// it is denied.
func trimRules(rules []rule) []rule {
	for i := len(rules) - 1; i >= 0; i-- {
		if rules[i].everything() {
			rules = rules[i:]
			break
		}
	}
	if rules[0].everything() && rules[0].allow {
		// With everything allowed, allowing again says nothing; keep what denies and what undoes that.
		first := 1
		for first < len(rules) && rules[first].allow {
			first++
		}
		return append(rules[:1:1], rules[first:]...)
	}
	return rules
}

// devicesV1 writes the rules as v1 keeps them: a default and exceptions from it. A later rule that would
// carve a hole into an exception has no form there.
func (b *builder) devicesV1(dir string, rules []rule) {
	const field = "linux.resources.devices"
	state, err := foldRules(rules)
	if err != nil {
		b.err = err
		return
	}
	reset, except := "devices.deny", "devices.allow"
	if state.allow {
		reset, except = except, reset
	}
	old := deviceState{}
	if b.now != nil {
		old = parseDevicesList(b.now.devices)
	}
	if b.now == nil || old.allow || state.allow {
		// In allow mode the kernel does not tell its exceptions: begin anew.
		b.write(dir, reset, "a", field)
		old = deviceState{allow: state.allow}
	}
	for _, e := range state.exceptions { // first what is new, so that nothing is lost in between
		if a := e.access &^ old.has(e); a != 0 {
			b.write(dir, except, e.key(a), field)
		}
	}
	for _, e := range old.exceptions {
		if a := e.access &^ state.has(e); a != 0 {
			b.write(dir, reset, e.key(a), field)
		}
	}
}

// deviceState is v1's form: what is the rule, and the exceptions from it.
type deviceState struct {
	allow      bool
	exceptions []rule
}

func (s *deviceState) has(r rule) access {
	for _, e := range s.exceptions {
		if e.kind == r.kind && e.major == r.major && e.minor == r.minor {
			return e.access
		}
	}
	return 0
}

// foldRules turns a list in which the last match decides into v1's form.
func foldRules(rules []rule) (deviceState, error) {
	var s deviceState
	if len(rules) > 0 && rules[0].everything() {
		s.allow = rules[0].allow
		rules = rules[1:]
	}
	for _, r := range rules {
		if r.kind == 'a' {
			// v1 has no exception for both kinds at once.
			block, char := r, r
			block.kind, char.kind = 'b', 'c'
			if err := s.add(block); err != nil {
				return s, err
			}
			r = char
		}
		if err := s.add(r); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *deviceState) add(r rule) error {
	if r.allow != s.allow {
		for i := range s.exceptions {
			e := &s.exceptions[i]
			if e.kind == r.kind && e.major == r.major && e.minor == r.minor {
				e.access |= r.access
				return nil
			}
		}
		s.exceptions = append(s.exceptions, r)
		return nil
	}
	kept := s.exceptions[:0]
	for _, e := range s.exceptions {
		if r.meets(e) && e.access&r.access != 0 {
			if !r.covers(e) {
				return fault.New(fault.NotImplemented,
					"linux.resources.devices: %q takes a part out of the earlier %q, which cgroup v1 cannot express: name the devices one by one", r.String(), e.String())
			}
			e.access &^= r.access
		}
		if e.access != 0 {
			kept = append(kept, e)
		}
	}
	s.exceptions = kept
	return nil
}

// parseDevicesList reads v1's devices.list. "a *:* rwm" is allow mode, whose exceptions it hides.
func parseDevicesList(list []byte) deviceState {
	var s deviceState
	for line := range strings.SplitSeq(string(list), "\n") {
		f := strings.Fields(line)
		if len(f) != 3 || len(f[0]) != 1 {
			continue
		}
		if f[0] == "a" {
			return deviceState{allow: true}
		}
		major, minor, _ := strings.Cut(f[1], ":")
		r := rule{allow: true, kind: f[0][0], major: parseNumber(major), minor: parseNumber(minor)}
		for _, c := range []byte(f[2]) {
			switch c {
			case 'r':
				r.access |= readAccess
			case 'w':
				r.access |= writeAccess
			case 'm':
				r.access |= mknod
			}
		}
		s.exceptions = append(s.exceptions, r)
	}
	return s
}

func parseNumber(s string) int64 {
	if s == "*" {
		return wild
	}
	n, _ := atou(s)
	return int64(n)
}

package seccomp

import (
	"fmt"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// reference evaluates a profile call by call, straight from the rules that Compile promises and with
// none of its structures: what the profile says, nothing about how a filter is laid out.
type reference struct {
	p      *specs.LinuxSeccomp
	native specs.Arch

	// Looked up once, since there are very many calls to evaluate.
	entries map[specs.Arch]map[uint32][]int // the profile's entries that name a number, in order
	highest map[specs.Arch]uint32           // number that the profile names
}

func newReference(p *specs.LinuxSeccomp, native specs.Arch) reference {
	r := reference{p, native, map[specs.Arch]map[uint32][]int{}, map[specs.Arch]uint32{}}
	for _, b := range abis {
		entries := map[uint32][]int{}
		for i, s := range p.Syscalls {
			for _, name := range s.Names {
				nr, ok := callNumber(b.name, name)
				if !ok {
					continue
				}
				entries[nr] = append(entries[nr], i)
				if b.name != specs.ArchARM || nr < armPrivate {
					r.highest[b.name] = max(r.highest[b.name], nr)
				}
			}
		}
		r.entries[b.name] = entries
	}
	return r
}

var plainActions = map[specs.LinuxSeccompAction]uint32{specs.ActKill: RetKillThread, specs.ActKillThread: RetKillThread,
	specs.ActKillProcess: RetKillProcess, specs.ActTrap: RetTrap, specs.ActAllow: RetAllow,
	specs.ActLog: RetLog, specs.ActNotify: RetNotify}

func (r reference) action(name specs.LinuxSeccompAction, errno *uint) uint32 {
	n := uint32(1)
	if errno != nil {
		n = uint32(*errno)
	}
	switch name {
	case specs.ActErrno:
		return RetErrno | n
	case specs.ActTrace:
		return RetTrace | n
	}
	return plainActions[name]
}

// verdict gives what the kernel must answer to a call.
func (r reference) verdict(d Data) uint32 {
	arches := append([]specs.Arch{r.native}, r.p.Architectures...)
	isX32 := d.Arch == auditArch(specs.ArchX86_64) && d.Number >= x32Bit
	var arch specs.Arch
	for _, a := range arches {
		if auditArch(a) == d.Arch && (a == specs.ArchX32) == isX32 {
			arch = a
		}
	}
	deflt := r.action(r.p.DefaultAction, r.p.DefaultErrnoRet)
	if arch == "" {
		if isX32 && d.Number == 0xffffffff && slices.ContainsFunc(arches, func(a specs.Arch) bool { return auditArch(a) == d.Arch }) {
			return deflt
		}
		return RetKillThread
	}
	wide := abiOf(arch).wide
	if act, ok := r.rules(arch, wide, d, deflt); ok {
		return act
	}
	enosys := RetErrno | uint32(38)
	forbids := !slices.Contains([]specs.LinuxSeccompAction{specs.ActAllow, specs.ActLog, specs.ActTrace}, r.p.DefaultAction)
	if !forbids || deflt == enosys {
		return deflt
	}
	if (arch == specs.ArchS390 || arch == specs.ArchS390X) && d.Number == 0 {
		return enosys
	}
	highest := r.highest[arch]
	if highest != 0 && d.Number > highest && (arch != specs.ArchARM || d.Number < armPrivate) {
		return enosys
	}
	return deflt
}

// rules finds the rule that decides on a call, directly or through a multiplexer.
func (r reference) rules(arch specs.Arch, wide bool, d Data, deflt uint32) (uint32, bool) {
	if act, ok := r.unconditional(arch, d.Number, deflt); ok {
		return act, true
	}
	type candidate struct {
		order  int
		action uint32
	}
	var found []candidate
	for _, i := range r.entries[arch][d.Number] {
		s := &r.p.Syscalls[i]
		if act := r.action(s.Action, s.ErrnoRet); act != deflt && len(s.Args) > 0 && r.matches(s.Args, wide, d) {
			found = append(found, candidate{i, act})
		}
	}
	for _, through := range []string{"socketcall", "ipc"} {
		members := socketCalls[:]
		if through == "ipc" {
			members = ipcCalls[:]
		}
		if nr, ok := callNumber(arch, through); !ok || nr != d.Number {
			continue
		}
		for _, m := range members {
			selector := uint64(uint32(d.Args[0]))
			if through == "ipc" {
				selector = uint64(uint16(d.Args[0]))
			}
			if selector != m.selector {
				continue
			}
			if act, order, ok := r.named(m.name, deflt); ok {
				found = append(found, candidate{order, act})
			}
		}
	}
	if len(found) == 0 {
		return 0, false
	}
	best := found[0]
	for _, c := range found {
		if c.order < best.order {
			best = c
		}
	}
	return best.action, true
}

// unconditional finds the first rule without conditions for a number.
func (r reference) unconditional(arch specs.Arch, number, deflt uint32) (uint32, bool) {
	for _, i := range r.entries[arch][number] {
		s := &r.p.Syscalls[i]
		if act := r.action(s.Action, s.ErrnoRet); act != deflt && len(s.Args) == 0 {
			return act, true
		}
	}
	return 0, false
}

// named gives what the rules for a name mean when its arguments cannot be seen.
func (r reference) named(name string, deflt uint32) (act uint32, order int, ok bool) {
	for i, s := range r.p.Syscalls {
		act := r.action(s.Action, s.ErrnoRet)
		if act != deflt && len(s.Args) == 0 && slices.Contains(s.Names, name) {
			return act, i, true
		}
	}
	for i, s := range r.p.Syscalls {
		act := r.action(s.Action, s.ErrnoRet)
		if act != deflt && len(s.Args) > 0 && slices.Contains(s.Names, name) && stricter(act, deflt) {
			return act, i, true
		}
	}
	return 0, 0, false
}

func (r reference) matches(args []specs.LinuxSeccompArg, wide bool, d Data) bool {
	seen, twice := [6]bool{}, false
	for _, a := range args {
		twice = twice || seen[a.Index]
		seen[a.Index] = true
	}
	for _, a := range args {
		holds := r.holds(a, wide, d.Args[a.Index])
		if twice && holds {
			return true
		}
		if !twice && !holds {
			return false
		}
	}
	return !twice
}

func (r reference) holds(a specs.LinuxSeccompArg, wide bool, x uint64) bool {
	v, two := a.Value, a.ValueTwo
	if !wide {
		x, v, two = uint64(uint32(x)), uint64(uint32(v)), uint64(uint32(two))
	}
	switch a.Op {
	case specs.OpEqualTo:
		return x == v
	case specs.OpNotEqual:
		return x != v
	case specs.OpGreaterThan:
		return x > v
	case specs.OpGreaterEqual:
		return x >= v
	case specs.OpLessThan:
		return x < v
	case specs.OpLessEqual:
		return x <= v
	case specs.OpMaskedEqual:
		return x&v == two&v
	}
	panic(a.Op)
}

// check compares a compiled profile with the reference on every number near a rule and on arguments
// near every value of the profile. It gives how many calls were compared.
func check(t testing.TB, p *specs.LinuxSeccomp, native specs.Arch) int {
	t.Helper()
	f, err := compile(p, native)
	if err != nil {
		t.Fatal(err)
	}
	r, prog := newReference(p, native), insns(f.Code)
	values := argValues(p)
	count := 0
	try := func(d Data) {
		count++
		got, err := run(prog, d)
		if err != nil {
			t.Fatalf("%v\n%s", err, f)
		}
		if want := r.verdict(d); got != want {
			t.Fatalf("arch %#x number %d (%#x) args %#x: filter says %s, profile says %s\nprofile: %s\n%s",
				d.Arch, d.Number, d.Number, d.Args, Verdict(got), Verdict(want), describe(p), f)
		}
	}
	asked := append(slices.Clone(p.Architectures), native, specs.ArchX86_64, specs.ArchS390X)
	slices.Sort(asked)
	for _, arch := range slices.Compact(asked) {
		b := abiOf(arch)
		for _, nr := range probes(b) {
			try(Data{Number: nr, Arch: b.audit})
		}
		for _, nr := range conditional(p, b) {
			for i, v := range values {
				if len(values) > 80 && i%(len(values)/40) != 0 {
					continue
				}
				for arg := range 6 {
					d := Data{Number: nr, Arch: b.audit}
					d.Args[arg] = v
					try(d)
					d.Args[(arg+1)%6] = values[(i*7+arg)%len(values)]
					d.Args[(arg+2)%6] = values[(i*3+arg)%len(values)]
					try(d)
				}
			}
		}
	}
	return count
}

// probes are numbers worth asking about: all of the table's and what lies around the ABI's edges.
func probes(b *abi) []uint32 {
	out := []uint32{0, 1, x32Bit - 1, x32Bit, x32Bit + 1, armPrivate - 1, armPrivate, armPrivate + 5, armPrivate + 9,
		0x7fffffff, 0x80000000, 0xbfffffff, 0xc0000000, 0xfffffffe, 0xffffffff}
	for n := range uint32(700) {
		out = append(out, b.base+n)
	}
	return out
}

// conditional lists the numbers whose verdict may depend on arguments.
func conditional(p *specs.LinuxSeccomp, b *abi) []uint32 {
	var out []uint32
	add := func(name string) {
		if nr, ok := callNumber(b.name, name); ok && !slices.Contains(out, nr) {
			out = append(out, nr)
		}
	}
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			if len(s.Args) > 0 {
				add(name)
			}
		}
	}
	add("socketcall")
	add("ipc")
	return out
}

// argValues are the values of the profile, their neighbours, and each with other high bits.
func argValues(p *specs.LinuxSeccomp) []uint64 {
	out := []uint64{0, 1, 2, 3, 11, 0x10001, 0x100000001, 1 << 31, 1<<32 - 1, 1 << 32, 1 << 63, ones}
	for _, s := range p.Syscalls {
		for _, a := range s.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo, a.Value & a.ValueTwo, a.Value | a.ValueTwo} {
				out = append(out, v, v-1, v+1, v^1<<32, v^1<<63, v+1<<32, v-1<<32, uint64(uint32(v)), ^v)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func describe(p *specs.LinuxSeccomp) string {
	s := fmt.Sprintf("default %s %v", p.DefaultAction, p.Architectures)
	for i, c := range p.Syscalls {
		if i == 20 {
			return s + " …"
		}
		s += fmt.Sprintf("\n  %v %s %v", c.Names, c.Action, c.Args)
	}
	return s
}

// auditArch gives the AUDIT_ARCH_* number by which the kernel tells a filter the architecture, 0 for an unknown one.
func auditArch(arch specs.Arch) uint32 {
	if b := abiOf(arch); b != nil {
		return b.audit
	}
	return 0
}

// callNumber gives a system call's number on an architecture as the kernel passes it to a filter (x32's with its bit set);
// false when there is no such call or architecture.
func callNumber(arch specs.Arch, name string) (uint32, bool) {
	a, i := abiOf(arch), nameIndex(name)
	if a == nil || i < 0 {
		return 0, false
	}
	return a.number(i)
}

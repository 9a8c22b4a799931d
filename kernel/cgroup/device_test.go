package cgroup

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// decide is the meaning of a rule list, written down plainly: each kind of access is decided by the last
// rule that matches it.
func decide(rules []rule, kind byte, major, minor int64, a access) bool {
	for bit := access(1); bit <= allAccess; bit <<= 1 {
		if a&bit == 0 {
			continue
		}
		allowed := false
		for _, r := range rules {
			if (r.kind == 'a' || r.kind == kind) && (r.major == wild || r.major == major) && (r.minor == wild || r.minor == minor) && r.access&bit != 0 {
				allowed = r.allow
			}
		}
		if !allowed {
			return false
		}
	}
	return true
}

// run interprets a program as the kernel would; it fails on whatever the verifier would refuse.
func run(t testing.TB, p *DeviceProgram, kind byte, major, minor int64, a access) bool {
	k := uint32(kindBlock)
	if kind == 'c' {
		k = kindChar
	}
	ctx := [3]uint32{uint32(a)<<16 | k, uint32(major), uint32(minor)}
	var reg [11]uint32
	for pc, steps := 0, 0; ; pc, steps = pc+1, steps+1 {
		if pc >= len(p.code) || steps > 100000 {
			t.Fatalf("the program leaves its code:\n%s", p.Disassemble())
		}
		in := p.code[pc]
		dst, src := in.regs&15, in.regs>>4
		switch in.op {
		case opLoadW:
			reg[dst] = ctx[in.off/4]
		case opMovReg:
			reg[dst] = reg[src]
		case opMovImm:
			reg[dst] = uint32(in.imm)
		case opAndImm:
			reg[dst] &= uint32(in.imm)
		case opRshImm:
			reg[dst] >>= uint32(in.imm)
		case opJneImm:
			if reg[dst] != uint32(in.imm) {
				pc += int(in.off)
			}
		case opJeqImm:
			if reg[dst] == uint32(in.imm) {
				pc += int(in.off)
			}
		case opExit:
			return reg[0] == 1
		default:
			t.Fatalf("unknown instruction %#x", in.op)
		}
	}
}

func randomRules(r *rand.Rand, kinds string) []rule {
	number := func() int64 {
		if r.IntN(3) == 0 {
			return wild
		}
		return int64(r.IntN(3))
	}
	rules := make([]rule, 1+r.IntN(8))
	for i := range rules {
		rules[i] = rule{r.IntN(2) == 0, kinds[r.IntN(len(kinds))], number(), number(), access(1 + r.IntN(7))}
		if r.IntN(6) == 0 {
			rules[i] = rule{r.IntN(2) == 0, 'a', wild, wild, allAccess}
		}
	}
	return rules
}

func everyAccess(f func(kind byte, major, minor int64, a access)) {
	for _, kind := range []byte("bc") {
		for major := int64(0); major < 4; major++ {
			for minor := int64(0); minor < 4; minor++ {
				for a := access(1); a <= allAccess; a++ {
					f(kind, major, minor, a)
				}
			}
		}
	}
}

// The program decides as the list of rules says, whatever the rules.
func TestProgramDecides(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		rules := randomRules(r, "abc")
		p := compileDevices(trimRules(slices.Clone(rules)))
		everyAccess(func(kind byte, major, minor int64, a access) {
			want := decide(rules, kind, major, minor, a)
			if got := run(t, p, kind, major, minor, a); got != want {
				t.Fatalf("%c %d:%d %v: %v, want %v\n%v\n%s", kind, major, minor, a, got, want, rules, p.Disassemble())
			}
		})
	}
}

// v1's form decides as the list says, for one access at a time; or it is refused.
func TestFoldDecides(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	folded := 0
	for range 3000 {
		rules := randomRules(r, "abc")
		s, err := foldRules(trimRules(slices.Clone(rules)))
		if err != nil {
			if !fault.Is(err, fault.NotImplemented) {
				t.Fatal(err)
			}
			continue
		}
		folded++
		everyAccess(func(kind byte, major, minor int64, a access) {
			if a&(a-1) != 0 {
				return
			}
			got := s.allow
			for _, e := range s.exceptions {
				if e.kind == kind && (e.major == wild || e.major == major) && (e.minor == wild || e.minor == minor) && e.access&a != 0 {
					got = !s.allow
				}
			}
			if want := decide(rules, kind, major, minor, a); got != want {
				t.Fatalf("%c %d:%d %v: %v, want %v\n%v\n%+v", kind, major, minor, a, got, want, rules, s)
			}
		})
	}
	if folded < 500 {
		t.Errorf("only %d lists could be folded", folded)
	}
}

func TestParseDevicesList(t *testing.T) {
	if s := parseDevicesList([]byte("a *:* rwm\n")); !s.allow || len(s.exceptions) != 0 {
		t.Errorf("%+v", s)
	}
	s := parseDevicesList([]byte("c 1:3 rwm\nb 8:* r\nnonsense\n"))
	if s.allow || len(s.exceptions) != 2 || s.exceptions[1] != (rule{true, 'b', 8, wild, readAccess}) {
		t.Errorf("%+v", s)
	}
}

// v2Real gives a layout of the machine's v2 hierarchy alone.
func v2Real(t *testing.T) (Layout, string) {
	l, path := real(t)
	h := l.V2()
	if h == nil {
		t.Skip("needs cgroup v2 mounted")
	}
	return Layout{Mode: V2, Hierarchies: []Hierarchy{*h}}, path
}

// The kernel takes the program, keeps to it, and replaces it on update.
func TestRealDeviceProgram(t *testing.T) {
	l, path := v2Real(t)
	number := func(n int64) *int64 { return &n }
	r := &specs.LinuxResources{Devices: append(denyAll(),
		specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: number(10), Minor: number(999), Access: "rw"})}
	s, err := Plan(l, path, r)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Apply()
	if fault.Is(err, fault.NotImplemented) || fault.Is(err, fault.Forbidden) {
		t.Skip("needs BPF device programs: " + err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	nodes := map[string]string{"null": "1 3", "kmsg": "1 11"}
	for name, number := range nodes {
		if out, err := exec.Command("mknod", append([]string{dir + "/" + name, "c"}, strings.Fields(number)...)...).CombinedOutput(); err != nil {
			t.Skipf("needs mknod: %s", out)
		}
	}
	if f, err := os.Open(dir + "/null"); err != nil {
		t.Skip("needs device nodes on the temporary directory's mount: " + err.Error())
	} else {
		f.Close()
	}
	try := func() string {
		cmd := exec.Command("/bin/sh", "-c", `echo 0 >"$1/cgroup.procs" || exit 9
			cd "$2"; echo x >null && echo null-ok; head -c 0 <kmsg && echo kmsg-ok; exit 0`, "sh", c.V2Dir(), dir)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v", err)
		}
		return string(out)
	}
	if got := try(); got != "null-ok\n" {
		t.Errorf("with the first program: %q", got)
	}
	if err := c.Update(&specs.LinuxResources{Devices: append(denyAll(),
		specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: number(1), Minor: number(11), Access: "r"})}); err != nil {
		t.Fatal(err)
	}
	if got := try(); got != "null-ok\nkmsg-ok\n" {
		t.Errorf("after the update: %q", got)
	}
	fd, err := open(c.V2Dir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "cgroup")
	defer f.Close()
	fds := attached(fd)
	for _, p := range fds {
		os.NewFile(uintptr(p), "program").Close()
	}
	if len(fds) != 1 {
		t.Errorf("%d programs are attached, want 1", len(fds))
	}
	if err := c.Update(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}); err != nil {
		t.Fatal(err)
	}
	if got := try(); got != "null-ok\nkmsg-ok\n" {
		t.Errorf("with all allowed: %q", got)
	}
}

// v1's files show what was planned; an update changes only the difference, and may switch the default.
func TestRealDevicesV1(t *testing.T) {
	l, path := real(t)
	if h := l.Find("devices"); h == nil || h.V2 {
		t.Skip("needs the v1 devices controller")
	}
	c := apply(t, l, path, &specs.LinuxResources{Devices: denyAll()})
	list := func() []string {
		lines := strings.Split(trimmed(c.Dir("devices")+"/devices.list"), "\n")
		slices.Sort(lines)
		return lines
	}
	base := []string{"b *:* m", "c *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 136:* rwm", "c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm"}
	slices.Sort(base)
	if got := list(); !slices.Equal(got, base) {
		t.Errorf("list %q, want %q", got, base)
	}
	fuse := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: ptr(int64(10)), Minor: ptr(int64(229)), Access: "rw"}
	s, err := c.PlanUpdate(&specs.LinuxResources{Devices: append(denyAll(), fuse)})
	if err != nil || strings.Count(s.String(), "write") != 1 {
		t.Errorf("%v\n%s", err, s)
	}
	if err := c.Update(&specs.LinuxResources{Devices: append(denyAll(), fuse)}); err != nil {
		t.Fatal(err)
	}
	if got := list(); !slices.Contains(got, "c 10:229 rw") || len(got) != len(base)+1 {
		t.Errorf("list %q", got)
	}
	if err := c.Update(&specs.LinuxResources{Devices: denyAll()}); err != nil {
		t.Fatal(err)
	}
	if got := list(); !slices.Equal(got, base) {
		t.Errorf("list %q, want %q", got, base)
	}
	if err := c.Update(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}); err != nil {
		t.Fatal(err)
	}
	if got := list(); !slices.Equal(got, []string{"a *:* rwm"}) {
		t.Errorf("list %q", got)
	}
	if err := c.Update(&specs.LinuxResources{Devices: denyAll()}); err != nil {
		t.Fatal(err)
	}
	if got := list(); !slices.Equal(got, base) {
		t.Errorf("list %q, want %q", got, base)
	}
}

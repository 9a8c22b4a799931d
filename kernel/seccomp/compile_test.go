package seccomp

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

var update = flag.Bool("update", false, "write the golden files anew")

// docker is Docker's default profile for a container with its default capabilities and the given ones.
func docker(t testing.TB, caps ...string) *specs.LinuxSeccomp {
	t.Helper()
	p, err := moby.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ptr[T any](v T) *T { return &v }

func rules(r ...specs.LinuxSyscall) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}, Syscalls: r}
}

func allow(name string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: args}
}

func arg(i uint, op specs.LinuxSeccompOperator, v uint64, two ...uint64) specs.LinuxSeccompArg {
	a := specs.LinuxSeccompArg{Index: i, Op: op, Value: v}
	if len(two) > 0 {
		a.ValueTwo = two[0]
	}
	return a
}

func TestDockerProfileAgainstReference(t *testing.T) {
	for _, caps := range [][]string{nil, {"CAP_SYS_ADMIN"}, {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF", "CAP_SYS_TIME"}} {
		n := check(t, docker(t, caps...), specs.ArchX86_64)
		t.Logf("caps %v: %d calls compared", caps, n)
	}
}

func TestEveryArchitectureAgainstReference(t *testing.T) {
	for i := range abis {
		b := &abis[i]
		if b.name == specs.ArchX32 {
			continue // never a kernel's own architecture
		}
		p := docker(t)
		p.Architectures = nil
		for j := range abis {
			if abis[j].big == b.big && (i+j)%5 == 0 {
				p.Architectures = append(p.Architectures, abis[j].name)
			}
		}
		check(t, p, b.name)
		p.DefaultAction = specs.ActKillProcess
		p.DefaultErrnoRet = nil
		p.Architectures = nil
		p.Syscalls = slices.DeleteFunc(p.Syscalls, func(s specs.LinuxSyscall) bool { return slices.Contains(s.Names, "ipc") })
		p.Syscalls = append(p.Syscalls, allow("semop"), allow("shmat"), allow("bind"), specs.LinuxSyscall{Names: []string{"connect", "msgget"}, Action: specs.ActTrap, Args: []specs.LinuxSeccompArg{arg(1, specs.OpEqualTo, 7)}})
		check(t, p, b.name)
	}
}

func TestOperatorsAgainstReference(t *testing.T) {
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpGreaterThan, specs.OpGreaterEqual,
		specs.OpLessThan, specs.OpLessEqual, specs.OpMaskedEqual}
	values := []uint64{0, 1, 5, 1<<32 - 1, 1 << 32, 5 << 32, 5<<32 | 7, 1<<63 | 9, ones, ones - 1, 0xffffffff << 32}
	for _, op := range ops {
		for _, v := range values {
			for _, two := range []uint64{0, v, 5, ones} {
				check(t, rules(allow("ioctl", arg(1, op, v, two))), specs.ArchX86_64)
				if op != specs.OpMaskedEqual {
					break
				}
			}
		}
	}
}

func TestSeveralRulesAgainstReference(t *testing.T) {
	errno := func(name string, n uint, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActErrno, ErrnoRet: &n, Args: args}
	}
	for name, p := range map[string]*specs.LinuxSeccomp{
		"conditions and":          rules(allow("ioctl", arg(0, specs.OpEqualTo, 1), arg(1, specs.OpEqualTo, 2), arg(2, specs.OpGreaterThan, 1<<40))),
		"same argument twice":     rules(allow("ioctl", arg(1, specs.OpEqualTo, 1), arg(1, specs.OpEqualTo, 2), arg(0, specs.OpEqualTo, 9))),
		"unconditional wins":      rules(allow("ioctl", arg(0, specs.OpEqualTo, 1)), errno("ioctl", 5), errno("ioctl", 6)),
		"first condition wins":    rules(errno("ioctl", 9, arg(0, specs.OpGreaterThan, 3)), allow("ioctl", arg(0, specs.OpGreaterEqual, 3)), errno("ioctl", 7, arg(0, specs.OpLessThan, 2))),
		"default repeated":        rules(errno("ioctl", 1, arg(0, specs.OpEqualTo, 1)), allow("ioctl")),
		"two names of one number": {DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchARM}, Syscalls: []specs.LinuxSyscall{allow("sync_file_range2", arg(0, specs.OpEqualTo, 1)), allow("arm_sync_file_range", arg(0, specs.OpEqualTo, 2)), allow("set_tls")}},
		"nothing":                 {DefaultAction: specs.ActAllow},
		"only unknown names":      rules(allow("no_such_call")),
		"log":                     {DefaultAction: specs.ActLog, Syscalls: []specs.LinuxSyscall{errno("mount", 1)}},
		"default enosys":          {DefaultAction: specs.ActErrno, DefaultErrnoRet: ptr(uint(38)), Syscalls: []specs.LinuxSyscall{allow("read")}},
		"deny list":               {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}, Syscalls: []specs.LinuxSyscall{errno("socket", 97, arg(0, specs.OpEqualTo, 38)), errno("shmget", 1), {Names: []string{"kexec_load"}, Action: specs.ActKillProcess}}},
		"socketcall's own rules":  rules(allow("socketcall", arg(0, specs.OpEqualTo, 1)), errno("bind", 13), allow("listen", arg(0, specs.OpEqualTo, 4))),
		"trace":                   {DefaultAction: specs.ActTrace, DefaultErrnoRet: ptr(uint(77)), Syscalls: []specs.LinuxSyscall{allow("read")}},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, p, specs.ArchX86_64)
			p.Architectures = append(slices.Clone(p.Architectures), specs.ArchARM)
			check(t, p, specs.ArchAARCH64)
		})
	}
}

// randomProfile makes up a profile; equal seeds give equal profiles.
func randomProfile(rnd *rand.Rand, big bool) *specs.LinuxSeccomp {
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActTrace, specs.ActLog}
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpMaskedEqual}
	pick := []string{"socket", "bind", "shmget", "semop", "socketcall", "ipc", "clone", "ioctl", "read", "mmap", "no_such", "set_tls", "sync_file_range2", "arm_sync_file_range"}
	value := func() uint64 {
		switch rnd.IntN(4) {
		case 0:
			return uint64(rnd.IntN(4))
		case 1:
			return uint64(rnd.IntN(4)) << 32
		case 2:
			return uint64(rnd.IntN(3))<<32 | uint64(rnd.IntN(3))
		}
		return rnd.Uint64()
	}
	act := func() (specs.LinuxSeccompAction, *uint) {
		a := actions[rnd.IntN(len(actions))]
		if (a == specs.ActErrno || a == specs.ActTrace) && rnd.IntN(2) == 0 {
			return a, ptr(uint(rnd.IntN(maxErrno)))
		}
		return a, nil
	}
	p := &specs.LinuxSeccomp{}
	p.DefaultAction, p.DefaultErrnoRet = act()
	for i := range abis {
		if abis[i].big == big && rnd.IntN(4) == 0 {
			p.Architectures = append(p.Architectures, abis[i].name)
		}
	}
	for range rnd.IntN(30) {
		s := specs.LinuxSyscall{}
		s.Action, s.ErrnoRet = act()
		for range 1 + rnd.IntN(4) {
			n := pick[rnd.IntN(len(pick))]
			if rnd.IntN(2) == 0 {
				k := rnd.IntN(nameCount)
				n = nameText[nameStart[k]:nameStart[k+1]]
			}
			s.Names = append(s.Names, n)
		}
		for range rnd.IntN(4) {
			s.Args = append(s.Args, arg(uint(rnd.IntN(6)), ops[rnd.IntN(len(ops))], value(), value()))
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	return p
}

func TestRandomProfilesAgainstReference(t *testing.T) {
	total := 0
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		natives := []specs.Arch{specs.ArchX86_64, specs.ArchAARCH64, specs.ArchS390X, specs.ArchMIPSEL64N32, specs.ArchPPC64LE, specs.ArchARM}
		native := natives[rnd.IntN(len(natives))]
		total += check(t, randomProfile(rnd, abiOf(native).big), native)
	}
	t.Logf("%d calls compared", total)
}

func TestManyRulesStayWithinJumps(t *testing.T) {
	var many []specs.LinuxSyscall
	for i := range uint64(200) {
		many = append(many, allow("ioctl", arg(1, specs.OpEqualTo, i*2), arg(2, specs.OpGreaterThan, i<<32)))
	}
	check(t, rules(many...), specs.ArchX86_64)
	many = nil
	for i := range nameCount {
		if i%2 == 0 {
			many = append(many, specs.LinuxSyscall{Names: []string{nameText[nameStart[i]:nameStart[i+1]]}, Action: specs.ActErrno, ErrnoRet: ptr(uint(i + 2))})
		}
	}
	check(t, rules(many...), specs.ArchX86_64)
}

func TestTooLong(t *testing.T) {
	var many []specs.LinuxSyscall
	for i := range uint64(3000) {
		many = append(many, allow("ioctl", arg(1, specs.OpEqualTo, i<<32|i)))
	}
	_, err := Compile(rules(many...))
	if err == nil || !strings.Contains(err.Error(), "more than the 4096 instructions") {
		t.Fatal(err)
	}
}

func TestErrorsNameTheRule(t *testing.T) {
	bad := func(change func(*specs.LinuxSeccomp)) *specs.LinuxSeccomp {
		p := rules(allow("read"), allow("ioctl", arg(1, specs.OpEqualTo, 2)))
		change(p)
		return p
	}
	for want, p := range map[string]*specs.LinuxSeccomp{
		`seccomp: defaultAction: unknown action ""`:                       {},
		`seccomp: defaultAction: action SCMP_ACT_ALLOW takes no errnoRet`: bad(func(p *specs.LinuxSeccomp) { p.DefaultAction, p.DefaultErrnoRet = specs.ActAllow, ptr(uint(1)) }),
		`seccomp: SCMP_ACT_NOTIFY cannot be used as default action`:       bad(func(p *specs.LinuxSeccomp) { p.DefaultAction = specs.ActNotify }),
		`seccomp: architectures[3]: unknown architecture "SCMP_ARCH_VAX"`: bad(func(p *specs.LinuxSeccomp) { p.Architectures = append(p.Architectures, "SCMP_ARCH_VAX") }),
		`seccomp: syscalls[1]: unknown action "SCMP_ACT_NAP"`:             bad(func(p *specs.LinuxSeccomp) { p.Syscalls[1].Action = "SCMP_ACT_NAP" }),
		`seccomp: syscalls[1]: errnoRet 5000 of SCMP_ACT_ERRNO is larger than 4095`: bad(func(p *specs.LinuxSeccomp) {
			p.Syscalls[1].Action, p.Syscalls[1].ErrnoRet = specs.ActErrno, ptr(uint(5000))
		}),
		`seccomp: syscalls[1] (ioctl): args[0]: unknown operator "SCMP_CMP_LIKE"`:                     bad(func(p *specs.LinuxSeccomp) { p.Syscalls[1].Args[0].Op = "SCMP_CMP_LIKE" }),
		`seccomp: syscalls[1] (ioctl): args[0]: argument index 6: a system call has arguments 0 to 5`: bad(func(p *specs.LinuxSeccomp) { p.Syscalls[1].Args[0].Index = 6 }),
		`seccomp: syscalls[0]: names is empty`:                                                        bad(func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = nil }),
		`seccomp: syscalls[0].names[0]: empty string is not a valid syscall`:                          bad(func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names[0] = "" }),
		`seccomp: unknown seccomp flag "SECCOMP_FILTER_FLAG_X"`:                                       bad(func(p *specs.LinuxSeccomp) { p.Flags = []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_X"} }),
		`seccomp: SCMP_ACT_NOTIFY needs a listenerPath`:                                               bad(func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = specs.ActNotify }),
		`seccomp: listenerMetadata is set and listenerPath is not`:                                    bad(func(p *specs.LinuxSeccomp) { p.ListenerMetadata = "x" }),
		`seccomp: syscalls[2]: SCMP_ACT_NOTIFY cannot be used for the write syscall`: bad(func(p *specs.LinuxSeccomp) {
			p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"write"}, Action: specs.ActNotify})
		}),
	} {
		_, err := compile(p, specs.ArchX86_64)
		if err == nil || err.Error() != want || !fault.Is(err, fault.Invalid) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	_, err := compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchS390X}}, specs.ArchX86_64)
	if err == nil || !strings.Contains(err.Error(), "another byte order") {
		t.Error(err)
	}
}

func TestFlags(t *testing.T) {
	notify := []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}
	for _, c := range []struct {
		names []specs.LinuxSeccompFlag
		calls []specs.LinuxSyscall
		want  uint
	}{
		{nil, nil, FlagSpecAllow},
		{[]specs.LinuxSeccompFlag{}, nil, 0},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagLog}, nil, FlagTsync | FlagLog},
		{[]specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}, nil, 0},
		{[]specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}, notify, FlagWaitKillableRecv | FlagNewListener},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC"}, notify, FlagTsync | FlagTsyncEsrch | FlagNewListener},
	} {
		f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: c.names, Syscalls: c.calls, ListenerPath: "/run/agent.sock"})
		if err != nil || f.Flags != c.want || f.Notify != (c.calls != nil) {
			t.Errorf("%v: %#x %v %v, want %#x", c.names, f.Flags, f.Notify, err, c.want)
		}
	}
}

func TestGoldenText(t *testing.T) {
	f, err := compile(fixture(t), specs.ArchX86_64)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "docker-amd64.txt", f.String())
	f, err = compile(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchARM}, Syscalls: []specs.LinuxSyscall{
		allow("read"), allow("set_tls"), allow("ioctl", arg(1, specs.OpMaskedEqual, 0xff00, 0x5400), arg(2, specs.OpLessEqual, 1<<33)),
	}}, specs.ArchAARCH64)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "small-arm64.txt", f.String())
}

// fixture is Docker's profile as amd64 and Linux 6 resolve it, so that golden files are the same on all
// machines.
func fixture(t *testing.T) *specs.LinuxSeccomp {
	t.Helper()
	path := filepath.Join("testdata", "docker-amd64.json")
	if *update && Native() == specs.ArchX86_64 {
		text, err := json.MarshalIndent(docker(t), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := new(specs.LinuxSeccomp)
	if err := json.Unmarshal(text, p); err != nil {
		t.Fatal(err)
	}
	return p
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", path, got)
	}
}

func TestDockerProfileStaysShort(t *testing.T) {
	f, err := compile(docker(t), Native())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(f.Code) / 8; n > 280 { // 257 on amd64 with x86 and x32
		t.Errorf("%d instructions: attaching costs by the instruction", n)
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		arch specs.Arch
		name string
		want uint32
	}{
		{specs.ArchX86_64, "read", 0}, {specs.ArchX86, "socketcall", 102}, {specs.ArchX32, "execve", x32Bit + 520},
		{specs.ArchARM, "set_tls", armPrivate + 5}, {specs.ArchAARCH64, "clone3", 435}, {specs.ArchMIPS64N32, "read", 6000},
		{specs.ArchRISCV64, "riscv_flush_icache", 259}, {specs.ArchX86_64, "rseq_slice_yield", 471},
	} {
		nr, ok := callNumber(c.arch, c.name)
		if !ok || nr != c.want {
			t.Errorf("%s on %s: %d %v, want %d", c.name, c.arch, nr, ok, c.want)
		}
		if back := Name(c.arch, nr); back != c.name {
			t.Errorf("%d on %s: %q, want %q", nr, c.arch, back, c.name)
		}
	}
	if _, ok := callNumber(specs.ArchX86_64, "socketcall"); ok {
		t.Error("x86_64 has no socketcall")
	}
	for _, row := range numbers {
		for _, n := range row {
			if n >= tableSize || n < -privateSize {
				t.Fatalf("number %d does not fit callTable", n)
			}
		}
	}
	for i := range nameCount {
		if name := nameText[nameStart[i]:nameStart[i+1]]; nameIndex(name) != i {
			t.Errorf("%q is not found where it stands", name)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for seed := range uint64(8) {
		p := randomProfile(rand.New(rand.NewPCG(seed, 2)), false)
		b, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_NOTIFY"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var p specs.LinuxSeccomp
		if json.Unmarshal(raw, &p) != nil {
			return
		}
		if _, err := compile(&p, specs.ArchX86_64); err != nil {
			return
		}
		if len(p.Syscalls) < 40 {
			check(t, &p, specs.ArchX86_64)
		}
	})
}

func FuzzProfiles(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(seed, seed%2 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, big bool) {
		native := specs.ArchX86_64
		if big {
			native = specs.ArchS390X
		}
		check(t, randomProfile(rand.New(rand.NewPCG(seed, 3)), big), native)
	})
}

func BenchmarkCompileDocker(b *testing.B) {
	p := docker(b)
	for b.Loop() {
		if _, err := Compile(p); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleFilter_String() {
	f, _ := compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"personality"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 0, Op: specs.OpNotEqual, Value: 0}}},
	}}, specs.ArchAARCH64)
	fmt.Print(f)
	// Output:
	// 0: load arch
	//    1: jeq  0xc00000b7 -> 3 else 2  # aarch64
	//    2: ret  kill_thread
	//    3: load number
	//    4: jeq  92 -> 5 else 10  # personality
	//    5: load args[0].high
	//    6: jeq  0x0 -> 7 else 9
	//    7: load args[0].low
	//    8: jeq  0x0 -> 10 else 9
	//    9: ret  errno 1
	//   10: ret  allow
}

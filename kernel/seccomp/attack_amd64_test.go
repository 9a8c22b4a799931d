package seccomp

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// attack is one system call made by a program of nothing else: no C library or Go runtime that a filter
// could upset or that could go another way.
type attack struct {
	int80 bool // through the i386 gate, from a 64 bit program
	nr    uint32
	args  [6]uint64
}

// elf makes the program: it makes the call and exits with the errno, 0 for success.
func (a attack) elf() []byte {
	var code []byte
	add := func(b ...byte) { code = append(code, b...) }
	imm32 := func(op byte, v uint32) { code = binary.LittleEndian.AppendUint32(append(code, op), v) }
	imm64 := func(rex, op byte, v uint64) { code = binary.LittleEndian.AppendUint64(append(code, rex, op), v) }
	if a.int80 {
		for i, op := range []byte{0xbb, 0xb9, 0xba, 0xbe, 0xbf} { // ebx ecx edx esi edi
			imm32(op, uint32(a.args[i]))
		}
		imm32(0xb8, a.nr)
		add(0xcd, 0x80)
		add(0x48, 0x98) // cdqe: the i386 gate gives 32 bits
	} else {
		for i, op := range [][2]byte{{0x48, 0xbf}, {0x48, 0xbe}, {0x48, 0xba}, {0x49, 0xba}, {0x49, 0xb8}, {0x49, 0xb9}} {
			imm64(op[0], op[1], a.args[i])
		}
		imm32(0xb8, a.nr)
		add(0x0f, 0x05)
	}
	add(0x31, 0xff)       // xor edi, edi
	add(0x48, 0x85, 0xc0) // test rax, rax
	add(0x79, 0x04)       // jns +4
	add(0xf7, 0xd8)       // neg eax
	add(0x89, 0xc7)       // mov edi, eax
	imm32(0xb8, 231)      // exit_group
	add(0x0f, 0x05)

	const base, head = 0x400000, 64 + 56
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2)  // executable
	b = le.AppendUint16(b, 62) // x86_64
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+head) // entry
	b = le.AppendUint64(b, 64)        // program headers
	b = le.AppendUint64(b, 0)
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	size := uint64(head + len(code))
	b = le.AppendUint32(b, 1) // load
	b = le.AppendUint32(b, 5) // read, execute
	for _, v := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}

func (a attack) write(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "attack")
	if err := os.WriteFile(path, a.elf(), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// outcome says how a program ended.
func outcome(code int, sig syscall.Signal) string {
	if sig != 0 {
		return sig.String()
	}
	return fmt.Sprintf("errno %d", code)
}

const i386Gate = "the i386 system call gate (CONFIG_IA32_EMULATION)"

func TestAttacksOnDockersProfile(t *testing.T) {
	f, err := Compile(docker(t, "CAP_CHOWN", "CAP_NET_RAW"))
	if err != nil {
		t.Fatal(err)
	}
	allow, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}})
	if err != nil {
		t.Fatal(err)
	}
	const newUser = unix.CLONE_NEWUSER
	none := ^uint64(0) // as a file descriptor or pointer: the call itself can only fail
	for _, c := range []struct {
		name     string
		a        attack
		want     string
		unlocked string // without the profile, "" where it depends on the machine
	}{
		{"getpid", attack{nr: unix.SYS_GETPID}, "errno 0", "errno 0"},
		{"keyctl", attack{nr: unix.SYS_KEYCTL, args: [6]uint64{0, 0xfffffffd}}, "errno 1", ""},
		{"add_key", attack{nr: unix.SYS_ADD_KEY, args: [6]uint64{none, none}}, "errno 1", ""},
		{"clone with a user namespace", attack{nr: unix.SYS_CLONE, args: [6]uint64{newUser | 17}}, "errno 1", ""},
		{"clone with high bits beside it", attack{nr: unix.SYS_CLONE, args: [6]uint64{1<<63 | newUser | 17}}, "errno 1", ""},
		{"clone3", attack{nr: unix.SYS_CLONE3, args: [6]uint64{none, 64}}, "errno 38", "errno 14"},
		{"unshare", attack{nr: unix.SYS_UNSHARE, args: [6]uint64{newUser}}, "errno 1", ""},
		{"setns", attack{nr: unix.SYS_SETNS, args: [6]uint64{none}}, "errno 1", "errno 9"},
		{"mount", attack{nr: unix.SYS_MOUNT, args: [6]uint64{none, none}}, "errno 1", "errno 14"},
		{"open_by_handle_at", attack{nr: unix.SYS_OPEN_BY_HANDLE_AT, args: [6]uint64{none, none}}, "errno 1", ""},
		{"bpf", attack{nr: unix.SYS_BPF, args: [6]uint64{999}}, "errno 1", ""},
		{"userfaultfd", attack{nr: unix.SYS_USERFAULTFD, args: [6]uint64{none}}, "errno 1", ""},
		{"io_uring_setup", attack{nr: unix.SYS_IO_URING_SETUP}, "errno 1", ""},
		{"kexec_load", attack{nr: unix.SYS_KEXEC_LOAD}, "errno 1", ""},
		{"init_module", attack{nr: unix.SYS_INIT_MODULE}, "errno 1", ""},
		{"socket AF_UNIX", attack{nr: unix.SYS_SOCKET, args: [6]uint64{unix.AF_UNIX, unix.SOCK_STREAM}}, "errno 0", "errno 0"},
		{"socket AF_ALG", attack{nr: unix.SYS_SOCKET, args: [6]uint64{unix.AF_ALG, unix.SOCK_SEQPACKET}}, "errno 1", ""},
		{"socket AF_VSOCK", attack{nr: unix.SYS_SOCKET, args: [6]uint64{unix.AF_VSOCK, unix.SOCK_STREAM}}, "errno 1", ""},
		{"personality with randomisation off", attack{nr: unix.SYS_PERSONALITY, args: [6]uint64{0x0040000}}, "errno 1", "errno 0"},
		{"personality PER_LINUX32", attack{nr: unix.SYS_PERSONALITY, args: [6]uint64{8}}, "errno 0", "errno 0"},
		{"a call of a future kernel", attack{nr: 900}, "errno 38", "errno 38"},
		{"x32 keyctl", attack{nr: x32Bit | unix.SYS_KEYCTL, args: [6]uint64{0, 0xfffffffd}}, "errno 1", ""},
		{"x32 by an x86_64 number", attack{nr: x32Bit | 520}, "", ""},
		{"i386 getpid", attack{int80: true, nr: 20}, "errno 0", "errno 0"},
		{"i386 keyctl", attack{int80: true, nr: 288, args: [6]uint64{0, 0xfffffffd}}, "errno 1", ""},
		{"i386 clone with a user namespace", attack{int80: true, nr: 120, args: [6]uint64{newUser | 17}}, "errno 1", ""},
		{"i386 mount", attack{int80: true, nr: 21, args: [6]uint64{none, none}}, "errno 1", "errno 14"},
		{"i386 socket AF_ALG", attack{int80: true, nr: 359, args: [6]uint64{unix.AF_ALG, unix.SOCK_SEQPACKET}}, "errno 1", ""},
		{"i386 clone3", attack{int80: true, nr: 435, args: [6]uint64{none, 64}}, "errno 38", "errno 14"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := c.a.write(t)
			_, code, sig := confined(t, allow, path)
			if c.a.int80 && sig == syscall.SIGSEGV {
				t.Skip("needs " + i386Gate)
			}
			if free := outcome(code, sig); c.unlocked != "" && free != c.unlocked {
				t.Errorf("unconfined: %s, want %s", free, c.unlocked)
			}
			_, code, sig = confined(t, f, path)
			if got := outcome(code, sig); c.want != "" && got != c.want {
				t.Errorf("confined: %s, want %s", got, c.want)
			}
		})
	}
}

// A profile that names x86_64 alone must not be left through the side doors of the same machine.
func TestAttacksThroughOtherABIs(t *testing.T) {
	f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64}, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"mkdir"}, Action: specs.ActErrno, ErrnoRet: ptr(uint(99))},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		a    attack
		want string
	}{
		{"the call itself", attack{nr: unix.SYS_MKDIR}, "errno 99"},
		{"with high bits in the register", attack{nr: unix.SYS_MKDIR, args: [6]uint64{1 << 40}}, "errno 99"},
		{"x32", attack{nr: x32Bit | unix.SYS_MKDIR}, "bad system call"},
		{"i386", attack{int80: true, nr: 39}, "bad system call"},
		{"number -1", attack{nr: 0xffffffff}, "errno 38"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := c.a.write(t)
			if err := checkGate(t, c.a); err != "" {
				t.Skip("needs " + err)
			}
			_, code, sig := confined(t, f, path)
			if got := outcome(code, sig); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func checkGate(t *testing.T, a attack) string {
	if !a.int80 {
		return ""
	}
	allow, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, sig := confined(t, allow, a.write(t)); sig == syscall.SIGSEGV {
		return i386Gate
	}
	return ""
}

// A rule for a socket call must also hold where i386 programs go through socketcall(2).
func TestAttackThroughSocketcall(t *testing.T) {
	f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86}, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"socket"}, Action: specs.ActErrno, ErrnoRet: ptr(uint(97)), Args: []specs.LinuxSeccompArg{arg(0, specs.OpEqualTo, unix.AF_ALG)}},
		{Names: []string{"semget"}, Action: specs.ActErrno, ErrnoRet: ptr(uint(98))},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for want, a := range map[string]attack{
		"errno 97": {int80: true, nr: 102, args: [6]uint64{1}},
		"errno 22": {int80: true, nr: 102, args: [6]uint64{99}},
		"errno 98": {int80: true, nr: 117, args: [6]uint64{0x10002}}, // ipc(2) with a version in the upper half
	} {
		if gate := checkGate(t, a); gate != "" {
			t.Skip("needs " + gate)
		}
		_, code, sig := confined(t, f, a.write(t))
		if got := outcome(code, sig); got != want {
			t.Errorf("%v: %s, want %s", a, got, want)
		}
	}
}

func TestKillActions(t *testing.T) {
	for _, act := range []specs.LinuxSeccompAction{specs.ActKill, specs.ActKillThread, specs.ActKillProcess, specs.ActTrap} {
		f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: act}}})
		if err != nil {
			t.Fatal(err)
		}
		_, code, sig := confined(t, f, attack{nr: unix.SYS_MKDIR}.write(t))
		if sig != syscall.SIGSYS {
			t.Errorf("%s: %s, want a SIGSYS", act, outcome(code, sig))
		}
	}
}

// The profile must also hold for whoever has the capability that opens it.
func TestCapabilitiesOpenTheProfile(t *testing.T) {
	p, err := moby.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_SYS_ADMIN"}}}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	for want, a := range map[string]attack{
		"errno 14": {nr: unix.SYS_MOUNT, args: [6]uint64{^uint64(0), ^uint64(0)}},
		"errno 1":  {nr: unix.SYS_KEYCTL, args: [6]uint64{0, 0xfffffffd}},
	} {
		_, code, sig := confined(t, f, a.write(t))
		if got := outcome(code, sig); got != want {
			t.Errorf("%v: %s, want %s", a, got, want)
		}
	}
}

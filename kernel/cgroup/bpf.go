package cgroup

import (
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DeviceProgram is the BPF program (BPF_PROG_TYPE_CGROUP_DEVICE, Linux 4.15) that decides device accesses
// in a v2 cgroup. The kernel runs it with a context of three words: access<<16|kind, major, minor; it
// returns 1 to allow.
//
// The rules are tested from the last to the first. A register holds the accesses that no rule has
// allowed yet: an allowing rule that matches takes its own out, and when none is left the answer is yes;
// a denying rule that matches one of them is a no. So an open for reading and writing may be allowed by
// two rules, one for each.
type DeviceProgram struct {
	rules []rule
	code  []instruction
}

// instruction is the kernel's struct bpf_insn; registers are two nibbles, destination low.
type instruction struct {
	op   uint8
	regs uint8
	off  int16
	imm  int32
}

// Opcodes, from class, operation and source as linux/bpf.h and bpf_common.h put them together.
const (
	opLoadW   = 0x61 // dst = *(u32 *)(src + off)
	opMovReg  = 0xbc // w dst = w src
	opMovImm  = 0xb4 // w dst = imm
	opAndImm  = 0x54 // w dst &= imm
	opRshImm  = 0x74 // w dst >>= imm
	opJneImm  = 0x56 // if w dst != imm goto
	opJeqImm  = 0x16 // if w dst == imm goto
	opExit    = 0x95
	regResult = 0 // r0
	regCtx    = 1
	regKind   = 2
	regLeft   = 3 // accesses no rule has allowed yet
	regMajor  = 4
	regMinor  = 5

	kindBlock = 1
	kindChar  = 2
)

func compileDevices(rules []rule) *DeviceProgram {
	p := &DeviceProgram{rules: rules, code: make([]instruction, 0, 8+7*len(rules))}
	p.emit(opLoadW, regKind, regCtx, 0, 0)
	p.emit(opMovReg, regLeft, regKind, 0, 0)
	p.emit(opRshImm, regLeft, 0, 0, 16)
	p.emit(opAndImm, regKind, 0, 0, 0xffff)
	p.emit(opLoadW, regMajor, regCtx, 4, 0)
	p.emit(opLoadW, regMinor, regCtx, 8, 0)
	for i := len(rules) - 1; i >= 0; i-- {
		if rules[i].everything() {
			p.answer(rules[i].allow)
			return p
		}
		p.rule(rules[i])
	}
	p.answer(false)
	return p
}

func (p *DeviceProgram) rule(r rule) {
	var jumps [4]int // instructions that go to the next rule; their offset is not known yet
	n := 0
	skipUnless := func(reg uint8, value int32) {
		jumps[n] = len(p.code)
		n++
		p.emit(opJneImm, reg, 0, 0, value)
	}
	switch r.kind {
	case 'b':
		skipUnless(regKind, kindBlock)
	case 'c':
		skipUnless(regKind, kindChar)
	}
	if r.major != wild {
		skipUnless(regMajor, int32(uint32(r.major)))
	}
	if r.minor != wild {
		skipUnless(regMinor, int32(uint32(r.minor)))
	}
	switch {
	case r.allow && r.access == allAccess:
		p.answer(true)
	case r.allow:
		p.emit(opAndImm, regLeft, 0, 0, int32(allAccess&^r.access))
		skipUnless(regLeft, 0)
		p.answer(true)
	case r.access == allAccess:
		p.answer(false)
	default:
		p.emit(opMovReg, regResult, regLeft, 0, 0)
		p.emit(opAndImm, regResult, 0, 0, int32(r.access))
		jumps[n] = len(p.code)
		n++
		p.emit(opJeqImm, regResult, 0, 0, 0)
		p.answer(false)
	}
	for _, at := range jumps[:n] {
		p.code[at].off = int16(len(p.code) - at - 1)
	}
}

func (p *DeviceProgram) answer(allow bool) {
	v := int32(0)
	if allow {
		v = 1
	}
	p.emit(opMovImm, regResult, 0, 0, v)
	p.emit(opExit, 0, 0, 0, 0)
}

func (p *DeviceProgram) emit(op, dst, src uint8, off int16, imm int32) {
	p.code = append(p.code, instruction{op, src<<4 | dst, off, imm})
}

// String lists the rules in their order; the last that matches decides.
func (p *DeviceProgram) String() string {
	var b strings.Builder
	for _, r := range p.rules {
		b.WriteString(r.String() + "\n")
	}
	return b.String()
}

// Disassemble prints the instructions, one a line, for people and golden files.
func (p *DeviceProgram) Disassemble() string {
	names := [...]string{"result", "ctx", "kind", "left", "major", "minor"}
	var b strings.Builder
	for i, in := range p.code {
		dst, src := names[in.regs&15], names[in.regs>>4]
		target := itoa(int64(i) + int64(in.off) + 1)
		b.WriteString(itoa(int64(i)) + ": ")
		switch in.op {
		case opLoadW:
			b.WriteString(dst + " = " + src + "[" + itoa(int64(in.off)) + "]")
		case opMovReg:
			b.WriteString(dst + " = " + src)
		case opMovImm:
			b.WriteString(dst + " = " + itoa(int64(in.imm)))
		case opAndImm:
			b.WriteString(dst + " &= " + itoa(int64(in.imm)))
		case opRshImm:
			b.WriteString(dst + " >>= " + itoa(int64(in.imm)))
		case opJneImm:
			b.WriteString("if " + dst + " != " + utoa(uint64(uint32(in.imm))) + " goto " + target)
		case opJeqImm:
			b.WriteString("if " + dst + " == " + utoa(uint64(uint32(in.imm))) + " goto " + target)
		case opExit:
			b.WriteString("exit")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// programName marks our programs among others that are attached to a cgroup (systemd's, say).
const programName = "berth_devices"

const (
	bpfProgLoad    = 5
	bpfProgAttach  = 8
	bpfProgDetach  = 9
	bpfFDByID      = 13
	bpfObjInfo     = 15
	bpfProgQuery   = 16
	typeDevice     = 15 // BPF_PROG_TYPE_CGROUP_DEVICE
	attachDevice   = 6  // BPF_CGROUP_DEVICE
	flagAllowMulti = 2
	flagReplace    = 4 // Linux 5.6
)

func bpf(cmd uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		n, _, e := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
		switch e {
		case 0:
			return int(n), nil
		case unix.EINTR, unix.EAGAIN: // the verifier gives up for a pending signal
		default:
			return -1, e
		}
	}
}

// load has the kernel verify the program; the result is a descriptor to close.
func (p *DeviceProgram) load() (int, error) {
	license := [...]byte{'A', 'p', 'a', 'c', 'h', 'e', 0}
	attr := struct {
		kind, count        uint32
		code, license      unsafe.Pointer
		logLevel, logSize  uint32
		logBuf             uint64
		kernVersion, flags uint32
		name               [16]byte
		ifindex, attach    uint32
	}{
		kind:    typeDevice,
		count:   uint32(len(p.code)),
		code:    unsafe.Pointer(unsafe.SliceData(p.code)),
		license: unsafe.Pointer(&license),
		attach:  attachDevice,
	}
	copy(attr.name[:], programName)
	fd, err := bpf(bpfProgLoad, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err == unix.EPERM && raiseMemlock() {
		fd, err = bpf(bpfProgLoad, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	}
	runtime.KeepAlive(p)
	return fd, err
}

// raiseMemlock lifts the limit that kernels before 5.11 charge BPF memory to.
func raiseMemlock() bool {
	const enough = 64 << 20
	var old unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &old) != nil || old.Cur >= enough {
		return false
	}
	return unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: enough, Max: max(old.Max, enough)}) == nil
}

// attach puts the program on the cgroup directory, in the place of an earlier one of ours. Programs of
// others stay: the kernel runs all and takes the strictest answer.
func (p *DeviceProgram) attach(dir string) error {
	fd, err := p.load()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	target, err := open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	ours := attached(target)
	defer func() {
		for _, old := range ours {
			unix.Close(old)
		}
	}()
	if len(ours) == 0 {
		return attachCall(bpfProgAttach, target, fd, flagAllowMulti, 0)
	}
	if err := attachCall(bpfProgAttach, target, fd, flagAllowMulti|flagReplace, ours[0]); err != nil {
		return err
	}
	for _, old := range ours[1:] {
		if err := attachCall(bpfProgDetach, target, old, 0, 0); err != nil {
			return err
		}
	}
	return nil
}

func attachCall(cmd uintptr, target, prog int, flags uint32, replace int) error {
	attr := struct{ target, prog, kind, flags, replace uint32 }{
		uint32(target), uint32(prog), attachDevice, flags, uint32(replace),
	}
	_, err := bpf(cmd, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// attached gives descriptors of our programs on the cgroup.
func attached(target int) []int {
	var ids [64]uint32
	query := struct {
		target, kind, flags, attachFlags uint32
		ids                              unsafe.Pointer
		count, pad                       uint32
	}{target: uint32(target), kind: attachDevice, ids: unsafe.Pointer(&ids), count: uint32(len(ids))}
	if _, err := bpf(bpfProgQuery, unsafe.Pointer(&query), unsafe.Sizeof(query)); err != nil {
		return nil
	}
	var fds []int
	for _, id := range ids[:min(int(query.count), len(ids))] {
		attr := struct{ id, next, flags uint32 }{id: id}
		fd, err := bpf(bpfFDByID, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
		if err != nil {
			continue
		}
		if name(fd) != programName {
			unix.Close(fd)
			continue
		}
		fds = append(fds, fd)
	}
	return fds
}

// name reads a program's name from the start of struct bpf_prog_info (name is 64 bytes in).
func name(fd int) string {
	var info [80]byte
	attr := struct {
		fd, size uint32
		info     unsafe.Pointer
	}{uint32(fd), uint32(len(info)), unsafe.Pointer(&info)}
	if _, err := bpf(bpfObjInfo, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return ""
	}
	return unix.ByteSliceToString(info[64:])
}

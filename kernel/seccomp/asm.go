package seccomp

import "encoding/binary"

// insn is struct sock_filter of linux/filter.h.
type insn struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

// The instructions in use. All but AND on the number keep within what the kernel can evaluate
// beforehand (seccomp_is_const_allow, Linux 5.11), so that a call whose verdict depends on its
// number alone is answered from a bitmap and never runs the filter.
const (
	opLoad = 0x20 // A = seccomp_data[k], a 32 bit word
	opAnd  = 0x54 // A &= k
	opJump = 0x05 // skip k
	opJEq  = 0x15 // A == k ? jt : jf
	opJGt  = 0x25
	opJGe  = 0x35
	opJSet = 0x45 // A & k != 0
	opRet  = 0x06 // the verdict is k
)

// maxInsns is BPF_MAXINSNS.
const maxInsns = 4096

// farthest is how far a conditional jump can reach.
const farthest = 255

// Offsets in struct seccomp_data of linux/seccomp.h.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// target is where a jump may go: a verdict, or code already emitted.
type target struct {
	ret bool
	k   uint32 // the verdict, when ret
	at  int    // else: how many instructions from there to the end of the program, it included
}

func verdictTarget(k uint32) target { return target{ret: true, k: k} }

// asm builds a program from its end to its beginning: classic BPF only jumps forwards, so what a jump
// leads to is always there already, its distance is known, and a verdict out of reach is simply
// returned once more nearby.
type asm struct {
	out  []insn // backwards: out[0] is the last instruction
	near []spot // the nearest place known to lead to each target
}

// spot remembers that a target can be reached at a place.
type spot struct {
	to target
	at int
}

// branch emits a conditional jump and gives its place.
func (a *asm) branch(op uint16, k uint32, yes, no target) target {
	if yes == no {
		return yes
	}
	y := a.reach(yes)
	n := a.reach(no)
	return a.emit(insn{op, uint8(len(a.out) - y), uint8(len(a.out) - n), k})
}

// load emits A = the word at off, going on with next.
func (a *asm) load(off uint32, next target) target { return a.before(insn{code: opLoad, k: off}, next) }

// and emits A &= mask, going on with next.
func (a *asm) and(mask uint32, next target) target { return a.before(insn{code: opAnd, k: mask}, next) }

// before emits an instruction that falls through to next. A verdict needs no preparation.
func (a *asm) before(i insn, next target) target {
	if next.ret {
		return next
	}
	if next.at != len(a.out) {
		a.emit(insn{code: opJump, k: uint32(len(a.out) - next.at)})
	}
	return a.emit(i)
}

// reach gives a place that leads to the target and stays within a conditional jump's reach even if
// one more instruction comes between, and emits a copy or a long jump if there is none.
func (a *asm) reach(to target) int {
	for i := range a.near {
		if s := &a.near[i]; s.to == to {
			if len(a.out)-s.at+1 > farthest {
				s.at = a.lead(to)
			}
			return s.at
		}
	}
	at := to.at
	if to.ret || len(a.out)-at+1 > farthest {
		at = a.lead(to)
		a.near = append(a.near, spot{to, at})
	}
	return at
}

func (a *asm) lead(to target) int {
	if to.ret {
		return a.emit(insn{code: opRet, k: to.k}).at
	}
	return a.emit(insn{code: opJump, k: uint32(len(a.out) - to.at)}).at
}

func (a *asm) emit(i insn) target {
	a.out = append(a.out, i)
	return target{at: len(a.out)}
}

// finish makes start the program's beginning and gives its bytes in this machine's byte order.
func (a *asm) finish(start target) []byte {
	if start.ret || start.at != len(a.out) {
		a.lead(start)
	}
	b := make([]byte, 0, 8*len(a.out))
	for n := len(a.out) - 1; n >= 0; n-- {
		i := a.out[n]
		b = binary.NativeEndian.AppendUint16(b, i.code)
		b = append(b, i.jt, i.jf)
		b = binary.NativeEndian.AppendUint32(b, i.k)
	}
	return b
}

// insns decodes a program's bytes; a rest of less than eight bytes is ignored.
func insns(code []byte) []insn {
	out := make([]insn, 0, len(code)/8)
	for ; len(code) >= 8; code = code[8:] {
		out = append(out, insn{binary.NativeEndian.Uint16(code), code[2], code[3], binary.NativeEndian.Uint32(code[4:])})
	}
	return out
}

package seccomp

import "berth/base/fault"

// Data is struct seccomp_data of linux/seccomp.h: what a filter sees of a system call.
type Data struct {
	Number uint32
	Arch   uint32 // AUDIT_ARCH_*
	IP     uint64
	Args   [6]uint64
}

// word gives the 32 bits at an offset, for a kernel of either byte order.
func (d *Data) word(off uint32, big bool) (uint32, bool) {
	switch {
	case off%4 != 0 || off >= 64:
		return 0, false
	case off == offNumber:
		return d.Number, true
	case off == offArch:
		return d.Arch, true
	}
	v := d.IP
	if off >= offArgs {
		v = d.Args[(off-offArgs)/8]
	}
	if (off%8 == 4) != big {
		return uint32(v >> 32), true
	}
	return uint32(v), true
}

// Run evaluates the filter on a system call as the kernel would and gives the verdict. It takes the
// byte order from the audit architecture. A program outside the subset that Compile emits is an error.
func (f *Filter) Run(d Data) (uint32, error) { return run(insns(f.Code), d) }

func run(prog []insn, d Data) (uint32, error) {
	big := d.Arch&auditLE == 0
	var acc uint32
	for pc := 0; pc < len(prog); pc++ {
		i := prog[pc]
		take := false
		switch i.code {
		case opRet:
			return i.k, nil
		case opJump:
			if i.k > maxInsns {
				return 0, fault.New(fault.Invalid, "instruction %d jumps out of the program", pc)
			}
			pc += int(i.k)
			continue
		case opAnd:
			acc &= i.k
			continue
		case opLoad:
			w, ok := d.word(i.k, big)
			if !ok {
				return 0, fault.New(fault.Invalid, "instruction %d loads from offset %d", pc, i.k)
			}
			acc = w
			continue
		case opJEq:
			take = acc == i.k
		case opJGt:
			take = acc > i.k
		case opJGe:
			take = acc >= i.k
		case opJSet:
			take = acc&i.k != 0
		default:
			return 0, fault.New(fault.Invalid, "instruction %d has unknown code %#x", pc, i.code)
		}
		if take {
			pc += int(i.jt)
		} else {
			pc += int(i.jf)
		}
	}
	return 0, fault.New(fault.Invalid, "the program ends without a verdict")
}

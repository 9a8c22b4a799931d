package seccomp

import (
	"fmt"
	"strings"
)

// String prints the filter, one instruction a line, with jump targets as line numbers and the names of
// architectures and system calls beside their numbers.
func (f *Filter) String() string {
	prog := insns(f.Code)
	facts := follow(prog)
	var b strings.Builder
	for pc, i := range prog {
		fmt.Fprintf(&b, "%4d: %s", pc, i.text(pc, facts[pc]))
		if note := i.note(facts[pc]); note != "" {
			fmt.Fprintf(&b, "  # %s", note)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// fact is what is known before an instruction: the word that A holds and the audit architecture.
type fact struct {
	reached bool
	loaded  int // offset in seccomp_data, -1 unknown
	audit   uint32
}

// follow carries facts along the jumps; the first way to an instruction decides.
func follow(prog []insn) []fact {
	facts := make([]fact, len(prog)+1)
	facts[0] = fact{true, -1, 0}
	tell := func(pc int, f fact) {
		if pc < len(facts) && !facts[pc].reached {
			facts[pc] = f
		}
	}
	for pc, i := range prog {
		f := facts[pc]
		f.reached = true
		switch i.code {
		case opRet:
		case opLoad:
			f.loaded = int(i.k)
			tell(pc+1, f)
		case opAnd:
			f.loaded = -1
			tell(pc+1, f)
		case opJump:
			if i.k < maxInsns {
				tell(pc+1+int(i.k), f)
			}
		default:
			yes := f
			if i.code == opJEq && f.loaded == offArch {
				yes.audit = i.k
			}
			tell(pc+1+int(i.jt), yes)
			tell(pc+1+int(i.jf), f)
		}
	}
	return facts
}

func (i insn) text(pc int, f fact) string {
	op := ""
	switch i.code {
	case opLoad:
		return "load " + place(i.k, f.audit)
	case opAnd:
		return fmt.Sprintf("and  %#x", i.k)
	case opRet:
		return "ret  " + Verdict(i.k)
	case opJump:
		return fmt.Sprintf("jump -> %d", pc+1+int(i.k))
	case opJEq:
		op = "jeq "
	case opJGt:
		op = "jgt "
	case opJGe:
		op = "jge "
	case opJSet:
		op = "jset"
	default:
		return fmt.Sprintf("code %#x jt %d jf %d k %#x", i.code, i.jt, i.jf, i.k)
	}
	k := fmt.Sprintf("%#x", i.k)
	if f.loaded == offNumber && f.audit != 0 {
		k = fmt.Sprint(i.k)
	}
	return fmt.Sprintf("%s %s -> %d else %d", op, k, pc+1+int(i.jt), pc+1+int(i.jf))
}

// note names the architecture or the system call that an instruction compares with.
func (i insn) note(f fact) string {
	switch {
	case i.code != opJEq && i.code != opJGe:
		return ""
	case f.loaded == offArch:
		return archName(i.k)
	case f.loaded != offNumber || f.audit == 0:
		return ""
	}
	for n := range abis {
		b := &abis[n]
		if b.audit == f.audit && (b.table == tableX32) == (i.k >= x32Bit) {
			return Name(b.name, i.k)
		}
	}
	return ""
}

// archName gives the libseccomp names that share an audit architecture, in lower case.
func archName(audit uint32) string {
	var names []string
	for _, b := range abis {
		if b.audit == audit {
			names = append(names, strings.ToLower(strings.TrimPrefix(string(b.name), "SCMP_ARCH_")))
		}
	}
	return strings.Join(names, ", ")
}

// place names a word of seccomp_data.
func place(off, audit uint32) string {
	switch {
	case off == offNumber:
		return "number"
	case off == offArch:
		return "arch"
	case off >= offArgs && off < 64 && off%4 == 0:
		half := "low"
		if (off%8 == 4) != (audit&auditLE == 0) {
			half = "high"
		}
		return fmt.Sprintf("args[%d].%s", (off-offArgs)/8, half)
	}
	return fmt.Sprintf("[%d]", off)
}

package seccomp

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// comparison of an argument with a value; not turns EQ, GT and GE into NE, LE and LT.
type comparison uint8

const (
	cmpEq comparison = iota
	cmpGt
	cmpGe
)

// cond is one condition on an argument: (arg & mask) cmp value, perhaps negated. Only cmpEq has a
// mask other than all ones.
type cond struct {
	arg   uint8
	cmp   comparison
	not   bool
	mask  uint64
	value uint64
}

const ones = ^uint64(0)

// condition translates a profile's condition. Bits of the value outside the mask are ignored, as
// libseccomp does.
func condition(a specs.LinuxSeccompArg) (cond, error) {
	if a.Index > 5 {
		return cond{}, fault.New(fault.Invalid, "argument index %d: a system call has arguments 0 to 5", a.Index)
	}
	c := cond{arg: uint8(a.Index), mask: ones, value: a.Value}
	switch a.Op {
	case specs.OpEqualTo:
	case specs.OpNotEqual:
		c.not = true
	case specs.OpGreaterThan:
		c.cmp = cmpGt
	case specs.OpLessEqual:
		c.cmp, c.not = cmpGt, true
	case specs.OpGreaterEqual:
		c.cmp = cmpGe
	case specs.OpLessThan:
		c.cmp, c.not = cmpGe, true
	case specs.OpMaskedEqual:
		c.mask, c.value = a.Value, a.ValueTwo&a.Value
	default:
		return cond{}, fault.New(fault.Invalid, "unknown operator %q", a.Op)
	}
	return c, nil
}

// rule is an action that applies when all conditions hold.
type rule struct {
	conds  []cond
	action uint32
	order  int // place in the profile: among rules for one call the first that matches wins
}

// manyRules is where argument tests stop remembering across rules what they learned: up to there
// memory makes the code shorter, beyond it could multiply the paths.
const manyRules = 24

// argTests emits the tests of one verdict for one ABI.
type argTests struct {
	*asm
	abi   *abi
	rules []rule
	deflt uint32 // when no rule matches

	forgetful bool // nothing learned in one rule is used in the next
	done      map[known]target
}

// known is a point in the tests, together with what is known there about the arguments.
type known struct {
	rule, cond int
	low        bool  // the high word of the condition is dealt with
	reg        int   // what A holds: 0 nothing of use, else 1 + 2*argument + (1 for the high word)
	arg        uint8 // the argument of which the high word lies within [min, max]
	min, max   uint32
}

// emitArgs emits the tests and gives their entry.
func (a *asm) emitArgs(b *abi, rules []rule, deflt uint32, forgetful bool) target {
	t := argTests{a, b, rules, deflt, forgetful || len(rules) > manyRules, map[known]target{}}
	return t.at(known{max: ^uint32(0)})
}

// at gives the code that goes on from a point. Code for what follows is emitted before, since the
// program grows backwards; equal points share their code.
func (t *argTests) at(k known) target {
	if k.rule == len(t.rules) || len(t.out) > maxInsns { // too long is told by the caller

		return verdictTarget(t.deflt)
	}
	r := &t.rules[k.rule]
	if k.cond == len(r.conds) {
		return verdictTarget(r.action)
	}
	if to, ok := t.done[k]; ok {
		return to
	}
	c := &r.conds[k.cond]
	var to target
	if t.abi.wide && !k.low {
		to = t.high(k, c)
	} else {
		to = t.lowWord(k, c)
	}
	t.done[k] = to
	return to
}

// settled goes on after a condition turned out to be whether.
func (t *argTests) settled(k known, c *cond, whether bool) target {
	k.low = false
	if whether != c.not {
		k.cond++
		return t.at(k)
	}
	k.rule, k.cond = k.rule+1, 0
	if t.forgetful {
		k.reg, k.arg, k.min, k.max = 0, 0, 0, ^uint32(0)
	}
	return t.at(k)
}

// high tests the high word as far as the condition depends on it.
func (t *argTests) high(k known, c *cond) target {
	mask, v := uint32(c.mask>>32), uint32(c.value>>32)
	if k.arg != c.arg {
		k.arg, k.min, k.max = c.arg, 0, ^uint32(0)
	}
	same := k
	same.low, same.min, same.max = true, v, v
	switch {
	case mask == 0:
		k.low = true
		return t.at(k)
	case mask != ^uint32(0):
		return t.masked(k, c, mask, v, true)
	case k.min == v && k.max == v:
		k.low = true
		return t.at(k)
	case v < k.min:
		return t.settled(k, c, c.cmp != cmpEq)
	case v > k.max:
		return t.settled(k, c, false)
	}
	word := t.word(c.arg, true)
	if k.reg != word {
		k.reg = word
		return t.load(t.offset(word), t.at(k))
	}
	same.reg = word
	above, below := k, k
	above.min, below.max = v+1, v-1
	switch {
	case v == k.min: // below is empty
		return t.branch(opJEq, v, t.at(same), t.settled(above, c, c.cmp != cmpEq))
	case v == k.max: // above is empty
		return t.branch(opJEq, v, t.at(same), t.settled(below, c, false))
	case c.cmp == cmpEq:
		return t.branch(opJEq, v, t.at(same), t.settled(k, c, false))
	}
	over := t.settled(above, c, true)
	rest := t.branch(opJEq, v, t.at(same), t.settled(below, c, false))
	return t.branch(opJGt, v, over, rest)
}

// lowWord tests the low word, the only one a narrow ABI has.
func (t *argTests) lowWord(k known, c *cond) target {
	mask, v := uint32(c.mask), uint32(c.value)
	switch {
	case mask == 0, c.cmp == cmpGe && v == 0:
		return t.settled(k, c, true)
	case c.cmp == cmpGt && v == ^uint32(0):
		return t.settled(k, c, false)
	case mask != ^uint32(0):
		return t.masked(k, c, mask, v, false)
	}
	word := t.word(c.arg, false)
	if k.reg != word {
		k.reg = word
		return t.load(t.offset(word), t.at(k))
	}
	op := [...]uint16{cmpEq: opJEq, cmpGt: opJGt, cmpGe: opJGe}[c.cmp]
	return t.branch(op, v, t.settled(k, c, true), t.settled(k, c, false))
}

// masked tests some bits of a word.
func (t *argTests) masked(k known, c *cond, mask, v uint32, high bool) target {
	word := t.word(c.arg, high)
	if k.reg != word {
		k.reg = word
		return t.load(t.offset(word), t.at(k))
	}
	hit := func(k known) target {
		if high {
			k.low = true
			return t.at(k)
		}
		return t.settled(k, c, true)
	}
	if v == 0 {
		return t.branch(opJSet, mask, t.settled(k, c, false), hit(k))
	}
	if v == mask && v&(v-1) == 0 {
		return t.branch(opJSet, mask, hit(k), t.settled(k, c, false))
	}
	k.reg = 0 // AND spoils A
	return t.and(mask, t.branch(opJEq, v, hit(k), t.settled(k, c, false)))
}

func (t *argTests) word(arg uint8, high bool) int {
	w := 1 + 2*int(arg)
	if high {
		w++
	}
	return w
}

// offset gives where in seccomp_data a word lies; the high word comes first on big endian machines.
func (t *argTests) offset(word int) uint32 {
	arg, high := uint32(word-1)/2, (word-1)%2 == 1
	if high != t.abi.big {
		return offArgs + 8*arg + 4
	}
	return offArgs + 8*arg
}

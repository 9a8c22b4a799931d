package seccomp

import "slices"

// span is a range of numbers with one verdict; it ends where the next begins.
type span struct {
	first   uint32
	verdict uint16
	abi     *abi // whose argument tests apply; nil for an unconditional verdict
}

// tree emits the search for the verdict on a number of one audit architecture.
func (c *compiler) tree(a *asm, audit uint32) target {
	spans := c.spans(audit)
	leaves := c.leaves(a, spans)
	groups := group(spans, leaves)
	return search(a, groups)
}

// spans gives the verdicts of all numbers of an audit architecture, in order.
func (c *compiler) spans(audit uint32) []span {
	out := make([]span, 0, 256)
	add := func(first uint32, v uint16, b *abi) {
		if c.verdicts[v].rules == nil {
			b = nil
		}
		if n := len(out); n > 0 && out[n-1].first == first {
			out = out[:n-1]
		}
		if n := len(out); n > 0 && out[n-1].abi == b && (out[n-1].verdict == v || b == nil && c.verdicts[out[n-1].verdict].action == c.verdicts[v].action) {
			return
		}
		out = append(out, span{first, v, b})
	}
	low, x32 := c.find(audit, false), c.find(audit, true)
	if low != nil {
		c.abiSpans(low, add)
	} else {
		add(0, badArch, nil)
	}
	switch {
	case x32 != nil:
		c.abiSpans(x32, add)
	case audit == abiOf("SCMP_ARCH_X86_64").audit:
		add(x32Bit, badArch, nil)
		// A tracer sets the number to -1 to have the call skipped; that is no x32 call.
		add(^uint32(0), byDefault, nil)
	}
	return out
}

// find gives the ABI of an audit architecture in the filter, x32 or the other one.
func (c *compiler) find(audit uint32, x32 bool) *abi {
	for _, b := range c.abis {
		if b.audit == audit && (b.table == tableX32) == x32 {
			return b
		}
	}
	return nil
}

// abiSpans adds one ABI's verdicts, from the ABI's first number upwards.
func (c *compiler) abiSpans(b *abi, add func(uint32, uint16, *abi)) {
	calls, highest := c.numbered(b)
	if b.base == x32Bit {
		add(x32Bit, byDefault, nil)
	} else {
		add(0, byDefault, nil)
	}
	if c.enosys && (b.table == tableS390 || b.table == tableS390X) {
		// A call number that does not fit svc's byte and that the kernel does not know arrives as 0,
		// setup(2), which nobody calls since Linux 2.0.
		add(0, noSuchCall, nil)
		add(1, byDefault, nil)
	}
	arm, end := b.table == tableARM, false
	for _, call := range calls {
		if arm && !end && call.nr >= armPrivate {
			end = true
			c.beyond(highest, add)
			add(armPrivate, byDefault, nil)
		}
		add(call.nr, call.verdict, b)
		add(call.nr+1, byDefault, nil)
	}
	if end {
		return
	}
	c.beyond(highest, add)
	if arm {
		add(armPrivate, byDefault, nil)
	}
}

// beyond adds what lies above the highest number the profile names.
func (c *compiler) beyond(highest uint32, add func(uint32, uint16, *abi)) {
	if c.enosys && highest != 0 {
		add(highest+1, noSuchCall, nil)
	}
}

// numberedCall is a call of one ABI with its verdict.
type numberedCall struct {
	nr      uint32
	verdict uint16
}

// Places in callTable: table numbers first, arm's private calls behind them.
const (
	tableSize   = 768
	privateSize = 8
)

// callTable has the verdict on each number of an ABI.
type callTable [tableSize + privateSize]uint16

// put gives a number its verdict; two names can stand for one number.
func (c *compiler) put(t *callTable, b *abi, nr uint32, v uint16) {
	at := nr - b.base
	if at >= armPrivate {
		at = at - armPrivate + tableSize
	}
	if t[at] == byDefault {
		t[at] = v
		return
	}
	t[at] = c.join([]uint16{t[at], v})
}

// numbered gives the ABI's calls that have a verdict, by number, and the highest number the profile
// names (0: none; arm's private calls do not count).
func (c *compiler) numbered(b *abi) (calls []numberedCall, highest uint32) {
	var table callTable
	for i := range c.calls {
		if !c.named[i] {
			continue
		}
		nr, ok := b.number(i)
		if !ok {
			continue
		}
		if nr > highest && (b.table != tableARM || nr < armPrivate) {
			highest = nr
		}
		if v := c.calls[i]; v != byDefault {
			c.put(&table, b, nr, v)
		}
	}
	c.multiplexed(b, &table)
	calls = make([]numberedCall, 0, len(table))
	for at, v := range table {
		switch {
		case v == byDefault:
		case at < tableSize:
			calls = append(calls, numberedCall{b.base + uint32(at), v})
		default:
			calls = append(calls, numberedCall{armPrivate + uint32(at-tableSize), v})
		}
	}
	return calls, highest
}

// leaves emits the argument tests and gives each span's target.
func (c *compiler) leaves(a *asm, spans []span) []target {
	type leaf struct {
		verdict uint16
		abi     *abi
		to      target
	}
	var done []leaf
	out := make([]target, len(spans))
	for i, s := range spans {
		v := &c.verdicts[s.verdict]
		if v.rules == nil {
			out[i] = verdictTarget(v.action)
			continue
		}
		n := slices.IndexFunc(done, func(l leaf) bool { return l.verdict == s.verdict && l.abi == s.abi })
		if n < 0 {
			done = append(done, leaf{s.verdict, s.abi, a.emitArgs(s.abi, v.rules, v.action, c.forgetful)})
			n = len(done) - 1
		}
		out[i] = done[n].to
	}
	return out
}

// maxHoles is how many single numbers one group sets apart: more make the program shorter and its
// longest path longer.
const maxHoles = 2

// cluster is a leaf of the tree: a range with one target but for a few single numbers.
type cluster struct {
	first uint32
	to    target
	holes []hole
}

type hole struct {
	nr uint32
	to target
}

// group gathers spans into clusters: a single number between two ranges of the same verdict costs one
// equality test instead of two comparisons.
func group(spans []span, leaves []target) []cluster {
	out := make([]cluster, 0, len(spans))
	for i := 0; i < len(spans); i++ {
		g := cluster{first: spans[i].first, to: leaves[i]}
		for len(g.holes) < maxHoles && i+2 < len(spans) && spans[i+2].first-spans[i+1].first == 1 && leaves[i+2] == g.to {
			g.holes = append(g.holes, hole{spans[i+1].first, leaves[i+1]})
			i += 2
		}
		out = append(out, g)
	}
	return out
}

// search emits a balanced binary search over the clusters.
func search(a *asm, groups []cluster) target {
	if len(groups) == 1 {
		to := groups[0].to
		for _, h := range slices.Backward(groups[0].holes) {
			to = a.branch(opJEq, h.nr, h.to, to)
		}
		return to
	}
	mid := len(groups) / 2
	right := search(a, groups[mid:])
	left := search(a, groups[:mid])
	return a.branch(opJGe, groups[mid].first, right, left)
}

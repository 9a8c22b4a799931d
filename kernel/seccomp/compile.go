package seccomp

import (
	"fmt"
	"slices"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// Filter is a compiled profile.
type Filter struct {
	Code   []byte // struct sock_filter[], in this machine's byte order
	Flags  uint   // for seccomp(2), NEW_LISTENER included when Notify
	Notify bool   // some call waits for an agent: seccomp(2) returns a listener's descriptor

	ListenerPath     string // the agent's socket, which is sent the listener
	ListenerMetadata string // passed on to the agent as it is
}

// Compile makes the filter of a profile for this machine. Errors are of kind Invalid and name the rule.
//
// What a profile means:
//
//   - The native architecture always belongs to the filter. A call of an architecture that the profile
//     does not name kills the thread, an x32 call where only x86_64 is named included.
//   - Names that no architecture has, or this one has not, are ignored. A rule that repeats the default
//     action is dropped.
//   - Conditions of a rule must all hold, unless two are about the same argument: then each stands
//     alone (runc's reading, which profiles rely on).
//   - A rule without conditions outweighs all with conditions for the same call; of several such the
//     first counts. Among rules with conditions the first that holds counts.
//   - Where a default action forbids, calls with a number beyond the highest that the profile names for
//     an ABI give ENOSYS: software tries new calls and falls back on ENOSYS only.
//   - A rule for a socket or System V IPC call also covers socketcall(2) and ipc(2) where the ABI has
//     them. Their arguments lie in memory, out of a filter's sight: a rule with conditions covers them
//     only if it is stricter than the default, and then as if its conditions held.
//   - On 32 bit ABIs (x32 included) the low halves of arguments and values are compared.
func Compile(p *specs.LinuxSeccomp) (*Filter, error) { return compile(p, Native()) }

func compile(p *specs.LinuxSeccomp, native specs.Arch) (*Filter, error) {
	c := compiler{}
	if err := c.defaults(p, native); err != nil {
		return nil, err
	}
	if len(p.Syscalls) > maxRules {
		return nil, fault.New(fault.Invalid, "seccomp: %d entries in syscalls, more than %d", len(p.Syscalls), maxRules)
	}
	for i := range p.Syscalls {
		if err := c.add(i, &p.Syscalls[i]); err != nil {
			return nil, err
		}
	}
	c.meet()
	if c.notify && p.ListenerPath == "" {
		return nil, fault.New(fault.Invalid, "seccomp: SCMP_ACT_NOTIFY needs a listenerPath")
	}
	if p.ListenerMetadata != "" && p.ListenerPath == "" {
		return nil, fault.New(fault.Invalid, "seccomp: listenerMetadata is set and listenerPath is not")
	}
	fl, err := flags(p.Flags, c.notify)
	if err != nil {
		return nil, fault.In(err, "seccomp")
	}
	code := c.program()
	if len(code) > 8*maxInsns {
		// What the argument tests remember can cost more than it saves.
		c.forgetful = true
		code = c.program()
	}
	if len(code) > 8*maxInsns {
		return nil, fault.New(fault.Invalid, "seccomp: the profile needs more than the %d instructions the kernel takes", maxInsns)
	}
	return &Filter{Code: code, Flags: fl, Notify: c.notify, ListenerPath: p.ListenerPath, ListenerMetadata: p.ListenerMetadata}, nil
}

// maxRules bounds a profile's entries: many times what there are system calls, and few enough that
// every verdict made of them has a place in 16 bits.
const maxRules = 8192

// verdict is what the profile says about a call: an action, or rules that are tried in order before it.
type verdict struct {
	rules  []rule
	action uint32
	order  int // place in the profile of the (first) rule
}

// Verdicts that always exist, by their place in compiler.verdicts.
const (
	byDefault = iota
	badArch
	noSuchCall
)

type compiler struct {
	abis      []*abi // in the order of the prologue's tests: the native one first
	verdicts  []verdict
	joined    map[string]uint16 // verdicts made of several, by their places
	calls     [nameCount]uint16 // verdict of each name
	more      map[int][]uint16  // further verdicts on a name, until they meet
	named     [nameCount]bool   // names in the profile, redundant rules included
	enosys    bool              // numbers beyond the profile's highest give ENOSYS
	notify    bool
	forgetful bool
}

func (c *compiler) defaults(p *specs.LinuxSeccomp, native specs.Arch) error {
	deflt, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return fault.In(err, "seccomp: defaultAction")
	}
	if deflt == RetNotify {
		// The child between seccomp(2) and execve(2) would wait for an agent that has no listener yet.
		return fault.New(fault.Invalid, "seccomp: SCMP_ACT_NOTIFY cannot be used as default action")
	}
	enosys := RetErrno | uint32(syscall.ENOSYS)
	c.verdicts = append(c.verdicts, verdict{action: deflt}, verdict{action: RetKillThread}, verdict{action: enosys})
	// A tracer or a log is there to see what happens, and knows new calls itself.
	c.enosys = deflt != enosys && stricter(deflt, RetNotify)
	if native == "" {
		return fault.New(fault.NotImplemented, "seccomp: no filters on this architecture")
	}
	c.abis = append(c.abis, abiOf(native))
	for i, name := range p.Architectures {
		b := abiOf(name)
		if b == nil {
			return fault.New(fault.Invalid, "seccomp: architectures[%d]: unknown architecture %q", i, name)
		}
		if b.big != c.abis[0].big {
			return fault.New(fault.Invalid, "seccomp: architectures[%d]: %s has another byte order than %s", i, name, native)
		}
		if !slices.Contains(c.abis, b) {
			c.abis = append(c.abis, b)
		}
	}
	return nil
}

// add gives a rule's verdict to the calls it names.
func (c *compiler) add(i int, s *specs.LinuxSyscall) error {
	act, err := action(s.Action, s.ErrnoRet)
	if err != nil {
		return fault.In(err, "seccomp: syscalls[%d]", i)
	}
	if len(s.Names) == 0 {
		return fault.New(fault.Invalid, "seccomp: syscalls[%d]: names is empty", i)
	}
	v := verdict{order: i, action: act}
	if len(s.Args) > 0 {
		v.action = c.verdicts[byDefault].action
		if v.rules, err = rulesOf(i, act, s.Args); err != nil {
			return fault.In(err, "seccomp: syscalls[%d] (%s)", i, s.Names[0])
		}
	}
	c.notify = c.notify || act == RetNotify
	id := uint16(0)
	for j, name := range s.Names {
		if name == "" {
			return fault.New(fault.Invalid, "seccomp: syscalls[%d].names[%d]: empty string is not a valid syscall", i, j)
		}
		if act == RetNotify && name == "write" {
			return fault.New(fault.Invalid, "seccomp: syscalls[%d]: SCMP_ACT_NOTIFY cannot be used for the write syscall", i)
		}
		n := nameIndex(name)
		if n < 0 {
			continue
		}
		c.named[n] = true
		if act == c.verdicts[byDefault].action {
			continue
		}
		if id == 0 {
			id = c.intern(v)
		}
		switch was := c.calls[n]; {
		case was == byDefault:
			c.calls[n] = id
		case was != id:
			if c.more == nil {
				c.more = map[int][]uint16{}
			}
			c.more[n] = append(c.more[n], id)
		}
	}
	return nil
}

// rulesOf gives a profile entry's rules: one, or one for each condition when two conditions are about
// the same argument.
func rulesOf(order int, act uint32, args []specs.LinuxSeccompArg) ([]rule, error) {
	conds := make([]cond, len(args))
	seen, twice := [6]bool{}, false
	for i, a := range args {
		c, err := condition(a)
		if err != nil {
			return nil, fault.In(err, "args[%d]", i)
		}
		conds[i] = c
		twice = twice || seen[c.arg]
		seen[c.arg] = true
	}
	if !twice {
		return []rule{{conds, act, order}}, nil
	}
	rules := make([]rule, len(conds))
	for i := range conds {
		rules[i] = rule{conds[i : i+1], act, order}
	}
	return rules, nil
}

// intern gives a verdict its place.
func (c *compiler) intern(v verdict) uint16 {
	c.verdicts = append(c.verdicts, v)
	return uint16(len(c.verdicts) - 1)
}

// meet settles the calls that several entries name.
func (c *compiler) meet() {
	for n, ids := range c.more {
		c.calls[n] = c.join(append([]uint16{c.calls[n]}, ids...))
	}
}

// join gives the verdict of a call to which several apply, in any order. Calls with the same entries
// share theirs.
func (c *compiler) join(ids []uint16) uint16 {
	slices.Sort(ids)
	ids = slices.DeleteFunc(slices.Compact(ids), func(id uint16) bool { return id == byDefault })
	switch len(ids) {
	case 0:
		return byDefault
	case 1:
		return ids[0]
	}
	key := fmt.Sprint(ids)
	if both, ok := c.joined[key]; ok {
		return both
	}
	first, plain, count := &c.verdicts[ids[0]], -1, 0
	for _, id := range ids {
		v := &c.verdicts[id]
		count += len(v.rules)
		if v.rules == nil && (plain < 0 || v.order < c.verdicts[plain].order) {
			plain = int(id)
		}
	}
	if plain >= 0 {
		return uint16(plain)
	}
	both := verdict{rules: make([]rule, 0, count), action: first.action, order: first.order}
	for _, id := range ids {
		both.rules = append(both.rules, c.verdicts[id].rules...)
		both.order = min(both.order, c.verdicts[id].order)
	}
	slices.SortStableFunc(both.rules, func(p, q rule) int { return p.order - q.order })
	if c.joined == nil {
		c.joined = map[string]uint16{}
	}
	c.joined[key] = c.intern(both)
	return c.joined[key]
}

// program lays out the filter: the prologue tells audit architectures apart, each leads to its tree.
func (c *compiler) program() []byte {
	a := &asm{out: make([]insn, 0, 512)}
	start := verdictTarget(c.verdicts[badArch].action)
	audits := c.audits()
	for _, audit := range slices.Backward(audits) {
		tree := a.load(offNumber, c.tree(a, audit))
		start = a.branch(opJEq, audit, tree, start)
	}
	return a.finish(a.load(offArch, start))
}

// audits lists the audit architectures in the filter, the native one first.
func (c *compiler) audits() []uint32 {
	var out []uint32
	for _, b := range c.abis {
		if !slices.Contains(out, b.audit) {
			out = append(out, b.audit)
		}
	}
	return out
}

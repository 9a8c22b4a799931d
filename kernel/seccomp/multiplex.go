package seccomp

// muxed is a call that old ABIs reach through socketcall(2) or ipc(2), with its selector there
// (linux/net.h, linux/ipc.h).
type muxed struct {
	name     string
	selector uint64
}

var (
	socketCalls = [...]muxed{{"socket", 1}, {"bind", 2}, {"connect", 3}, {"listen", 4}, {"accept", 5},
		{"getsockname", 6}, {"getpeername", 7}, {"socketpair", 8}, {"send", 9}, {"recv", 10}, {"sendto", 11},
		{"recvfrom", 12}, {"shutdown", 13}, {"setsockopt", 14}, {"getsockopt", 15}, {"sendmsg", 16},
		{"recvmsg", 17}, {"accept4", 18}, {"recvmmsg", 19}, {"sendmmsg", 20}}
	ipcCalls = [...]muxed{{"semop", 1}, {"semget", 2}, {"semctl", 3}, {"semtimedop", 4}, {"msgsnd", 11},
		{"msgrcv", 12}, {"msgget", 13}, {"msgctl", 14}, {"shmat", 21}, {"shmdt", 22}, {"shmget", 23}, {"shmctl", 24}}
)

// Bits of the first argument that select the call. The kernel reads an unsigned int; ipc(2) has a
// version in the upper half, which must not let a caller slip past a rule.
const (
	socketSelector = 0xffffffff
	ipcSelector    = 0xffff
)

// multiplexed adds to an ABI's verdicts what the profile's rules for socket and IPC calls mean for
// socketcall(2) and ipc(2).
func (c *compiler) multiplexed(b *abi, t *callTable) {
	c.multiplex(b, t, "socketcall", socketCalls[:], socketSelector)
	c.multiplex(b, t, "ipc", ipcCalls[:], ipcSelector)
}

func (c *compiler) multiplex(b *abi, t *callTable, through string, members []muxed, mask uint64) {
	n := nameIndex(through)
	nr, ok := b.number(n)
	if !ok {
		return
	}
	own := c.calls[n]
	if own != byDefault && c.verdicts[own].rules == nil {
		return // the profile decides on the whole of it
	}
	var rules []rule
	for _, m := range members {
		v := &c.verdicts[c.calls[nameIndex(m.name)]]
		selected := []cond{{mask: mask, value: m.selector}}
		if v.rules == nil && v != &c.verdicts[byDefault] {
			rules = append(rules, rule{selected, v.action, v.order})
		}
		for _, r := range v.rules {
			if stricter(r.action, v.action) {
				rules = append(rules, rule{selected, r.action, r.order})
			}
		}
	}
	if len(rules) > 0 {
		c.put(t, b, nr, c.intern(verdict{rules: rules, action: c.verdicts[byDefault].action, order: rules[0].order}))
	}
}

package keeper

import (
	"context"

	"berth/runtime/keeper/wire"

	"golang.org/x/sys/unix"
)

// insured is a process's descriptors as the keeper gave them: never read or written here, they only
// keep pipes and terminals alive until a successor of the keeper asks for them.
type insured struct {
	gen   int // of the connection that gave them
	desc  wire.Desc
	roles []byte
	fds   []int
	slate *slateRef
}

// insuredAttachment is the keeper's end of an attachment.
type insuredAttachment struct {
	gen  int
	desc wire.Attachment
	fd   int
}

// slateRef is a keeper's slate, shared by everything that this keeper gave. Client.mu guards n.
type slateRef struct{ fd, n int }

func (s *slateRef) use() { s.n++ }

func (s *slateRef) drop() {
	if s.n--; s.n == 0 {
		unix.Close(s.fd)
	}
}

// pushed handles what the keeper says unasked. It must not wait.
func (c *Client) pushed(cn *conn, kind wire.Kind, body []byte, fds []int) {
	switch kind {
	case wire.ExitKind:
		var x Exit
		if wire.Unmarshal(body, &x) == nil {
			c.mu.Lock()
			c.drop(target{x.ID, x.Proc})
			c.mu.Unlock()
			c.enqueue(x)
		}
	case wire.HeldKind:
		var m wire.Held
		if wire.Unmarshal(body, &m) == nil && len(m.Roles) == len(fds) {
			c.keep(cn, &m, fds)
			fds = nil
		}
	case wire.HeldAttachKind:
		var m wire.Attachment
		if wire.Unmarshal(body, &m) == nil && len(fds) == 1 {
			c.mu.Lock()
			c.dropAttachment(m.Number)
			c.atts[m.Number] = &insuredAttachment{gen: cn.gen, desc: m, fd: fds[0]}
			c.mu.Unlock()
			fds = nil
		}
	case wire.StdinGoneKind:
		var m wire.Request
		if wire.Unmarshal(body, &m) == nil {
			c.dropStdin(target{m.ID, m.Proc})
		}
	case wire.AttachGoneKind:
		var m wire.Request
		if wire.Unmarshal(body, &m) == nil {
			c.mu.Lock()
			c.dropAttachment(m.Attachment)
			c.mu.Unlock()
		}
	case wire.RotatedKind:
		var m wire.Request
		if wire.Unmarshal(body, &m) == nil {
			c.mu.Lock()
			told := c.onRotated
			c.mu.Unlock()
			if told != nil {
				told(m.ID)
			}
		}
	}
	closeAll(fds) // of what was not understood
}

func (c *Client) keep(cn *conn, m *wire.Held, fds []int) {
	t := target{m.Desc.ID, m.Desc.Proc}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(t)
	if cn.slate == nil {
		closeAll(fds)
		return
	}
	cn.slate.use()
	c.held[t] = &insured{gen: cn.gen, desc: m.Desc, roles: m.Roles, fds: fds, slate: cn.slate}
}

// keepLaunched takes the insurance out of the reply to a launch and leaves the attachments' sockets.
func (c *Client) keepLaunched(cn *conn, r *reply) []int {
	var m wire.Launched
	if wire.Unmarshal(r.body, &m) != nil || len(m.Held.Roles) != len(r.fds) {
		return r.fds
	}
	var socks []int
	held := wire.Held{Desc: m.Held.Desc}
	var fds []int
	for i, role := range m.Held.Roles {
		if role == wire.RoleAttach {
			socks = append(socks, r.fds[i])
			continue
		}
		held.Roles, fds = append(held.Roles, role), append(fds, r.fds[i])
	}
	if len(fds) > 0 {
		c.keep(cn, &held, fds)
	}
	return socks
}

// Holds tells whether the container's first process is still the one of that number. Then what was opened by the number before the call is
// that process's: the number belongs to nobody else until the process is reaped.
func (c *Client) Holds(id string, pid int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.held[target{id, ""}]
	if x == nil || x.desc.PID != pid {
		return false
	}
	for i, role := range x.roles {
		if role == wire.RolePidfd {
			return unix.PidfdSendSignal(x.fds[i], 0, nil, 0) != unix.ESRCH
		}
	}
	return false
}

// drop lets go of a process's insurance. mu is held.
func (c *Client) drop(t target) {
	if x := c.held[t]; x != nil {
		closeAll(x.fds)
		x.slate.drop()
		delete(c.held, t)
	}
}

func (c *Client) dropAttachment(number uint32) {
	if x := c.atts[number]; x != nil {
		unix.Close(x.fd)
		delete(c.atts, number)
	}
}

// dropStdin closes the insured write end: as long as one is open the process sees no end of file.
func (c *Client) dropStdin(t target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.held[t]
	if x == nil {
		return
	}
	for i, role := range x.roles {
		if role == wire.RoleStdin {
			unix.Close(x.fds[i])
			x.roles = append(x.roles[:i:i], x.roles[i+1:]...)
			x.fds = append(x.fds[:i:i], x.fds[i+1:]...)
			return
		}
	}
}

// dropOlder lets go of what connections before gen gave. mu is held.
func (c *Client) dropOlder(gen int) {
	for t, x := range c.held {
		if x.gen < gen {
			c.drop(t)
		}
	}
	for n, x := range c.atts {
		if x.gen < gen {
			c.dropAttachment(n)
		}
	}
}

// adopt hands the insurance to a new keeper. What it refuses it knows better.
func (c *Client) adopt(ctx context.Context, cn *conn) {
	c.mu.Lock()
	var procs []*insured
	var atts []*insuredAttachment
	for _, x := range c.held {
		procs = append(procs, x)
	}
	for _, x := range c.atts {
		atts = append(atts, x)
	}
	c.mu.Unlock()
	for _, x := range procs {
		c.adoptOne(ctx, cn, wire.AdoptKind, func() (wire.Message, []int) {
			if c.held[target{x.desc.ID, x.desc.Proc}] != x {
				return nil, nil
			}
			return &wire.Held{Desc: x.desc, Roles: append([]byte{wire.RoleSlate}, x.roles...)},
				append([]int{x.slate.fd}, x.fds...)
		})
	}
	for _, x := range atts {
		c.adoptOne(ctx, cn, wire.AdoptAttachKind, func() (wire.Message, []int) {
			if c.atts[x.desc.Number] != x {
				return nil, nil
			}
			return &x.desc, []int{x.fd}
		})
	}
}

// adoptOne sends one message with duplicates of its descriptors: the originals may be closed by the
// connection's reader at any time.
func (c *Client) adoptOne(ctx context.Context, cn *conn, kind wire.Kind, get func() (wire.Message, []int)) {
	c.mu.Lock()
	m, fds := get()
	var dups []int
	for _, fd := range fds {
		if d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			dups = append(dups, d)
		}
	}
	c.mu.Unlock()
	defer closeAll(dups)
	if m == nil || len(dups) != len(fds) {
		return
	}
	_, _ = cn.call(ctx, kind, 0, m, dups)
}

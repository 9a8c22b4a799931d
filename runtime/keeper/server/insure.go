package server

import (
	"berth/runtime/keeper/journal"
	"berth/runtime/keeper/wire"
)

// insurance gives the roles and descriptors of a process that a successor would need, beside the
// slate, which a client gets with its hello. They stay the process's.
func (p *proc) insurance() (roles []byte, fds []int) {
	add := func(role byte, fd int) {
		if fd >= 0 {
			roles, fds = append(roles, role), append(fds, fd)
		}
	}
	add(wire.RolePidfd, p.pidfd)
	if p.stdin.tty {
		add(wire.RoleMaster, p.out[0].fd)
		return roles, fds
	}
	add(wire.RoleStdin, p.stdin.fd)
	add(wire.RoleStdout, p.out[0].fd)
	add(wire.RoleStderr, p.out[1].fd)
	return roles, fds
}

// insure gives a client what a successor needs to go on with a process.
func (c *peer) insure(p *proc) {
	if !c.insured || p.launching || p.finished {
		return
	}
	m := wire.Held{Desc: p.d}
	var fds []int
	m.Roles, fds = p.insurance()
	c.push(wire.HeldKind, &m, fds)
}

func (c *peer) insureAttachment(a *attachment) {
	if !c.insured || a.fd < 0 || a.shut {
		return
	}
	c.push(wire.HeldAttachKind, a.desc(), []int{a.fd})
}

func (a *attachment) desc() *wire.Attachment {
	return &wire.Attachment{Number: a.number, Request: a.req, EOF: a.eof, Matched: a.matched}
}

// insureAll gives a client everything. What it held from before is void. A queued packet holds
// duplicates of its descriptors: so that thousands of processes do not use them all up, the next is
// made when the one before has gone.
func (s *Server) insureAll(c *peer) {
	if !c.insured {
		return
	}
	c.todo = s.sorted()
	c.insureMore()
	c.watch()
}

func (c *peer) insureMore() {
	for len(c.todo) > 0 && len(c.queue) == 0 && c.fd >= 0 {
		p := c.todo[0]
		c.todo = c.todo[1:]
		c.insure(p)
		for _, a := range p.atts {
			c.insureAttachment(a)
		}
	}
}

func (s *Server) pushExit(p *proc) {
	for _, c := range s.helloed() {
		c.push(wire.ExitKind, &p.exit, nil)
	}
}

func (s *Server) pushStdinGone(p *proc) {
	for _, c := range s.helloed() {
		if c.insured {
			c.push(wire.StdinGoneKind, &wire.Request{ID: p.d.ID, Proc: p.d.Proc}, nil)
		}
	}
}

func (s *Server) pushAttachGone(a *attachment) {
	for _, c := range s.helloed() {
		if c.insured {
			c.push(wire.AttachGoneKind, &wire.Request{ID: a.p.d.ID, Proc: a.p.d.Proc, Attachment: a.number}, nil)
		}
	}
}

// helloed gives the clients to push to; a copy, since a push may hang up on one.
func (s *Server) helloed() []*peer {
	var out []*peer
	for _, c := range s.peers {
		if c.hello {
			out = append(out, c)
		}
	}
	return out
}

// entries is the present state in the journal's words.
func (s *Server) entries() []journal.Entry {
	var out []journal.Entry
	for _, p := range s.sorted() {
		if p.launching {
			continue
		}
		e := journal.Entry{Desc: p.d, Boot: true}
		if p.reaped {
			x := p.exit
			e.Exit, e.Drained = &x, p.finished
		}
		out = append(out, e)
	}
	return append(out, s.lost...)
}

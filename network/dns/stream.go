package dns

import (
	"context"
	"os"
	"time"

	"berth/kernel/socket"
)

const (
	idle      = 8 * time.Second // how long a connection may be silent
	maxInLine = 128             // questions of one connection
)

// converse answers the questions of one connection, one after the other.
func (s *Server) converse(sb *sandbox, conn *os.File) {
	defer conn.Close()
	defer context.AfterFunc(s.ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	for range maxInLine {
		conn.SetDeadline(time.Now().Add(idle))
		if s.ctx.Err() != nil {
			return // the deadline that ended it was just moved away
		}
		b, err := readFrame(conn)
		if err != nil {
			return
		}
		reply, q := s.local(sb, b, socket.TCP)
		if q != nil {
			reply = s.byTurns(sb, q)
		}
		if reply == nil {
			return
		}
		conn.SetWriteDeadline(time.Now().Add(idle))
		if writeFrame(conn, reply) != nil {
			return
		}
	}
}

func (s *Server) byTurns(sb *sandbox, q *question) []byte {
	if !s.admit(sb) {
		return q.refused()
	}
	defer s.release(sb)
	return s.forward(s.ctx, sb, q)
}

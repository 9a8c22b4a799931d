package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"

	"github.com/miekg/dns"

	"berth/base/fault"
	"berth/kernel/netns"
	"berth/kernel/socket"
)

const maxDatagram = 8192 // bytes of an answer by UDP that are taken; of longer ones the asker is told to come by TCP

// forward asks the sandbox's servers one after the other and gives the answer to send; nil when the server closes.
func (s *Server) forward(ctx context.Context, sb *sandbox, q *question) []byte {
	set := sb.settings.Load()
	key, remember := s.cacheKey(set, q)
	if remember {
		if b := s.cache.get(key, time.Now()); b != nil {
			copy(b, q.raw[:2])
			return b
		}
	}
	if !sb.turn(ctx, s.cfg.Timeout) {
		s.warn(sb, "more than 1024 questions of a container are under way")
		return q.refused()
	}
	defer func() { <-sb.turns }()
	for _, up := range set.upstream {
		b, err := s.exchange(ctx, sb, set, up, q)
		if ctx.Err() != nil {
			return nil // the asker asks the next engine
		}
		if err != nil {
			s.cfg.Log.Debug("an upstream name server did not answer", "sandbox", sb.id, "server", up.String(), "err", err)
			continue
		}
		if code := int(b[3] & 0xf); code == dns.RcodeServerFailure || code == dns.RcodeRefused {
			continue // perhaps the next one knows
		}
		if remember {
			s.cache.put(key, b, time.Now())
		}
		return b
	}
	return q.failed()
}

// turn waits until one more question may be under way, as long as a server would be waited for.
func (sb *sandbox) turn(ctx context.Context, limit time.Duration) bool {
	select {
	case sb.turns <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case sb.turns <- struct{}{}:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// exchange asks one server by the protocol that we were asked by, under an id of our own, and gives its answer with the asker's.
func (s *Server) exchange(ctx context.Context, sb *sandbox, set *settings, up netip.AddrPort, q *question) ([]byte, error) {
	fd, err := s.outward(ctx, sb, set, up, q.kind)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(s.cfg.Timeout)
	f, err := socket.Connect(fd, up, deadline)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	defer context.AfterFunc(ctx, func() { f.SetDeadline(time.Unix(1, 0)) })()

	asked := append([]byte(nil), q.raw...)
	binary.BigEndian.PutUint16(asked, uint16(rand.Uint32()))
	var b []byte
	if q.kind == socket.TCP {
		b, err = overStream(f, asked)
	} else {
		b, err = overDatagrams(f, asked, deadline)
	}
	if err != nil {
		return nil, err
	}
	copy(b, q.raw[:2])
	return b, nil
}

// outward makes a socket in the host's namespace, or in the container's.
func (s *Server) outward(ctx context.Context, sb *sandbox, set *settings, up netip.AddrPort, kind socket.Kind) (int, error) {
	if set.fromHost {
		return socket.New(kind, up.Addr())
	}
	ns, err := netns.Open(sb.key)
	if err != nil {
		return -1, err
	}
	defer ns.Close()
	select {
	case s.door <- struct{}{}:
	case <-ctx.Done():
		return -1, fault.New(fault.Cancelled, "closed")
	}
	defer func() { <-s.door }()
	fd := -1
	err = netns.Do(ns, func() error {
		fd, err = socket.New(kind, up.Addr())
		return err
	})
	return fd, err
}

// overDatagrams sends the question, once more after half of the time, and waits for the answer to it. What answers
// something else is passed over: anybody may send datagrams.
func overDatagrams(f *os.File, asked []byte, deadline time.Time) ([]byte, error) {
	if _, err := f.Write(asked); err != nil {
		return nil, err
	}
	again := time.AfterFunc(time.Until(deadline)/2, func() { f.Write(asked) })
	defer again.Stop()
	buf := make([]byte, maxDatagram)
	for range 64 {
		n, err := f.Read(buf)
		if errors.Is(err, io.EOF) {
			continue // an empty datagram
		}
		if err != nil {
			return nil, err
		}
		end, ok := answers(buf[:n], asked)
		if !ok {
			continue
		}
		if n == len(buf) {
			return cutShort(buf[:end]), nil
		}
		return append([]byte(nil), buf[:n]...), nil
	}
	return nil, errors.New("it answers other questions")
}

func overStream(f *os.File, asked []byte) ([]byte, error) {
	if err := writeFrame(f, asked); err != nil {
		return nil, err
	}
	b, err := readFrame(f)
	if err != nil {
		return nil, err
	}
	if _, ok := answers(b, asked); !ok {
		return nil, errors.New("it answers another question")
	}
	return b, nil
}

// answers reports whether b is an answer to the question, and where the question ends in it.
func answers(b, asked []byte) (end int, ok bool) {
	if len(b) < 12 || b[2]&0x80 == 0 || b[0] != asked[0] || b[1] != asked[1] {
		return 0, false
	}
	if binary.BigEndian.Uint16(b[4:]) == 0 {
		return 12, b[3]&0xf != 0 // who refuses needs not repeat what
	}
	end, ok = questionEnd(asked)
	if !ok || len(b) < end || binary.BigEndian.Uint16(b[4:]) != 1 {
		return 0, false
	}
	for i := 12; i < end; i++ {
		if lower(b[i]) != lower(asked[i]) {
			return 0, false
		}
	}
	return end, true
}

// questionEnd gives the offset after the one question of a message. Names in it are never compressed: nothing stands before them.
func questionEnd(b []byte) (int, bool) {
	at := 12
	for at < len(b) && b[at] != 0 {
		if b[at]&0xc0 != 0 {
			return 0, false
		}
		at += int(b[at]) + 1
	}
	at += 1 + 4
	return at, at <= len(b)
}

// lower folds case. Lengths of labels are below 64 and no letters; of type and class, bytes that look like letters fold alike on both sides.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// cutShort makes an answer that says: too long, come by TCP.
func cutShort(b []byte) []byte {
	r := append([]byte(nil), b...)
	r[2] |= 0x02 // TC
	clear(r[6:12])
	return r
}

// writeFrame and readFrame carry messages over TCP, each after its length.

func writeFrame(w io.Writer, b []byte) error {
	if len(b) > 0xffff {
		return fmt.Errorf("a message of %d bytes", len(b))
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b))), b...))
	return err
}

func readFrame(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(head[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

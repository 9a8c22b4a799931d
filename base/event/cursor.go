package event

import (
	"bufio"
	"io"
	"os"
	"slices"
	"time"
)

// cursor is a place in the journal. It belongs to one goroutine.
type cursor struct {
	j     *Journal
	file  *os.File
	first uint64 // of the segment that is open
	at    int64  // bytes of it that were read
	tried int64  // at, when what follows was last looked for
	r     *bufio.Reader
	held  *numbered // read already, and to be given next
	since time.Time // what is older is passed over; zero: nothing
}

func (j *Journal) cursor() *cursor { return &cursor{j: j} }

func (c *cursor) close() {
	if c != nil && c.file != nil {
		c.file.Close()
		c.file = nil
	}
}

// seek gives the number of the first event on disk that is not older than t.
func (c *cursor) seek(t time.Time) (n uint64, found bool) {
	c.j.mu.Lock()
	i := slices.IndexFunc(c.j.segments, func(s segment) bool { return !s.newest.Before(t) })
	from := uint64(0)
	if i >= 0 {
		from = c.j.segments[i].first
	}
	c.j.mu.Unlock()
	if i < 0 {
		return 0, false
	}
	c.since = t
	n, e, found := c.read(from, 1<<63)
	c.since = time.Time{}
	if found {
		c.held = &numbered{n, e}
	}
	return n, found
}

// read gives the first event on disk from number from on and before limit.
func (c *cursor) read(from, limit uint64) (uint64, Event, bool) {
	if h := c.held; h != nil && h.n >= from {
		if h.n >= limit {
			return 0, Event{}, false
		}
		c.held = nil
		return h.n, h.e, true
	}
	c.held = nil
	for {
		if c.file == nil && !c.open(from) {
			return 0, Event{}, false
		}
		line, err := readLine(c.r)
		if err != nil {
			if !c.further(from) {
				return 0, Event{}, false
			}
			continue
		}
		c.at += int64(len(line))
		n, t, _, ok := parseHead(line)
		if !ok || n < from || t.Before(c.since) {
			continue
		}
		_, e, ok := parseLine(line)
		if !ok {
			continue
		}
		if n >= limit {
			c.held = &numbered{n, e}
			return 0, Event{}, false
		}
		return n, e, true
	}
}

// giveBack puts an event back that was read, to be given next.
func (c *cursor) giveBack(n uint64, e Event, ok bool) {
	if ok {
		c.held = &numbered{n, e}
	}
}

// open opens the segment in which number n is, or the next one there is.
func (c *cursor) open(n uint64) bool {
	c.j.mu.Lock()
	var s segment
	found := false
	for _, x := range c.j.segments {
		if x.first <= n || !found {
			s, found = x, true
		}
	}
	c.j.mu.Unlock()
	return found && c.use(s)
}

func (c *cursor) use(s segment) bool {
	f, err := os.Open(c.j.path(s.first))
	if err != nil {
		return false // deleted meanwhile
	}
	c.close()
	c.file, c.first, c.at, c.tried = f, s.first, int64(len(segmentHeader)), 0
	c.r = bufio.NewReaderSize(io.NewSectionReader(f, c.at, s.size-c.at), 32<<10)
	return true
}

// further goes on where the segment was written on, or with the next one. It reports false at the journal's end.
func (c *cursor) further(from uint64) bool {
	c.j.mu.Lock()
	var next *segment
	size := c.at
	for _, s := range c.j.segments {
		if s.first == c.first {
			size = s.size
		}
		if s.first > c.first && next == nil {
			next = &segment{first: s.first, size: s.size}
		}
	}
	c.j.mu.Unlock()
	switch {
	case size > c.at && c.tried != c.at: // a file that is shorter than it should be has nothing there, also the second time
		c.tried = c.at
		c.r.Reset(io.NewSectionReader(c.file, c.at, size-c.at))
		return true
	case next != nil:
		return c.use(*next)
	}
	return false
}

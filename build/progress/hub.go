package progress

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// Bounds of what a hub keeps for readers that come late.
const (
	maxVertexLog = 2 << 20  // bytes of what one vertex printed
	maxLog       = 16 << 20 // bytes of what all printed
	maxWarnings  = 1000
	maxSources   = 256 << 10 // bytes of the files that warnings carry whole
	maxWarned    = 4 << 20   // bytes of all warnings; one that is too much is left out
	maxReaders   = 1000
	maxBehind    = 4096 // statuses that a reader has not taken, before those that are superseded are left out
)

// Batch is a run of events, each kind in the order in which they happened.
type Batch struct {
	Vertices []Vertex
	Statuses []Status
	Logs     []Log
	Warnings []Warning
}

func (b *Batch) empty() bool {
	return len(b.Vertices) == 0 && len(b.Statuses) == 0 && len(b.Logs) == 0 && len(b.Warnings) == 0
}

// Hub is a sink that keeps a build's events for readers. It is safe for concurrent use.
type Hub struct {
	mu       sync.Mutex // guards what follows; held for memory only
	vertices []digest.Digest
	state    map[digest.Digest][]Vertex // the intervals of each vertex, the newest last
	order    []statusKey
	status   map[statusKey]Status
	logs     []Log
	bytes    int
	perLog   map[digest.Digest]int
	cut      map[digest.Digest]bool // a line says that more was printed
	warnings []Warning
	sources  int // bytes of files that the warnings carry
	lines    index
	warned   int // bytes of the warnings
	readers  map[*reader]bool
	closed   bool

	done chan struct{} // closed with the hub
}

type statusKey struct {
	vertex digest.Digest
	id     string
}

// reader is one who follows. Events that he has not taken are in next; of vertices and statuses only the newest matter, so
// a slow reader costs little.
type reader struct {
	next Batch
	wake chan struct{} // holds one
	full int           // how many statuses make it worth while to look for those that are superseded again
}

// NewHub gives an empty hub.
func NewHub() *Hub {
	return &Hub{
		state: map[digest.Digest][]Vertex{}, status: map[statusKey]Status{},
		perLog: map[digest.Digest]int{}, cut: map[digest.Digest]bool{}, readers: map[*reader]bool{}, done: make(chan struct{}),
	}
}

// Vertex keeps and passes on the state of a step.
func (h *Hub) Vertex(v Vertex) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	list := h.state[v.Digest]
	if list == nil {
		h.vertices = append(h.vertices, v.Digest)
	}
	// A vertex that begins again gets another interval; else its newest state is all that matters.
	if n := len(list); n > 0 && (list[n-1].Completed == nil || v.Started != nil && list[n-1].Started != nil && v.Started.Equal(*list[n-1].Started)) {
		list[n-1] = v
	} else {
		list = append(list, v)
	}
	h.state[v.Digest] = list
	h.each(func(r *reader) { r.next.Vertices = append(r.next.Vertices, v) })
}

// Status keeps and passes on how far a part of a step is.
func (h *Hub) Status(s Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	key := statusKey{s.Vertex, s.ID}
	if _, ok := h.status[key]; !ok {
		h.order = append(h.order, key)
	}
	h.status[key] = s
	h.each(func(r *reader) {
		// The numbers that the reader has not seen yet are of no use any more.
		b := &r.next
		if n := len(b.Statuses); n > 0 && b.Statuses[n-1].ID == s.ID && b.Statuses[n-1].Vertex == s.Vertex {
			b.Statuses[n-1] = s
			return
		}
		b.Statuses = append(b.Statuses, s)
		r.compact()
	})
}

// compact leaves out statuses that newer ones of the same part supersede, for a reader that does not read while parts take turns.
func (r *reader) compact() {
	list := r.next.Statuses
	if len(list) < max(r.full, maxBehind) {
		return
	}
	last := make(map[statusKey]int, len(list))
	for i, s := range list {
		last[statusKey{s.Vertex, s.ID}] = i
	}
	kept := list[:0]
	for i, s := range list {
		if last[statusKey{s.Vertex, s.ID}] == i {
			kept = append(kept, s)
		}
	}
	clear(list[len(kept):])
	r.next.Statuses, r.full = kept, 2*len(kept)
}

// Log keeps and passes on what a step printed. Beyond the bounds it is dropped, and a line says so.
func (h *Hub) Log(l Log) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.cut[l.Vertex] {
		return
	}
	if h.perLog[l.Vertex]+len(l.Data) > maxVertexLog || h.bytes+len(l.Data) > maxLog {
		h.cut[l.Vertex] = true
		l.Data = fmt.Appendf(nil, "[output clipped, log limit %dMiB reached]\n", maxVertexLog>>20)
	}
	h.perLog[l.Vertex] += len(l.Data)
	h.bytes += len(l.Data)
	h.logs = append(h.logs, l)
	h.each(func(r *reader) { r.next.Logs = append(r.next.Logs, l) })
}

// Warning keeps and passes on a warning. Each carries the file that it is about: when there are many, the later ones have only the lines around
// their place, or a Dockerfile of a thousand lines that are all found fault with would go over the wire a thousand times.
func (h *Hub) Warning(w Warning) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.warnings) >= maxWarnings {
		return
	}
	if w.Info != nil {
		if h.sources+len(w.Info.Data) > maxSources {
			w.Info = h.lines.excerpt(w.Info, w.Range)
		}
		h.sources += len(w.Info.Data)
	}
	if h.warned += w.size(); h.warned > maxWarned {
		h.warned -= w.size()
		return
	}
	h.warnings = append(h.warnings, w)
	h.each(func(r *reader) { r.next.Warnings = append(r.next.Warnings, w) })
}

// each adds to what the readers get next. Its caller holds mu.
func (h *Hub) each(add func(*reader)) {
	for r := range h.readers {
		add(r)
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

// gather is how long a reader waits for more before it passes on what came: many events come together, and each batch costs
// a message.
const gather = 20 * time.Millisecond

// Follow calls f with everything kept so far and then with what comes, until the hub is closed, f fails or ctx ends. Unavailable: too many
// follow already.
func (h *Hub) Follow(ctx context.Context, f func(Batch) error) error {
	r := &reader{wake: make(chan struct{}, 1)}
	h.mu.Lock()
	if len(h.readers) >= maxReaders {
		h.mu.Unlock()
		return fault.New(fault.Unavailable, "the build is followed by %d already", maxReaders)
	}
	r.next = h.snapshot()
	h.readers[r] = true
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.readers, r)
		h.mu.Unlock()
	}()
	timer := time.NewTimer(gather)
	defer timer.Stop()
	for {
		h.mu.Lock()
		b, closed := r.next, h.closed
		r.next = Batch{}
		h.mu.Unlock()
		if !b.empty() {
			if err := f(b); err != nil {
				return err
			}
		}
		if closed {
			return nil
		}
		select {
		case <-r.wake:
		case <-h.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		timer.Reset(gather)
		select {
		case <-timer.C:
		case <-h.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Snapshot gives what is kept.
func (h *Hub) Snapshot() Batch {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.snapshot()
}

func (h *Hub) snapshot() Batch {
	b := Batch{Logs: slices.Clone(h.logs), Warnings: slices.Clone(h.warnings)}
	for _, d := range h.vertices {
		b.Vertices = append(b.Vertices, h.state[d]...)
	}
	for _, k := range h.order {
		b.Statuses = append(b.Statuses, h.status[k])
	}
	return b
}

// Close ends the readers after they have got everything. What comes later is dropped.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.closed = true
	close(h.done)
}

package solver

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	bksession "github.com/moby/buildkit/session"
	digest "github.com/opencontainers/go-digest"

	"berth/build/graph"
	"berth/build/progress"
	"berth/build/session"
)

// A fan carries what one running step tells to all builds that wait for it, each in the words of its own graph. Who
// comes later gets what was told before. It is also the group of the sessions of these builds.
type fan struct {
	mu        sync.Mutex // guards what follows, and the order in which sinks are told
	listeners []*listener
	state     progress.Vertex // without digest, inputs and name
	status    map[string]progress.Status
	order     []string // ids of status, as they came
	logs      []progress.Log
	kept      int  // bytes in logs
	watched   bool // the vertex begins with the next status: its data is being brought
	warnings  []progress.Warning
}

// maxKept bounds what is kept of a step's output for builds that join it later.
const maxKept = 256 << 10

type listener struct {
	sink     progress.Sink
	vertex   *graph.Vertex
	sessions session.Group
}

func newFan() *fan { return &fan{status: map[string]progress.Status{}} }

// join adds a listener and gives what takes it away.
func (f *fan) join(l *listener) (leave func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listeners = append(f.listeners, l)
	if f.state.Started != nil {
		l.sink.Vertex(l.state(f.state))
	}
	for _, id := range f.order {
		s := f.status[id]
		s.Vertex = l.vertex.Digest
		l.sink.Status(s)
	}
	for _, e := range f.logs {
		e.Vertex = l.vertex.Digest
		l.sink.Log(e)
	}
	for _, w := range f.warnings {
		w.Vertex = l.vertex.Digest
		l.sink.Warning(w)
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.listeners = slices.DeleteFunc(f.listeners, func(o *listener) bool { return o == l })
		if f.state.Started != nil && f.state.Completed == nil {
			// The step goes on for others; for this build it has ended.
			now, v := time.Now(), f.state
			v.Completed, v.Error = &now, context.Canceled.Error()
			l.sink.Vertex(l.state(v))
		}
	}
}

// state is the vertex's state in the words of the listener's graph.
func (l *listener) state(v progress.Vertex) progress.Vertex {
	v.Digest, v.Name, v.Group = l.vertex.Digest, l.vertex.Name, l.vertex.ProgressGroup
	v.Inputs = inputsOf(l.vertex)
	return v
}

func inputsOf(v *graph.Vertex) []digest.Digest {
	var inputs []digest.Digest
	for _, in := range v.Inputs {
		inputs = append(inputs, in.Vertex)
	}
	return inputs
}

// begin tells that the step runs.
func (f *fan) begin() {
	now := time.Now()
	f.tell(progress.Vertex{Started: &now})
}

// end tells that the step has ended, unless it never began.
func (f *fan) end(cached bool, err error) {
	f.mu.Lock()
	state := f.state
	f.mu.Unlock()
	if state.Started == nil {
		return
	}
	now := time.Now()
	state.Completed, state.Cached = &now, cached
	if err != nil {
		state.Error = err.Error()
	}
	f.tell(state)
}

// found tells that the step need not run.
func (f *fan) found() {
	now := time.Now()
	f.tell(progress.Vertex{Started: &now, Completed: &now, Cached: true})
}

// failed tells that the step failed before it could begin, unless its end has been told.
func (f *fan) failed(err error) {
	f.mu.Lock()
	state := f.state
	f.mu.Unlock()
	if state.Error != "" {
		return
	}
	if state.Started == nil || state.Completed != nil {
		f.begin()
	}
	f.end(false, err)
}

// fetching prepares for data being brought, which is told as work of the vertex if anything is told of it. What it gives
// is called when the data is here.
func (f *fan) fetching() (done func(error)) {
	f.mu.Lock()
	f.watched = true
	f.mu.Unlock()
	return func(err error) {
		f.mu.Lock()
		begun := !f.watched
		f.watched = false
		f.mu.Unlock()
		if begun || err != nil {
			f.end(false, err)
		}
	}
}

func (f *fan) tell(v progress.Vertex) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = v
	for _, l := range f.listeners {
		l.sink.Vertex(l.state(v))
	}
}

// Vertex is not for steps: their state is the solver's.
func (f *fan) Vertex(progress.Vertex) {}

func (f *fan) Status(s progress.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.Timestamp.IsZero() {
		s.Timestamp = time.Now()
	}
	before, known := f.status[s.ID]
	switch {
	case s.Started != nil:
	case known:
		s.Started = before.Started
	default:
		s.Started = &s.Timestamp
	}
	if !known {
		f.order = append(f.order, s.ID)
	}
	f.status[s.ID] = s
	if f.watched {
		f.watched = false
		f.state = progress.Vertex{Started: &s.Timestamp}
		for _, l := range f.listeners {
			l.sink.Vertex(l.state(f.state))
		}
	}
	for _, l := range f.listeners {
		s.Vertex = l.vertex.Digest
		l.sink.Status(s)
	}
}

func (f *fan) Log(e progress.Log) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.logs = append(f.logs, e)
	f.kept += len(e.Data)
	for f.kept > maxKept && len(f.logs) > 1 {
		f.kept -= len(f.logs[0].Data)
		f.logs = f.logs[1:]
	}
	for _, l := range f.listeners {
		e.Vertex = l.vertex.Digest
		l.sink.Log(e)
	}
}

func (f *fan) Warning(w progress.Warning) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.warnings = append(f.warnings, w)
	for _, l := range f.listeners {
		w.Vertex = l.vertex.Digest
		l.sink.Warning(w)
	}
}

// stream gives a writer whose bytes become logs.
func (f *fan) stream(number int) io.Writer { return &stream{f, number} }

type stream struct {
	f      *fan
	number int
}

func (s *stream) Write(p []byte) (int, error) {
	if len(p) > 0 {
		s.f.Log(progress.Log{Stream: s.number, Data: slices.Clone(p), Timestamp: time.Now()})
	}
	return len(p), nil
}

// SessionIterator goes over the sessions of those who listen now.
func (f *fan) SessionIterator() bksession.Iterator {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ids []string
	for _, l := range f.listeners {
		for _, id := range session.IDs(l.sessions) {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return session.NewGroup(ids...).SessionIterator()
}

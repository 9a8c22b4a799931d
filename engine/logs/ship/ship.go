package ship

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"berth/engine/logs"
	"berth/engine/logs/sink"
)

// Config is what a Shipper is started with.
type Config struct {
	ID      string // the container
	Spool   string // path of the current file
	Sink    sink.Sink
	Ended   <-chan struct{} // closed when nothing will be written any more; nil: never
	Watcher *logs.Watcher
	Log     *slog.Logger

	NonBlock bool
	Buffer   int64 // of NonBlock: bytes of the spool that wait at most

	// Older is told, in blocking mode, the inode of the file that is being shipped: all older ones were. It is told again now and then,
	// for a keeper that has not heard it, and after an error until there is none: the writer may wait for it.
	Older func(ctx context.Context, inode uint64) error
}

// Status is how a Shipper is doing.
type Status struct {
	Sent    uint64 // records taken, since the spool began
	Dropped uint64 // records passed over, by non-blocking mode or after the last try
	Behind  int64  // bytes of the spool that were not taken yet
	Error   string // why nothing is taken now, "" while all is well
	Since   time.Time
}

// Shipper carries one spool. It runs from Start until the container has ended and everything was taken, or Stop.
type Shipper struct {
	cfg    Config
	cursor *cursor
	cancel context.CancelFunc
	done   chan struct{}

	told     uint64 // inode that Older was told last
	toldAt   time.Time
	dropTold time.Time // when the log said last that records are dropped
	tries    int       // failures in a row with the same first record

	mu       sync.Mutex // guards all below
	status   Status
	finished bool
	reader   *logs.Reader
	pos      logs.Pos // the cursor's
}

// Sizes of a batch.
const (
	batchRecords = 512
	batchBytes   = 64 << 10
)

// Waits after a failure.
const (
	firstWait = 100 * time.Millisecond
	lastWait  = 5 * time.Second
)

// tellAgain is how often Older is told the same.
const tellAgain = 5 * time.Second

// dropWords is how often the log says that records are dropped.
const dropWords = 30 * time.Second

// Start begins to ship.
func Start(cfg Config) (*Shipper, error) {
	c, err := openCursor(cfg.Spool + CursorSuffix)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Shipper{cfg: cfg, cursor: c, cancel: cancel, done: make(chan struct{})}
	s.status.Sent, s.status.Dropped, s.pos = c.sent, c.dropped, c.pos
	go s.run(ctx)
	return s, nil
}

// Stop ends it now and waits for that; what was not taken stays in the spool.
func (s *Shipper) Stop() {
	s.cancel()
	s.mu.Lock()
	r := s.reader
	s.mu.Unlock()
	if r != nil {
		r.Close()
	}
	<-s.done
}

// Done is closed when it has finished or was stopped.
func (s *Shipper) Done() <-chan struct{} { return s.done }

// Finished reports whether everything was taken and nothing will follow.
func (s *Shipper) Finished() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.finished
}

// Status gives how it is doing.
func (s *Shipper) Status() Status {
	s.mu.Lock()
	st, pos := s.status, s.pos
	s.mu.Unlock()
	st.Behind = logs.After(s.cfg.Spool, pos) // not the reader's word: its Next may wait for the writer
	return st
}

func (s *Shipper) run(ctx context.Context) {
	defer close(s.done)
	defer s.cursor.close()
	defer s.cfg.Sink.Close()
	defer s.cancel()
	for next := time.Duration(0); ; {
		before := s.cursor.sent + s.cursor.dropped
		err := s.ship(ctx)
		wait, most := firstWait, 0
		if p, ok := s.cfg.Sink.(sink.Patient); ok {
			wait, most = p.Patience()
			if wait <= 0 { // Docker's drivers take a negative one, too
				wait = firstWait
			}
		}
		next = max(next, wait)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errAll):
			s.mu.Lock()
			s.finished = true
			s.mu.Unlock()
			return
		case errors.Is(err, errUntold): // not the collector's failure
			if !pause(ctx, next) {
				return
			}
			continue
		}
		if s.cursor.sent+s.cursor.dropped != before {
			next, s.tries = wait, 0
		}
		s.tries++
		s.failed(err)
		if most > 0 && s.tries > most {
			s.giveUp(ctx)
			s.tries = 0
		}
		if !pause(ctx, next) {
			return
		}
		next = min(next*2, max(lastWait, wait))
	}
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errUntold: the writer has not heard what was shipped.
var errUntold = errors.New("what was shipped could not be told")

// errAll: all was taken, and nothing follows.
var errAll = errors.New("everything was shipped")

// ship reads and sends until something fails, or errAll. Nothing of a batch is kept over a failure: with
// a thousand containers and no collector that would be much memory.
func (s *Shipper) ship(ctx context.Context) error {
	r, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer s.close(r)
	batch := make([]sink.Record, 0, 16)
	marks := make([]mark, 0, 16)
	for {
		if s.cfg.NonBlock {
			if err := s.trim(ctx, r); err != nil {
				return err
			}
		}
		if r.Gap() {
			s.gap()
		}
		batch, marks = batch[:0], marks[:0]
		m := s.cursor.mark
		for size := 0; len(batch) < batchRecords && size < batchBytes && (len(batch) == 0 || r.Waiting()); {
			l, err := r.Next()
			if err != nil {
				if len(batch) > 0 {
					break // the next round meets it again
				}
				if errors.Is(err, io.EOF) {
					return errAll
				}
				return err
			}
			m.sent++
			m.pos = r.Pos()
			batch = append(batch, record(&l, m.sent+m.dropped))
			marks = append(marks, m)
			size += len(l.Data)
		}
		err := s.cfg.Sink.Send(ctx, batch, func(n int) { s.taken(marks[n-1]) })
		untold := s.tellOlder(ctx)
		if err != nil {
			return err
		}
		s.well()
		if untold != nil {
			return untold
		}
		if cap(batch) > 64 && !r.Waiting() { // what follows may be a long wait, of one among a thousand
			batch, marks = nil, nil
		}
	}
}

func record(l *logs.Line, number uint64) sink.Record {
	r := sink.Record{Stderr: l.Stream == 2, Time: l.Time, Line: l.Data, Part: l.Part, Number: number}
	if n := len(r.Line); n > 0 && r.Line[n-1] == '\n' && (l.Part.Ordinal == 0 || l.Part.Last) {
		r.Line = r.Line[:n-1]
	}
	return r
}

// open opens the spool at the cursor.
func (s *Shipper) open(ctx context.Context) (*logs.Reader, error) {
	r, missed, err := logs.OpenAt(s.cfg.Spool, s.cursor.pos, logs.Options{
		Stdout: true, Stderr: true, Local: true, Tail: -1, Follow: true, Ended: s.cfg.Ended,
	}, s.cfg.Watcher)
	if err != nil {
		return nil, err
	}
	if missed {
		s.gap()
	}
	s.mu.Lock()
	s.reader = r
	s.mu.Unlock()
	if ctx.Err() != nil { // Stop may not have seen it
		s.close(r)
		return nil, ctx.Err()
	}
	if err := s.tellOlder(ctx); err != nil && r.Behind() == 0 { // else what is there goes on its way first
		s.close(r)
		return nil, err
	}
	return r, nil
}

// gap says that there is output which can be neither shipped nor counted.
func (s *Shipper) gap() {
	s.cfg.Log.Warn("output of a container was rotated away before it could be shipped, or its log was cleared", "container", s.cfg.ID)
}

func (s *Shipper) close(r *logs.Reader) {
	s.mu.Lock()
	s.reader = nil
	s.mu.Unlock()
	r.Close()
}

// taken notes how far the collector has taken.
func (s *Shipper) taken(m mark) {
	if err := s.cursor.set(m); err != nil {
		s.cfg.Log.Debug("a cursor is only in memory", "container", s.cfg.ID, "error", err)
	}
	s.mu.Lock()
	s.status.Sent, s.status.Dropped, s.pos = m.sent, m.dropped, m.pos
	s.mu.Unlock()
}

// tellOlder tells of files that are done with.
func (s *Shipper) tellOlder(ctx context.Context) error {
	inode := s.cursor.pos.Inode
	if s.cfg.Older == nil || inode == 0 || inode == s.told && time.Since(s.toldAt) < tellAgain {
		return nil
	}
	if err := s.cfg.Older(ctx, inode); err != nil {
		s.told = 0
		return errUntold
	}
	s.told, s.toldAt = inode, time.Now()
	return nil
}

// trim passes over what lies further back than the buffer holds.
func (s *Shipper) trim(ctx context.Context, r *logs.Reader) error {
	if r.Behind() <= s.cfg.Buffer {
		return nil
	}
	m := s.cursor.mark
	was := m.dropped
	for n := 0; ctx.Err() == nil && (n%64 != 0 || r.Behind() > s.cfg.Buffer); n++ {
		if !r.Waiting() && r.Behind() <= s.cfg.Buffer {
			break
		}
		if _, err := r.Next(); err != nil {
			break
		}
		m.dropped++
	}
	m.pos = r.Pos()
	s.taken(m)
	if time.Since(s.dropTold) > dropWords {
		s.dropTold = time.Now()
		s.cfg.Log.Warn("the collector of a container's log does not keep up: lines are dropped", "container", s.cfg.ID, "now", m.dropped-was, "in all", m.dropped)
	}
	return ctx.Err()
}

// giveUp drops the record that was tried as often as the options say.
func (s *Shipper) giveUp(ctx context.Context) {
	r, err := s.open(ctx)
	if err != nil {
		return
	}
	defer s.close(r)
	if r.Behind() == 0 {
		return
	}
	if _, err := r.Next(); err != nil {
		return
	}
	m := s.cursor.mark
	m.dropped++
	m.pos = r.Pos()
	s.taken(m)
	s.cfg.Log.Warn("a line was dropped after the last try that its log options allow", "container", s.cfg.ID, "in all", m.dropped)
}

func (s *Shipper) failed(err error) {
	s.mu.Lock()
	first := s.status.Error == ""
	s.status.Error = err.Error()
	if first {
		s.status.Since = time.Now()
	}
	s.mu.Unlock()
	if first {
		s.cfg.Log.Warn("the collector of a container's log takes nothing; it is tried again", "container", s.cfg.ID, "error", err)
	}
}

func (s *Shipper) well() {
	s.mu.Lock()
	was, since := s.status.Error, s.status.Since
	s.status.Error, s.status.Since = "", time.Time{}
	s.mu.Unlock()
	if was != "" {
		s.cfg.Log.Info("the collector of a container's log takes lines again", "container", s.cfg.ID, "after", time.Since(since).Round(time.Millisecond))
	}
}

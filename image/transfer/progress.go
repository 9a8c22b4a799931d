package transfer

import (
	"sync"
	"time"
)

// How often the bytes of one layer are told.
const tellEvery = 100 * time.Millisecond

// board passes messages on to whoever watches a request, in order, from a goroutine of its own: a client that reads
// slowly holds up nobody. Byte counts that were not delivered yet are replaced by newer ones.
type board struct {
	tell func(Progress)

	mu      sync.Mutex
	queue   []Progress
	pending map[string]int // by ID: place of an undelivered byte count in queue
	closed  bool
	wake    chan struct{} // holds one
	done    chan struct{}
}

// newBoard starts a board. It is nil, which is a board that tells nobody, when tell is.
func newBoard(tell func(Progress)) *board {
	if tell == nil {
		return nil
	}
	b := &board{tell: tell, pending: map[string]int{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go b.run()
	return b
}

// close delivers what is left and ends the board.
func (b *board) close() {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.signal()
	<-b.done
}

func (b *board) say(p Progress) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.signal()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	counts := p.ID != "" && (p.Current != 0 || p.Total != 0)
	if at, ok := b.pending[p.ID]; ok && counts && b.queue[at].Status == p.Status {
		b.queue[at] = p
		return
	}
	delete(b.pending, p.ID)
	if counts {
		b.pending[p.ID] = len(b.queue)
	}
	b.queue = append(b.queue, p)
}

// status says a line of a layer without counts.
func (b *board) status(id, status string) { b.say(Progress{ID: id, Status: status}) }

func (b *board) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *board) run() {
	defer close(b.done)
	for range b.wake {
		for {
			b.mu.Lock()
			list := b.queue
			b.queue = nil
			clear(b.pending)
			closed := b.closed
			b.mu.Unlock()
			for _, p := range list {
				b.tell(p)
			}
			if len(list) > 0 {
				continue
			}
			if closed {
				return
			}
			break
		}
	}
}

// meter tells how many bytes of something have passed, now and then.
type meter struct {
	say    func(Progress)
	status string
	total  int64
	now    int64
	told   time.Time
}

func (m *meter) add(n int) {
	m.now += int64(n)
	if at := time.Now(); at.Sub(m.told) >= tellEvery {
		m.told = at
		m.say(Progress{Status: m.status, Current: m.now, Total: m.total})
	}
}

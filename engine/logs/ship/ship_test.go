package ship

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth/engine/logs"
	"berth/engine/logs/sink"
	"berth/runtime/keeper/localfile"
)

// collector is a Sink in memory.
type collector struct {
	mu    sync.Mutex
	got   []string
	dead  bool
	hung  bool
	limit int // records taken of one Send, before it breaks; 0: all
	wait  time.Duration
}

func (c *collector) Probe(context.Context) error { return nil }
func (c *collector) Close()                      {}
func (c *collector) set(f func())                { c.mu.Lock(); f(); c.mu.Unlock() }

func (c *collector) Send(ctx context.Context, records []sink.Record, taken func(int)) error {
	for i, r := range records {
		c.mu.Lock()
		dead, hung, limit := c.dead, c.hung, c.limit
		c.mu.Unlock()
		if hung {
			<-ctx.Done()
			return ctx.Err()
		}
		if dead || limit > 0 && i >= limit {
			return errors.New("connection refused")
		}
		if c.wait > 0 {
			time.Sleep(c.wait)
		}
		c.set(func() { c.got = append(c.got, string(r.Line)) })
		taken(i + 1)
	}
	return nil
}

func (c *collector) lines() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.got...)
}

type spool struct {
	t    *testing.T
	path string
	n    int
}

func newSpool(t *testing.T) *spool { return &spool{t: t, path: filepath.Join(t.TempDir(), "spool")} }

func (s *spool) write(n int) {
	s.t.Helper()
	f, err := os.OpenFile(s.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	for range n {
		f.Write(localfile.Append(nil, fmt.Append(nil, "line ", s.n), "stdout", int64(s.n+1), localfile.Partial{}, nil))
		s.n++
	}
}

func (s *spool) rotate(keep int) {
	os.Remove(fmt.Sprintf("%s.%d", s.path, keep))
	for k := keep; k > 1; k-- {
		os.Rename(fmt.Sprintf("%s.%d", s.path, k-1), fmt.Sprintf("%s.%d", s.path, k))
	}
	os.Rename(s.path, s.path+".1")
}

func (s *spool) start(c *collector, change func(*Config)) *Shipper {
	s.t.Helper()
	cfg := Config{ID: "c", Spool: s.path, Sink: c, Watcher: &logs.Watcher{}, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	x, err := Start(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(x.Stop)
	return x
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time: " + what)
		}
	}
}

// inOrder checks that got is line 0, 1, 2 … up to n.
func inOrder(t *testing.T, got []string, n int) {
	t.Helper()
	for i, g := range got {
		if g != fmt.Sprint("line ", i) {
			t.Fatalf("record %d is %q", i, g)
		}
	}
	if len(got) != n {
		t.Fatalf("%d records, want %d", len(got), n)
	}
}

func TestShip(t *testing.T) {
	s, c := newSpool(t), &collector{}
	s.write(1000)
	ended := make(chan struct{})
	var older []uint64
	x := s.start(c, func(cfg *Config) {
		cfg.Ended = ended
		cfg.Older = func(_ context.Context, inode uint64) error { older = append(older, inode); return nil }
	})
	eventually(t, "all is there", func() bool { return len(c.lines()) == 1000 })
	s.rotate(5)
	s.write(10)
	close(ended)
	<-x.Done()
	if !x.Finished() {
		t.Error("not finished")
	}
	inOrder(t, c.lines(), 1010)
	if st := x.Status(); st.Sent != 1010 || st.Behind != 0 || st.Error != "" || st.Dropped != 0 {
		t.Errorf("%+v", st)
	}
	if len(older) != 2 || older[0] == older[1] {
		t.Errorf("%v", older)
	}
}

// TestResume stops shippers at any moment, as a dying engine does, with a collector that breaks now and then: every line comes once.
func TestResume(t *testing.T) {
	s, c := newSpool(t), &collector{limit: 7, wait: 20 * time.Microsecond}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 60 {
			s.write(50)
			if i%4 == 3 {
				s.rotate(100)
			}
			time.Sleep(5 * time.Millisecond)
		}
		close(stop)
	})
	for range 12 {
		x := s.start(c, nil)
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		x.Stop()
	}
	<-stop
	c.set(func() { c.limit = 0 })
	ended := make(chan struct{})
	close(ended)
	x := s.start(c, func(cfg *Config) { cfg.Ended = ended })
	<-x.Done()
	wg.Wait()
	inOrder(t, c.lines(), 3000)
}

// TestDead: a collector that refuses everything costs nothing but time, and what was waiting comes when it is back.
func TestDead(t *testing.T) {
	s, c := newSpool(t), &collector{dead: true}
	s.write(100)
	x := s.start(c, nil)
	eventually(t, "it says why", func() bool { return x.Status().Error == "connection refused" })
	if st := x.Status(); st.Behind == 0 || st.Sent != 0 {
		t.Errorf("%+v", st)
	}
	c.set(func() { c.dead = false })
	eventually(t, "all is there", func() bool { return len(c.lines()) == 100 })
	inOrder(t, c.lines(), 100)
	eventually(t, "all is well", func() bool { return x.Status().Error == "" })
}

// TestHung: one that takes nothing and says nothing does not keep Stop waiting.
func TestHung(t *testing.T) {
	s, c := newSpool(t), &collector{hung: true}
	s.write(10)
	x := s.start(c, nil)
	time.Sleep(30 * time.Millisecond)
	start := time.Now()
	x.Stop()
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("Stop took %v", d)
	}
}

// TestNonBlock: what lies further back than the buffer is dropped, counted, and the rest is the newest.
func TestNonBlock(t *testing.T) {
	s, c := newSpool(t), &collector{dead: true}
	s.write(5000)
	st, _ := os.Stat(s.path)
	x := s.start(c, func(cfg *Config) { cfg.NonBlock, cfg.Buffer = true, st.Size()/10 })
	eventually(t, "it drops", func() bool { return x.Status().Dropped > 0 })
	c.set(func() { c.dead = false })
	s.write(1)
	eventually(t, "the last is there", func() bool { g := c.lines(); return len(g) > 0 && g[len(g)-1] == "line 5000" })
	status := x.Status()
	if got := len(c.lines()); status.Dropped < 4400 || status.Dropped > 4700 || int(status.Dropped)+got != 5001 || int(status.Sent) != got {
		t.Errorf("%d came, %+v", got, status)
	}
}

type impatient struct{ *collector }

func (impatient) Patience() (time.Duration, int) { return time.Millisecond, 3 }

// TestTries: a line that is refused as often as its options allow is dropped, and the next is tried.
func TestTries(t *testing.T) {
	s, c := newSpool(t), &collector{dead: true}
	s.write(2)
	x := s.start(c, func(cfg *Config) { cfg.Sink = impatient{c} })
	eventually(t, "both are dropped", func() bool { return x.Status().Dropped == 2 })
	c.set(func() { c.dead = false })
	s.write(1)
	eventually(t, "the next is there", func() bool { return strings.Join(c.lines(), "") == "line 2" })
}

func TestCursor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	c, err := openCursor(path)
	if err != nil || c.seq != 0 {
		t.Fatal(c, err)
	}
	for i := range uint64(5) {
		if err := c.set(mark{pos: logs.Pos{Inode: i, Off: 7, Head: [24]byte{1, 2}}, sent: i, dropped: 9}); err != nil {
			t.Fatal(err)
		}
	}
	c.close()
	for _, damage := range []struct {
		at   int64
		sent uint64
	}{{-1, 4}, {slotLen + 8, 3}, {slotLen, 3}} {
		b, _ := os.ReadFile(path)
		if damage.at >= 0 {
			b[damage.at] ^= 0xff
			os.WriteFile(path, b, 0o600)
		}
		c, err := openCursor(path)
		if err != nil {
			t.Fatal(err)
		}
		if c.sent != damage.sent || c.pos.Inode != damage.sent || c.pos.Off != 7 || c.pos.Head[1] != 2 || c.dropped != 9 {
			t.Errorf("%+v, want %d", c.mark, damage.sent)
		}
		c.close()
		if damage.at >= 0 {
			b[damage.at] ^= 0xff
			os.WriteFile(path, b, 0o600)
		}
	}
	if _, _, _, ok := ReadMark(filepath.Join(t.TempDir(), "none")); ok {
		t.Error("a mark out of nothing")
	}
}

// swallow is a Sink that takes everything at once.
type swallow struct{ n int }

func (*swallow) Probe(context.Context) error { return nil }
func (*swallow) Close()                      {}
func (s *swallow) Send(_ context.Context, records []sink.Record, taken func(int)) error {
	s.n += len(records)
	taken(len(records))
	return nil
}

// BenchmarkShip is the way from the spool to a collector that costs nothing.
func BenchmarkShip(b *testing.B) {
	path := filepath.Join(b.TempDir(), "spool")
	var all []byte
	for i := range 100_000 {
		all = localfile.Append(all, fmt.Appendf(nil, "%099d", i), "stdout", int64(i+1), localfile.Partial{}, nil)
	}
	if err := os.WriteFile(path, all, 0o600); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(all)))
	ended := make(chan struct{})
	close(ended)
	for b.Loop() {
		os.Remove(path + CursorSuffix)
		x, err := Start(Config{ID: "c", Spool: path, Sink: &swallow{}, Ended: ended, Watcher: &logs.Watcher{}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		<-x.Done()
	}
}

// TestUntold: a writer that has not heard what was shipped is told again although nothing more comes, since it may wait for that, and the
// collector is not to blame.
func TestUntold(t *testing.T) {
	s, c := newSpool(t), &collector{}
	s.write(3)
	var mu sync.Mutex
	told, heard := 0, 0
	x := s.start(c, func(cfg *Config) {
		cfg.Older = func(context.Context, uint64) error {
			mu.Lock()
			defer mu.Unlock()
			if told++; told < 3 {
				return errors.New("the writer sleeps")
			}
			heard++
			return nil
		}
	})
	eventually(t, "it is heard", func() bool { mu.Lock(); defer mu.Unlock(); return heard > 0 })
	inOrder(t, c.lines(), 3)
	if st := x.Status(); st.Error != "" || st.Dropped != 0 {
		t.Errorf("%+v", st)
	}
}

type hasty struct {
	*collector
	tries atomic.Int32
}

func (*hasty) Patience() (time.Duration, int) { return -time.Second, 0 }

func (h *hasty) Send(context.Context, []sink.Record, func(int)) error {
	h.tries.Add(1)
	return errors.New("no")
}

// TestHasty: a wait below zero is none that keeps a core busy.
func TestHasty(t *testing.T) {
	s, h := newSpool(t), &hasty{collector: &collector{}}
	s.write(1)
	s.start(h.collector, func(cfg *Config) { cfg.Sink = h })
	time.Sleep(300 * time.Millisecond)
	if n := h.tries.Load(); n > 4 {
		t.Errorf("%d tries", n)
	}
}

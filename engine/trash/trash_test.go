package trash

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"berth/base/fault"
	"berth/base/removal"
)

// bin is a room in memory.
type bin struct {
	kind  string
	items []removal.Trashed
	fail  error
	done  []string
}

func (b *bin) Trashed() []removal.Trashed { return slices.Clone(b.items) }

func (b *bin) take(id string) (removal.Trashed, error) {
	i := slices.IndexFunc(b.items, func(t removal.Trashed) bool { return t.ID == id })
	if i < 0 {
		return removal.Trashed{}, fault.New(fault.NotFound, "no %s", id)
	}
	if b.fail != nil {
		return removal.Trashed{}, b.fail
	}
	t := b.items[i]
	b.items = slices.Delete(b.items, i, i+1)
	return t, nil
}

func (b *bin) RestoreTrashed(_ context.Context, id string) (removal.Restored, error) {
	t, err := b.take(id)
	if err == nil {
		b.done = append(b.done, "restore "+t.Name)
	}
	return removal.Restored{Trashed: t, Now: []string{t.Name}}, err
}

func (b *bin) DeleteTrashed(_ context.Context, id string) (int64, error) {
	t, err := b.take(id)
	if err == nil {
		b.done = append(b.done, "delete "+t.Name)
	}
	return t.Size, err
}

func (b *bin) add(id, name, with string, age, window time.Duration) {
	at := time.Now().Truncate(time.Second).Add(-age)
	b.items = append(b.items, removal.Trashed{ID: id, Of: id, Kind: b.kind, Name: name, With: with, Size: 10, Removed: at, Expires: at.Add(window)})
}

func TestTrash(t *testing.T) {
	ctx := t.Context()
	c, v := &bin{kind: removal.Container}, &bin{kind: removal.Volume}
	c.add("aaa111", "web", "", time.Hour, 24*time.Hour)
	c.add("bbb222", "web", "", time.Minute, 24*time.Hour)
	v.add("ccc333", "data", "aaa111", time.Hour, 24*time.Hour)
	v.add("ddd444", "other", "", 2*time.Hour, 24*time.Hour)
	tr := Open(Config{Bins: []Bin{c, v}})
	tr.Close()
	var names []string
	for _, x := range tr.List() {
		names = append(names, x.ID)
	}
	if got := strings.Join(names, " "); got != "bbb222 aaa111 ccc333 ddd444" {
		t.Errorf("list %s", got)
	}
	if _, err := tr.Restore(ctx, "web"); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "aaa111") {
		t.Error(err)
	}
	if _, err := tr.Restore(ctx, "nosuch"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	got, err := tr.Restore(ctx, "aaa1")
	if err != nil || len(got) != 2 || got[0].Name != "web" || got[1].Name != "data" || v.done[0] != "restore data" {
		t.Errorf("%+v %v %v", got, err, v.done)
	}
	out, err := tr.Empty(ctx, "web")
	if err != nil || len(out.Removed) != 1 || out.Reclaimed != 10 {
		t.Errorf("%+v %v", out, err)
	}
	v.fail = fault.New(fault.Internal, "stuck")
	if out, err := tr.Empty(ctx, ""); err == nil || len(out.Skipped) != 1 {
		t.Errorf("%+v %v", out, err)
	}
}

func TestTimeAndRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bin{kind: removal.Volume}
		b.add("a", "old", "", 50*time.Minute, time.Hour)
		b.add("b", "young", "", 0, 2*time.Hour)
		b.add("c", "middle", "", time.Minute, 2*time.Hour)
		full := 0
		tr := Open(Config{Bins: []Bin{b}, Full: func() bool { return full > len(b.done) }})
		defer tr.Close()
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		if len(b.done) != 0 {
			t.Errorf("too early: %v", b.done)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := strings.Join(b.done, ","); got != "delete old" {
			t.Errorf("after an hour: %s", got)
		}
		full = 2
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := strings.Join(b.done, ","); got != "delete old,delete middle" {
			t.Errorf("on a full disk: %s", got)
		}
	})
}

// What was restored and removed again since the list was made has a time of its own.
func TestRemovedAnew(t *testing.T) {
	b := &bin{kind: removal.Container}
	b.add("a", "web", "", 2*time.Hour, time.Hour)
	tr := Open(Config{Bins: []Bin{&bin{}}})
	tr.Close()
	stale := entry{b.items[0], b}
	b.items = nil
	b.add("a", "web", "", 0, time.Hour)
	if tr.delete(t.Context(), stale, "its time is over"); len(b.items) != 1 {
		t.Error("the new entry went with the old one's time")
	}
	if tr.delete(t.Context(), entry{b.items[0], b}, "its time is over"); len(b.items) != 0 {
		t.Error("it stays")
	}
}

// A clock that is set ahead, as on machines without one of their own, takes nobody's time away.
func TestClockThatLeaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		b := &bin{kind: removal.Volume}
		b.add("a1", "data", "", 0, time.Hour)
		tr := Open(Config{Bins: []Bin{b}, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
		defer tr.Close()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		ahead.Store(int64(30 * 365 * 24 * time.Hour))
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(tr.List()) != 1 {
			t.Error("an entry went as the clock was set")
		}
		ahead.Store(0) // and back: nothing follows from that
		time.Sleep(23*time.Hour + time.Minute)
		synctest.Wait()
		if len(tr.List()) != 0 {
			t.Error("a day after the leap it is still there")
		}
	})
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/pkg/filters"
	digest "github.com/opencontainers/go-digest"

	"berth/base/failpoint"
	"berth/base/fault"
)

// fakeLayers counts holds of the layers that are there.
type fakeLayers struct {
	mu    sync.Mutex
	holds map[digest.Digest]int
}

func (f *fakeLayers) Retain(chain ...digest.Digest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range chain {
		if _, ok := f.holds[d]; !ok {
			return fault.New(fault.NotFound, "no layer %s", d)
		}
	}
	for _, d := range chain {
		f.holds[d]++
	}
	return nil
}

func (f *fakeLayers) Release(chain ...digest.Digest) []digest.Digest {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range chain {
		f.holds[d]--
		if f.holds[d] < 0 {
			panic("released too often: " + d)
		}
	}
	return nil
}

func layerNo(i int) digest.Digest { return digest.FromString(fmt.Sprint("layer", i)) }

func chain(numbers ...int) []digest.Digest {
	list := []digest.Digest{}
	for _, n := range numbers {
		list = append(list, layerNo(n))
	}
	return list
}

func key(s string) digest.Digest { return digest.FromString("key " + s) }

type bed struct {
	t      *testing.T
	layers *fakeLayers
	root   string
	shared map[digest.Digest]bool
	*Store
}

func open(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, layers: &fakeLayers{holds: map[digest.Digest]int{}}, root: filepath.Join(t.TempDir(), "build"), shared: map[digest.Digest]bool{}}
	for i := range 10 {
		b.layers.holds[layerNo(i)] = 0
	}
	b.reopen()
	return b
}

// reopen opens the cache as after a restart: nobody holds anything.
func (b *bed) reopen() {
	b.t.Helper()
	for d := range b.layers.holds {
		b.layers.holds[d] = 0
	}
	var err error
	b.Store, err = Open(Config{
		Layers: b.layers, Root: b.root,
		Size:   func(digest.Digest) int64 { return 10 },
		Shared: func(d digest.Digest) bool { return b.shared[d] },
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) put(name string, layers ...int) {
	b.t.Helper()
	if err := b.Put(Record{Keys: []digest.Digest{key(name)}, Outputs: [][]digest.Digest{chain(layers...)}, Description: name}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) close() {
	b.t.Helper()
	if err := b.Close(); err != nil {
		b.t.Error(err)
	}
}

// holds lists how often the first layers are held.
func (b *bed) holds() string {
	b.layers.mu.Lock()
	defer b.layers.mu.Unlock()
	var s strings.Builder
	for i := range 5 {
		fmt.Fprint(&s, b.layers.holds[layerNo(i)])
	}
	return s.String()
}

func TestRecordsLast(t *testing.T) {
	b := open(t)
	if b.Lookup(key("a")) != nil {
		t.Error("found in an empty cache")
	}
	if _, err := os.Stat(b.root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty cache left something: %v", err)
	}
	b.put("a", 0, 1)
	b.put("b", 0, 1, 2)
	b.Alias(b.Lookup(key("b")).ID, key("b2"))
	for range 2 {
		for name, want := range map[string][]digest.Digest{"a": chain(0, 1), "b": chain(0, 1, 2), "b2": chain(0, 1, 2)} {
			if r := b.Lookup(key(name)); r == nil || r.Ghost || !slices.Equal(r.Outputs[0], want) {
				t.Errorf("%s: %v", name, r)
			}
		}
		if got := b.holds(); got != "22100" {
			t.Errorf("held %s", got)
		}
		b.close()
		b.reopen()
	}
	if r := b.Lookup(key("b")); r.Uses != 5 { // with the one for the alias
		t.Errorf("used %d times", r.Uses)
	}
	b.close()
}

func TestPutReplaces(t *testing.T) {
	b := open(t)
	b.put("a", 0, 1)
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	b.put("a", 0, 2)
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	if r := b.Lookup(key("a")); !slices.Equal(r.Outputs[0], chain(0, 2)) {
		t.Errorf("%v", r)
	}
	if got := b.holds(); got != "10100" {
		t.Errorf("held %s", got)
	}
	// Replaced before it was written.
	b.put("c", 0, 1)
	b.put("c", 0, 3)
	b.close()
	b.reopen()
	if r := b.Lookup(key("c")); !slices.Equal(r.Outputs[0], chain(0, 3)) {
		t.Errorf("%v", r)
	}
	if got := b.holds(); got != "20110" {
		t.Errorf("held %s", got)
	}
	b.close()
}

func TestLostLayersMakeGhosts(t *testing.T) {
	b := open(t)
	b.put("a", 0, 1)
	b.put("b", 0)
	b.close()
	delete(b.layers.holds, layerNo(1))
	b.reopen()
	if r := b.Lookup(key("a")); r == nil || !r.Ghost {
		t.Errorf("%v", r)
	}
	if r := b.Lookup(key("b")); r == nil || r.Ghost {
		t.Errorf("%v", r)
	}
	if got := b.holds(); got != "10000" {
		t.Errorf("held %s", got)
	}
	// A ghost gives way to a record.
	b.layers.holds[layerNo(1)] = 0
	b.put("a", 0, 1)
	b.close()
	b.reopen()
	if r := b.Lookup(key("a")); r == nil || r.Ghost {
		t.Errorf("%v", r)
	}
	b.close()
}

// slow is a snapshot on its way to the disk.
type slow struct {
	wait     time.Duration
	err      error
	released int
}

func (s *slow) Durable(context.Context) error { time.Sleep(s.wait); return s.err }
func (s *slow) Release()                      { s.released++ }

func TestWrittenWhenDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t)
		good, bad := &slow{wait: time.Minute}, &slow{err: errors.New("I/O error")}
		if err := b.Put(Record{Keys: []digest.Digest{key("a")}, Outputs: [][]digest.Digest{chain(0)}}, good); err != nil {
			t.Fatal(err)
		}
		if err := b.Put(Record{Keys: []digest.Digest{key("b")}, Outputs: [][]digest.Digest{chain(1)}}, bad); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if b.db.open() || b.Lookup(key("a")) == nil {
			t.Error("written before it is durable, or not found before it is written")
		}
		time.Sleep(2 * time.Minute)
		if !b.db.open() || b.Lookup(key("a")) == nil || b.Lookup(key("b")) != nil {
			t.Error("not written, or written though it is not durable")
		}
		if good.released != 1 || bad.released != 1 || b.holds() != "10000" {
			t.Errorf("released %d %d, held %s", good.released, bad.released, b.holds())
		}
		b.close()
	})
}

func TestRetain(t *testing.T) {
	b := open(t)
	b.put("a", 0, 1)
	b.close()
	clear := func() {
		for d := range b.layers.holds {
			b.layers.holds[d] = 0
		}
	}
	clear()
	release, err := Retain(b.root, b.layers)
	if err != nil || b.holds() != "11000" {
		t.Errorf("%v, held %s", err, b.holds())
	}
	release()
	if b.holds() != "00000" {
		t.Errorf("held %s", b.holds())
	}
	if _, err := Retain(filepath.Join(t.TempDir(), "none"), b.layers); err != nil {
		t.Error(err)
	}
}

func TestDamagedFileIsSetAside(t *testing.T) {
	for name, data := range map[string][]byte{"text": []byte(strings.Repeat("not a database ", 1000)), "empty pages": make([]byte, 16384)} {
		b := open(t)
		b.put("a", 0)
		b.close()
		if err := os.WriteFile(filepath.Join(b.root, fileName), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Retain(b.root, b.layers); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		b.reopen()
		if b.Lookup(key("a")) != nil {
			t.Errorf("%s: found", name)
		}
		b.put("a", 0)
		b.close()
		b.reopen()
		if b.Lookup(key("a")) == nil {
			t.Errorf("%s: not remembered", name)
		}
		b.close()
	}
}

func TestDiskUsage(t *testing.T) {
	b := open(t)
	b.shared[layerNo(0)], b.shared[layerNo(1)] = true, true
	b.put("from", 0, 1)
	b.put("run", 0, 1, 2)
	b.put("copy", 0, 1, 2, 3)
	b.put("same", 0, 1, 2)
	all, err := b.DiskUsage(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	names := map[string]string{}
	for _, u := range all {
		names[u.ID] = u.Description
	}
	for _, u := range all {
		var parents []string
		for _, p := range u.Parents {
			parents = append(parents, names[p])
		}
		lines = append(lines, fmt.Sprintf("%s %d %v shared=%v", u.Description, u.Size, parents, u.Shared))
	}
	slices.Sort(lines)
	want := []string{"copy 10 [run] shared=false", "from 20 [] shared=true", "run 10 [from] shared=false", "same 0 [from] shared=false"}
	if !slices.Equal(lines, want) {
		t.Errorf("%s", strings.Join(lines, "\n"))
	}
	for filter, n := range map[string]int{"description==run": 1, "shared": 1, "private": 3, "type==regular": 4, "type==source.local": 0, "inuse": 0, "immutable": 4} {
		if got, err := b.DiskUsage(t.Context(), []string{filter}); err != nil || len(got) != n {
			t.Errorf("%s: %v %v", filter, got, err)
		}
	}
	if _, err := b.DiskUsage(t.Context(), []string{"==="}); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
	b.close()
}

// other is one more thing that takes room.
type other struct{ list []Usage }

func (o *other) Usage(context.Context) ([]Usage, error) { return o.list, nil }
func (o *other) Remove(_ context.Context, id string) error {
	o.list = slices.DeleteFunc(o.list, func(u Usage) bool { return u.ID == id })
	return nil
}

func TestPrune(t *testing.T) {
	for _, c := range []struct {
		name string
		o    PruneOptions
		gone string
		held string
	}{
		{"everything that is private", PruneOptions{}, "mount new old", "11000"},
		{"everything", PruneOptions{All: true}, "from mount new old", "00000"},
		{"what was not used for long", PruneOptions{KeepDuration: 30 * time.Minute}, "old", "22010"},
		{"down to a size, the oldest first", PruneOptions{MaxUsedSpace: 115}, "old", "22010"},
		{"what is reserved stays", PruneOptions{MaxUsedSpace: 1, ReservedSpace: 1000}, "", "33110"},
		{"filters", PruneOptions{Filters: []string{"type==exec.cachemount"}}, "mount", "33110"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := open(t)
			b.shared[layerNo(0)], b.shared[layerNo(1)] = true, true
			o := &other{}
			b.cfg.Others = []Other{o}
			b.put("from", 0, 1)
			b.put("old", 0, 1, 2)
			time.Sleep(time.Hour)
			b.put("new", 0, 1, 3)
			b.Lookup(key("from"))
			o.list = []Usage{{ID: "m", Type: CacheMount, Description: "mount", Size: 100, LastUsed: time.Now()}}
			var gone []string
			if err := b.Prune(t.Context(), c.o, func(u Usage) { gone = append(gone, u.Description) }); err != nil {
				t.Fatal(err)
			}
			slices.Sort(gone)
			if got := strings.Join(gone, " "); got != c.gone || b.holds() != c.held {
				t.Errorf("%s: gone %q, held %s", c.name, got, b.holds())
			}
			// What was removed is remembered as a ghost, unless all was to go.
			r := b.Lookup(key("old"))
			if c.name == "everything" != (r == nil) || r != nil && r.Ghost != strings.Contains(c.gone, "old") {
				t.Errorf("%s: %v", c.name, r)
			}
			b.close()
		})
	}
}

func TestKeep(t *testing.T) {
	for _, c := range []struct {
		o           PruneOptions
		total, free int64
		want        int64
	}{
		{PruneOptions{}, 100, 0, 0},
		{PruneOptions{MaxUsedSpace: 50}, 100, 0, 50},
		{PruneOptions{MinFreeSpace: 30}, 100, 10, 80},
		{PruneOptions{MinFreeSpace: 30}, 100, 40, 100},
		{PruneOptions{MinFreeSpace: 30, MaxUsedSpace: 70}, 100, 10, 70},
		{PruneOptions{MinFreeSpace: 90, MaxUsedSpace: 70, ReservedSpace: 40}, 100, 10, 40},
		{PruneOptions{ReservedSpace: 40}, 100, 10, 40},
	} {
		if got := c.o.keep(c.total, c.free); got != c.want {
			t.Errorf("%+v of %d, %d free: %d", c.o, c.total, c.free, got)
		}
	}
}

// What is built on something goes before it.
func TestChooseOrder(t *testing.T) {
	now := time.Now()
	list := []Usage{{ID: "base", depth: 1, Size: 1, LastUsed: now}, {ID: "top", depth: 3, Size: 1, LastUsed: now}, {ID: "mid", depth: 2, Size: 1, LastUsed: now}}
	got := choose(list, PruneOptions{MaxUsedSpace: 1}, filters.Always, 0, now)
	if len(got) != 2 || got[0].ID != "top" || got[1].ID != "mid" {
		t.Errorf("%v", got)
	}
}

func TestDefaultPolicy(t *testing.T) {
	p := DefaultPolicy(1 << 40)
	if len(p) != 4 || !p[3].All || p[1].MaxUsedSpace != 100<<30 || p[1].ReservedSpace != 10<<30 || p[0].KeepDuration != 48*time.Hour {
		t.Errorf("%+v", p)
	}
	b := open(t)
	b.put("a", 0)
	if err := b.GC(t.Context(), nil); err != nil || b.Lookup(key("a")) == nil {
		t.Errorf("%v", err)
	}
	b.close()
}

// GC rests between collections, and where nothing came since the last.
func TestGCRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t)
		rule := []PruneOptions{{MaxUsedSpace: 25}}
		gc := func() time.Duration {
			t.Helper()
			began := time.Now()
			if err := b.GC(t.Context(), rule); err != nil {
				t.Error(err)
			}
			return time.Since(began)
		}
		b.put("a", 0, 1, 2)
		if took := gc(); took != 0 || !b.Lookup(key("a")).Ghost {
			t.Errorf("took %v", took)
		}
		if took := gc(); took != 0 {
			t.Errorf("took %v", took)
		}
		b.put("b", 0, 1, 3)
		if took := gc(); took != gcPause || !b.Lookup(key("b")).Ghost {
			t.Errorf("took %v", took)
		}
		b.put("c", 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.GC(ctx, rule); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		b.close()
	})
}

// A write that fails loses records and nothing else, and a prune that fails removes nothing.
func TestFailures(t *testing.T) {
	arm := func(s string) {
		t.Helper()
		if err := failpoint.Arm(s); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { failpoint.Arm("") })
	b := open(t)
	b.put("a", 0)
	arm("build/cache-before-write=error")
	if b.flush() == nil {
		t.Error("no error")
	}
	arm("")
	if b.Lookup(key("a")) != nil || b.holds() != "00000" {
		t.Errorf("held %s", b.holds())
	}
	b.put("a", 0)
	arm("build/cache-before-prune=error")
	if b.Prune(t.Context(), PruneOptions{}, func(Usage) { t.Error("told") }) == nil {
		t.Error("no error")
	}
	arm("")
	if r := b.Lookup(key("a")); r == nil || r.Ghost || b.holds() != "10000" {
		t.Errorf("%v, held %s", r, b.holds())
	}
	b.close()
}

func TestTraces(t *testing.T) {
	b := open(t)
	b.Note("slot", Trace{Name: "RUN x", Inputs: []TraceInput{{Name: "ctx", Files: map[string]uint32{"a": 1}}}})
	b.put("a", 0)
	for range 2 {
		if tr := b.Last("slot"); tr == nil || tr.Name != "RUN x" || tr.Inputs[0].Files["a"] != 1 {
			t.Errorf("%v", tr)
		}
		b.close()
		b.reopen()
	}
	if b.Last("none") != nil {
		t.Error("found")
	}
	b.close()
}

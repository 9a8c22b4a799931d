package cache

import (
	"context"
	"fmt"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// A write that fails supersedes nothing: the record that there is holds its layers still.
func TestFailedWriteSupersedesNothing(t *testing.T) {
	b := open(t)
	b.put("a", 0)
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	b.put("a", 1)
	b.put("a", 2)
	b.Note("", Trace{}) // not to be written
	if b.flush() == nil {
		t.Error("no error")
	}
	if r := b.Lookup(key("a")); r == nil || r.Ghost || b.holds() != "10000" {
		t.Errorf("%v, held %s", r, b.holds())
	}
	b.close()
}

// A step may be called by a whole script.
func TestLongNames(t *testing.T) {
	b := open(t)
	name := strings.Repeat("x", 40<<10)
	b.Note(name, Trace{Name: "RUN x"})
	b.put("a", 0)
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	if tr := b.Last(name); tr == nil || tr.Name != "RUN x" {
		t.Errorf("%v", tr)
	}
	if b.Lookup(key("a")) == nil {
		t.Error("the record is lost")
	}
	b.close()
}

// What a collection leaves of records and of builds long ago is bounded.
func TestGCTidies(t *testing.T) {
	b := open(t)
	for i := range maxGhosts + maxGhosts/5 {
		b.put(fmt.Sprint(i), 0)
	}
	for i := range maxTraces + 1 {
		b.Note(fmt.Sprint(i), Trace{})
	}
	if err := b.GC(t.Context(), []PruneOptions{{All: true}}); err != nil {
		t.Fatal(err)
	}
	records, traces := 0, 0
	err := b.db.view(func(tx *bolt.Tx) error {
		records, traces = tx.Bucket(bucketRecords).Stats().KeyN, tx.Bucket(bucketTraces).Stats().KeyN
		return nil
	})
	if err != nil || records != maxGhosts || traces != 0 {
		t.Errorf("%d records, %d traces, %v", records, traces, err)
	}
	b.close()
}

// counts tells how many entries the buckets have.
func (b *bed) counts() (records, held, keys, traces int) {
	b.t.Helper()
	err := b.db.view(func(tx *bolt.Tx) error {
		n := func(name []byte) int { return tx.Bucket(name).Stats().KeyN }
		records, held, keys, traces = n(bucketRecords), n(bucketHolds), n(bucketKeys), n(bucketTraces)
		return nil
	})
	if err != nil {
		b.t.Error(err)
	}
	return records, held, keys, traces
}

// A step that is found by what it reads gets one more key with every base that it is found on.
func TestAliasesAreBounded(t *testing.T) {
	b := open(t)
	b.db.most.aliases = 100
	b.put("a", 0)
	id := b.Lookup(key("a")).ID
	for i := range 200 {
		b.Alias(id, key(fmt.Sprint("alias", i)))
	}
	if b.Lookup(key("alias7")) == nil {
		t.Error("an alias is not found")
	}
	if err := b.GC(t.Context(), []PruneOptions{{MaxUsedSpace: 1 << 40}}); err != nil {
		t.Fatal(err)
	}
	if _, _, keys, _ := b.counts(); keys != 1 {
		t.Errorf("%d keys", keys)
	}
	if b.Lookup(key("a")) == nil || b.Lookup(key("alias7")) != nil {
		t.Error("its own key is gone, or an alias is not")
	}
	// Aliases alone make a collection due.
	b.collected = b.collected.Add(-gcPause)
	for i := range 200 {
		b.Alias(id, key(fmt.Sprint("again", i)))
	}
	if err := b.GC(t.Context(), []PruneOptions{{MaxUsedSpace: 1 << 40}}); err != nil {
		t.Fatal(err)
	}
	if _, _, keys, _ := b.counts(); keys != 1 {
		t.Errorf("%d keys", keys)
	}
	b.close()
}

// Steps that change nothing take no room, and are bounded nevertheless: those that were used last stay.
func TestRecordsAreBounded(t *testing.T) {
	b := open(t)
	b.db.most.records = 50
	for i := range 60 {
		b.put(fmt.Sprint(i))
	}
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	b.Lookup(key("3"))
	if err := b.GC(t.Context(), []PruneOptions{{MaxUsedSpace: 1 << 40}}); err != nil {
		t.Fatal(err)
	}
	if _, held, _, _ := b.counts(); held != 45 {
		t.Errorf("%d records, want 45", held)
	}
	if r := b.Lookup(key("3")); r == nil || r.Ghost {
		t.Errorf("the one that was used is %v", r)
	}
	b.close()
}

// Traces name the files of contexts, which may be many.
func TestTracesAreBounded(t *testing.T) {
	b := open(t)
	b.db.most.traceBytes = 1 << 20
	b.put("a", 0)
	files := map[string]uint32{}
	for i := range 1000 {
		files[fmt.Sprintf("a/long/name/of/a/file/in/a/context/%d", i)] = uint32(i)
	}
	for i := range 2 * maxFiles / len(files) {
		b.Note(fmt.Sprint(i), Trace{Inputs: []TraceInput{{Files: files}}})
	}
	named := 0
	for _, t := range b.last {
		named += len(t.Inputs[0].Files)
	}
	if named != maxFiles {
		t.Errorf("%d files wait", named)
	}
	if err := b.GC(t.Context(), []PruneOptions{{MaxUsedSpace: 1 << 40}}); err != nil {
		t.Fatal(err)
	}
	if _, _, _, traces := b.counts(); traces != 0 {
		t.Errorf("%d traces", traces)
	}
	b.close()
}

// pending is a snapshot on its way to the disk.
type pending struct{ released int }

func (p *pending) Durable(context.Context) error { return nil }
func (p *pending) Release()                      { p.released++ }

// Whatever is wrong with a record, who put it holds nothing afterwards.
func TestPutThatFailsReleases(t *testing.T) {
	b := open(t)
	good := Record{Keys: []digest.Digest{key("a")}, Outputs: [][]digest.Digest{chain(0)}}
	for name, change := range map[string]func(*Record){
		"no keys":    func(r *Record) { r.Keys = nil },
		"no outputs": func(r *Record) { r.Outputs = nil },
		"no digest":  func(r *Record) { r.Outputs = [][]digest.Digest{{"x"}} },
		"no layer":   func(r *Record) { r.Outputs = [][]digest.Digest{{key("layer")}} },
	} {
		r, p := good, &pending{}
		change(&r)
		if err := b.Put(r, p); err == nil || p.released != 1 {
			t.Errorf("%s: %v, released %d times", name, err, p.released)
		}
	}
	b.close()
	p := &pending{}
	if err := b.Put(good, p); err == nil || p.released != 1 || b.holds() != "00000" {
		t.Errorf("closed: %v, released %d times, held %s", err, p.released, b.holds())
	}
}

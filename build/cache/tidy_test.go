package cache

import (
	"fmt"
	"strings"
	"testing"

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

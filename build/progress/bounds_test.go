package progress

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// Who follows a build and does not read costs no more than what he would be told if he came now.
func TestReadersThatDoNotRead(t *testing.T) {
	h := NewHub()
	ctx, cancel := context.WithCancel(t.Context())
	entered, over := make(chan bool), make(chan error)
	h.Vertex(Vertex{Digest: "a"})
	go func() {
		over <- h.Follow(ctx, func(Batch) error {
			entered <- true
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	<-entered
	for i := range 50 * maxBehind {
		h.Status(Status{Vertex: digest.Digest(fmt.Sprint("v", i%3)), ID: fmt.Sprint(i % 2), Current: int64(i)})
	}
	for r := range h.readers {
		if n := len(r.next.Statuses); n > maxBehind {
			t.Errorf("%d statuses wait", n)
		}
		seen := map[statusKey]int64{}
		for _, s := range r.next.Statuses {
			seen[statusKey{s.Vertex, s.ID}] = s.Current
		}
		if len(seen) != 6 || seen[statusKey{"v1", "1"}] < int64(50*maxBehind-6) {
			t.Errorf("%v", seen)
		}
	}
	// Of many parts each has its newest.
	for i := range 3 * maxBehind {
		h.Status(Status{Vertex: "w", ID: fmt.Sprint(i), Current: 1})
	}
	for r := range h.readers {
		seen := map[string]bool{}
		for _, s := range r.next.Statuses {
			seen[s.ID] = seen[s.ID] || s.Vertex == "w"
		}
		for i := range 3 * maxBehind {
			if !seen[fmt.Sprint(i)] {
				t.Fatalf("part %d is lost", i)
			}
		}
	}
	cancel()
	<-over
	for range maxReaders {
		h.readers[&reader{wake: make(chan struct{}, 1)}] = true
	}
	if err := h.Follow(t.Context(), nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("one too many: %v", err)
	}
}

// Warnings are a frontend's own words, and it may have many.
func TestLongWarnings(t *testing.T) {
	h := NewHub()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 20 {
		data := make([]byte, 8<<20)
		for j := range data {
			data[j] = '\n'
		}
		h.Warning(Warning{Short: []byte(fmt.Sprint(i)), Info: &pb.SourceInfo{Filename: "x", Data: data}, Range: []*pb.Range{{Start: &pb.Position{Line: 1 << 20}}}})
		h.Warning(Warning{Detail: [][]byte{data}})
		h.Warning(Warning{Short: []byte("x"), Info: &pb.SourceInfo{Definition: &pb.Definition{Def: [][]byte{data}}}})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 32<<20 {
		t.Errorf("%d MB are kept", kept>>20)
	}
	if len(h.warnings) != 20 {
		t.Errorf("%d warnings", len(h.warnings))
	}
	runtime.KeepAlive(h)
}

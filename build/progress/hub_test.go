package progress

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestLateReadersGetAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHub()
		read := func() string {
			var b strings.Builder
			err := h.Follow(t.Context(), func(batch Batch) error {
				for _, v := range batch.Vertices {
					fmt.Fprintf(&b, "%s:%v ", v.Digest, v.Completed != nil)
				}
				for _, l := range batch.Logs {
					fmt.Fprintf(&b, "%s ", l.Data)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			return b.String()
		}
		var early string
		var all sync.WaitGroup
		all.Go(func() { early = read() })
		synctest.Wait()
		now := time.Now()
		h.Vertex(Vertex{Digest: "a"})
		h.Vertex(Vertex{Digest: "a", Started: &now})
		time.Sleep(time.Second)
		h.Log(Log{Vertex: "a", Data: []byte("hi")})
		end := time.Now()
		h.Vertex(Vertex{Digest: "a", Started: &now, Completed: &end})
		time.Sleep(time.Second)
		again := time.Now()
		h.Vertex(Vertex{Digest: "a", Started: &again})
		h.Close()
		h.Log(Log{Vertex: "a", Data: []byte("too late")})
		all.Wait()
		if early != "a:false a:false a:true hi a:false " {
			t.Errorf("early: %s", early)
		}
		if late := read(); late != "a:true a:false hi " {
			t.Errorf("late: %s", late)
		}
	})
}

func TestClosingDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHub()
		began := time.Now()
		h.Log(Log{Data: []byte("x")})
		h.Close()
		if err := h.Follow(t.Context(), func(Batch) error { return nil }); err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestLogsAreBounded(t *testing.T) {
	h := NewHub()
	line := []byte(strings.Repeat("x", 1<<16))
	for range 1000 {
		h.Log(Log{Vertex: "a", Data: line})
	}
	h.Log(Log{Vertex: "b", Data: line})
	s := h.Snapshot()
	total := 0
	for _, l := range s.Logs {
		total += len(l.Data)
	}
	if total > maxVertexLog+len(line)+100 || s.Logs[len(s.Logs)-1].Vertex != "b" || !strings.Contains(string(s.Logs[len(s.Logs)-2].Data), "clipped") {
		t.Errorf("%d bytes in %d logs", total, len(s.Logs))
	}
}

func TestStatusesKeepTheNewest(t *testing.T) {
	h := NewHub()
	for i := range 100 {
		h.Status(Status{Vertex: "a", ID: "x", Current: int64(i)})
		h.Status(Status{Vertex: "a", ID: "y", Current: int64(i)})
	}
	if s := h.Snapshot().Statuses; len(s) != 2 || s[0].Current != 99 || s[1].ID != "y" {
		t.Errorf("%v", s)
	}
}

func TestReadersEnd(t *testing.T) {
	h := NewHub()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Follow(ctx, func(Batch) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	h.Warning(Warning{Short: []byte("w")})
	broken := errors.New("broken pipe")
	if err := h.Follow(t.Context(), func(Batch) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if len(h.readers) != 0 {
		t.Error("readers are left")
	}
}

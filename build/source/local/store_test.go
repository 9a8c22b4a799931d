package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"berth/base/failpoint"
	"berth/build/session"
)

// reopen is what the next process sees.
func reopen(t *testing.T, root, boot string) *Store {
	t.Helper()
	s := New(Config{Root: root, Boot: boot})
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func trees(t *testing.T, s *Store) (n int) {
	t.Helper()
	list, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestRestart(t *testing.T) {
	for _, x := range []struct {
		name  string
		close bool // cleanly
		boot  string
		want  int
	}{
		{"the engine died", false, "boot-1", 1},
		{"the engine ended", true, "boot-1", 1},
		{"the machine was started anew after the engine ended", true, "boot-2", 1},
		{"the machine died", false, "boot-2", 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			root := t.TempDir()
			m := session.NewManager(nil)
			defer m.Close()
			dir := many(t, 30, 50)
			s := reopen(t, root, "boot-1")
			c := dial(t, m, dir)
			c.sync(s, Request{}).Close()
			if x.close {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			s = reopen(t, root, x.boot)
			if n := trees(t, s); n != x.want {
				t.Fatalf("%d trees, want %d", n, x.want)
			}
			write(t, dir, map[string]string{"d0000/file001.txt": "changed"})
			tr := c.sync(s, Request{})
			mustEqual(t, tr, dir)
			tr.Close()
			// A mark of an earlier boot does not speak for what was changed in this one.
			if s = reopen(t, root, "boot-3"); trees(t, s) != 0 {
				t.Error("a tree that was changed and not made durable counts after the machine died")
			}
		})
	}
}

// TestDiedInSync: a tree without an index is one that nobody knows.
func TestDiedInSync(t *testing.T) {
	for _, point := range []string{"build/tree-changing", "build/before-tree-index"} {
		t.Run(point, func(t *testing.T) {
			root := t.TempDir()
			m := session.NewManager(nil)
			defer m.Close()
			dir := many(t, 30, 50)
			s := reopen(t, root, "b")
			c := dial(t, m, dir)
			c.sync(s, Request{}).Close()
			write(t, dir, map[string]string{"d0000/file001.txt": "changed"})
			if err := failpoint.Arm(point + "=error"); err != nil {
				t.Fatal(err)
			}
			_, err := c.try(s, Request{})
			if aerr := failpoint.Arm(""); aerr != nil {
				t.Fatal(aerr)
			}
			if err == nil {
				t.Fatal("nothing failed")
			}
			s = reopen(t, root, "b")
			tr := c.sync(s, Request{})
			defer tr.Close()
			mustEqual(t, tr, dir)
		})
	}
}

func TestDamagedIndex(t *testing.T) {
	s, m := newStore(t)
	dir := many(t, 10, 50)
	c := dial(t, m, dir)
	tr := c.sync(s, Request{})
	index := filepath.Join(filepath.Dir(tr.Dir()), fileIndex)
	tr.Close()
	raw, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"short": raw[:len(raw)-1], "empty": nil, "flipped": append(append([]byte{}, raw[:len(raw)-5]...), 'x', 'x', 'x', 'x', 'x')} {
		list, _ := filepath.Glob(filepath.Join(s.cfg.Root, "*", fileIndex))
		for _, p := range list {
			if err := os.WriteFile(p, bad, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		tr := c.sync(s, Request{})
		mustEqual(t, tr, dir)
		tr.Close()
		t.Log(name)
	}
}

func TestUsageAndRemove(t *testing.T) {
	s, m := newStore(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "12345", "b": "123"})
	c := dial(t, m, dir)
	tr := c.sync(s, Request{})
	list, err := s.Usage(t.Context())
	if err != nil || len(list) != 1 || list[0].Size != 8 || !list[0].InUse || list[0].Type != "source.local" {
		t.Fatalf("%+v %v", list, err)
	}
	if err := s.Remove(t.Context(), list[0].ID); err != nil || trees(t, s) != 1 {
		t.Fatal("a tree in use was removed", err)
	}
	tr.Close()
	if err := s.Remove(t.Context(), list[0].ID); err != nil || trees(t, s) != 0 {
		t.Fatal("not removed", err)
	}
	tr = c.sync(s, Request{})
	defer tr.Close()
	mustEqual(t, tr, dir)
}

// TestManyFilters: each set of filters makes a tree; the oldest go.
func TestManyFilters(t *testing.T) {
	s, m := newStore(t)
	c := dial(t, m, many(t, 20, 50))
	for i := range maxSiblings * 3 {
		c.sync(s, Request{Exclude: []string{fmt.Sprintf("d0000/file%03d.txt", i)}}).Close()
	}
	if n := trees(t, s); n != maxSiblings {
		t.Errorf("%d trees are kept, want %d", n, maxSiblings)
	}
}

func TestClosed(t *testing.T) {
	s, m := newStore(t)
	c := dial(t, m, t.TempDir())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sync(context.Background(), c.id, c.caller, Request{Name: "context"}, nil); err == nil {
		t.Error("a closed store took a context")
	}
}

// TestEmptyContext: that nothing was sent is remembered too.
func TestEmptyContext(t *testing.T) {
	s, m := newStore(t)
	c := dial(t, m, t.TempDir())
	first := c.sync(s, Request{})
	place := first.Dir()
	first.Close()
	again := c.sync(s, Request{})
	defer again.Close()
	if again.Dir() != place {
		t.Error("an empty context was fetched anew")
	}
}

// Package contexts has the two ends of a context's transfer meet: Berth's own client, BuildKit's, and the builder.
package contexts

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	bksession "github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"

	"berth/build/session"
	"berth/build/source/local"
	"berth/cli/build/batches"
)

// offer connects a client that offers dir as "context", with BuildKit's service and, unless stock, Berth's.
func offer(t testing.TB, m *session.Manager, dir string, stock bool) (string, session.Caller) {
	t.Helper()
	plain, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	root, err := fsutil.NewFilterFS(plain, &fsutil.FilterOpt{Map: func(_ string, st *types.Stat) fsutil.MapResult {
		st.Uid, st.Gid = 0, 0
		return fsutil.MapResultKeep
	}})
	if err != nil {
		t.Fatal(err)
	}
	own, err := batches.New(map[string]fsutil.FS{"context": plain})
	if err != nil {
		t.Fatal(err)
	}
	s, err := bksession.NewSession(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	s.Allow(filesync.NewFSSyncProvider(filesync.StaticDirSource{"context": root}))
	if !stock {
		s.Allow(own)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx, func(_ context.Context, _ string, meta map[string][]string) (net.Conn, error) {
			mine, err := net.Dial("unix", l.Addr().String())
			if err != nil {
				return nil, err
			}
			theirs, err := l.Accept()
			if err != nil {
				return nil, err
			}
			go func() { _ = m.HandleConn(ctx, theirs, meta) }()
			return mine, nil
		})
	}()
	t.Cleanup(func() {
		_ = s.Close()
		cancel()
		<-done
	})
	c, err := m.Get(t.Context(), s.ID())
	if err != nil {
		t.Fatal(err)
	}
	return s.ID(), c
}

func open(t testing.TB) (*local.Store, *session.Manager) {
	s, m := local.New(local.Config{Root: filepath.Join(t.TempDir(), "trees")}), session.NewManager(nil)
	t.Cleanup(func() {
		_ = m.Close()
		_ = s.Close()
	})
	return s, m
}

func sync(t testing.TB, s *local.Store, id string, c session.Caller, req local.Request) *local.Tree {
	t.Helper()
	req.Name = "context"
	tr, err := s.Sync(context.Background(), id, c, req, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func look(t testing.TB, dir string) map[string]string {
	t.Helper()
	list := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprint(fi.Mode(), fi.ModTime().UnixNano())
		if fi.Mode().IsRegular() {
			raw, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %x", sha256.Sum256(raw))
		}
		list[p[len(dir):]] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func many(t testing.TB, n, size int) string {
	t.Helper()
	dir := t.TempDir()
	body := make([]byte, size)
	for i := range n {
		p := filepath.Join(dir, fmt.Sprintf("d%04d", i/100))
		if i%100 == 0 {
			if err := os.Mkdir(p, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		copy(body, fmt.Sprint(i))
		if err := os.WriteFile(filepath.Join(p, fmt.Sprintf("ä%03d", i%100)), body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBothClientsGiveTheSame(t *testing.T) {
	s, m := open(t)
	dir := many(t, 1500, 40_000)
	if err := os.Link(filepath.Join(dir, "d0000/ä001"), filepath.Join(dir, "z")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	want := look(t, dir)
	for round := range 4 {
		id, c := offer(t, m, dir, round%2 == 1)
		tr := sync(t, s, id, c, local.Request{})
		if got := look(t, tr.Dir()); !maps.Equal(got, want) {
			t.Errorf("round %d: %d files, want %d", round, len(got), len(want))
		}
		tr.Close()
		if round == 1 { // something changes, and Berth's client is first to tell
			if err := os.WriteFile(filepath.Join(dir, "d0001/ä007"), []byte("changed"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(dir, "d0002")); err != nil {
				t.Fatal(err)
			}
			want = look(t, dir)
		}
	}
	for _, stock := range []bool{false, true} {
		id, c := offer(t, m, dir, stock)
		tr := sync(t, s, id, c, local.Request{Include: []string{"**/ä00?"}, Exclude: []string{"d0001"}, Follow: []string{"z"}})
		names := slices.Sorted(maps.Keys(look(t, tr.Dir())))
		if tr.Close(); len(names) != 10*13+13+1 {
			t.Errorf("filtered, stock %v: %d files", stock, len(names))
		}
	}
	id, c := offer(t, m, dir, false)
	if _, err := s.Sync(t.Context(), id, c, local.Request{Name: "elsewhere"}, nil); err == nil {
		t.Error("a directory that nobody offers was given")
	}
}

// BenchmarkUnchanged is a context of 100,000 files of which none has changed, with both clients.
func BenchmarkUnchanged(b *testing.B) {
	dir := many(b, 100_000, 10)
	for _, stock := range []bool{false, true} {
		b.Run(fmt.Sprintf("stock=%v", stock), func(b *testing.B) {
			s, m := open(b)
			id, c := offer(b, m, dir, stock)
			sync(b, s, id, c, local.Request{}).Close()
			for b.Loop() {
				sync(b, s, id, c, local.Request{}).Close()
			}
		})
	}
}

package local

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	bksession "github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"

	"berth/build/session"
)

// client is a stock client of a build: BuildKit's own session and file sync, over a socket.
type client struct {
	t      testing.TB
	dir    string
	caller session.Caller
	id     string
	close  func()
}

// dial connects a client that offers dir as "context".
func dial(t testing.TB, m *session.Manager, dir string) *client {
	t.Helper()
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	fs, err = fsutil.NewFilterFS(fs, &fsutil.FilterOpt{Map: func(_ string, st *types.Stat) fsutil.MapResult {
		st.Uid, st.Gid = 0, 0
		return fsutil.MapResultKeep
	}})
	if err != nil {
		t.Fatal(err)
	}
	return dialWith(t, m, dir, filesync.NewFSSyncProvider(filesync.StaticDirSource{"context": fs}))
}

func dialWith(t testing.TB, m *session.Manager, key string, a bksession.Attachable) *client {
	t.Helper()
	s, err := bksession.NewSession(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	s.Allow(a)
	ours, theirs := socketPair(t)
	ctx, cancel := context.WithCancel(context.Background())
	run, handled := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(run)
		_ = s.Run(ctx, func(_ context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			go func() {
				defer close(handled)
				_ = m.HandleConn(ctx, ours, meta)
			}()
			return theirs, nil
		})
	}()
	c := &client{t: t, dir: key, id: s.ID(), close: func() {
		_ = s.Close()
		cancel()
		<-run
		<-handled
	}}
	if c.caller, err = m.Get(t.Context(), c.id); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

func socketPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		got <- c
	}()
	if a, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	return a, <-got
}

func newStore(t testing.TB) (*Store, *session.Manager) {
	t.Helper()
	s := New(Config{Root: filepath.Join(t.TempDir(), "trees")})
	m := session.NewManager(nil)
	t.Cleanup(func() {
		_ = m.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, m
}

// write makes files: "dir/" is a directory, "a -> b" a symbolic link, "a => b" another name.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *client) sync(s *Store, r Request) *Tree {
	c.t.Helper()
	t, err := c.try(s, r)
	if err != nil {
		c.t.Fatal(err)
	}
	return t
}

func (c *client) try(s *Store, r Request) (*Tree, error) {
	if r.Name == "" {
		r.Name = "context"
	}
	return s.Sync(context.Background(), c.id, c.caller, r, nil)
}

// many makes a directory of n files in directories of a hundred.
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
		if err := os.WriteFile(filepath.Join(p, fmt.Sprintf("file%03d.txt", i%100)), body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

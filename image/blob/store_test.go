package blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
)

var ctx = context.Background()

func open(t testing.TB, root string) *Store {
	t.Helper()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPutReadReopen(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	hello := digest.FromString("hello")
	long := digest.SHA512.FromString("long")
	for d, text := range map[digest.Digest]string{hello: "hello", long: "long"} {
		if got, err := s.Put(ctx, Want{Digest: d, Size: int64(len(text))}, strings.NewReader(text)); err != nil || got != d {
			t.Fatalf("%v %v", got, err)
		}
	}
	if d, err := s.Put(ctx, Want{}, strings.NewReader("hello")); err != nil || d != hello {
		t.Errorf("%v %v", d, err)
	}
	s = open(t, root)
	for d, text := range map[digest.Digest]string{hello: "hello", long: "long"} {
		if b, err := s.Read(d, 100); err != nil || string(b) != text {
			t.Errorf("%q %v", b, err)
		}
		if err := s.Retain(ctx, d); err != nil {
			t.Error(err)
		}
	}
	s.Release(long)
	if s.Has(long) || !s.Has(hello) {
		t.Error("only the released blob must be gone")
	}
	if _, err := s.Open(long); fault.KindOf(err) != fault.NotFound {
		t.Errorf("%v", err)
	}
	s = open(t, root)
	if n := s.Sweep(); n != 1 || s.Has(hello) {
		t.Errorf("swept %d", n)
	}
}

func TestWhatIsNotAsAnnouncedIsNotStored(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	for name, c := range map[string]struct {
		want Want
		text string
	}{
		"digest":    {Want{Digest: digest.FromString("other")}, "hello"},
		"too long":  {Want{Digest: digest.FromString("hello"), Size: 3}, "hello"},
		"too short": {Want{Digest: digest.FromString("hello"), Size: 30}, "hello"},
		"limit":     {Want{Max: 4}, "hello"},
		"algorithm": {Want{Digest: "md5:5d41402abc4b2a76b9719d911017c592"}, "hello"},
		"path":      {Want{Digest: "sha256:../../etc/passwd"}, "hello"},
	} {
		if _, err := s.Put(ctx, c.want, strings.NewReader(c.text)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(root, "*", "*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	if len(s.blobs) != 0 {
		t.Errorf("remembers %v", s.blobs)
	}
}

func TestDamageOnDiskIsSeen(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	d, _ := s.Put(ctx, Want{}, strings.NewReader("hello"))
	os.WriteFile(filepath.Join(root, "sha256", d.Encoded()), []byte("jello"), 0o600)
	if _, err := s.Read(d, 100); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("%v", err)
	}
	if _, err := s.Read(d, 3); fault.KindOf(err) != fault.Invalid {
		t.Errorf("%v", err)
	}
}

// slow gives its bytes when told to, and counts readers.
type slow struct {
	data    io.Reader
	release chan struct{}
	reads   *atomic.Int64
	err     error
}

func (s *slow) Read(p []byte) (int, error) {
	s.reads.Add(1)
	<-s.release
	if s.err != nil {
		return 0, s.err
	}
	return s.data.Read(p)
}

func TestWritersOfOneBlobShare(t *testing.T) {
	for _, firstFails := range []bool{false, true} {
		s := open(t, t.TempDir())
		text := strings.Repeat("x", 1000)
		d := digest.FromString(text)
		release, reads := make(chan struct{}), &atomic.Int64{}
		var wg sync.WaitGroup
		var failed atomic.Int64
		first := &slow{strings.NewReader(text), release, reads, nil}
		if firstFails {
			first.err = errors.New("lost")
		}
		started := make(chan struct{})
		wg.Add(1)
		go func() {
			defer wg.Done()
			w, err := s.Writer(ctx, Want{Digest: d})
			close(started)
			if err != nil || w == nil {
				t.Errorf("%v %v", w, err)
				return
			}
			defer w.Abort()
			if _, err := io.Copy(w, first); err != nil {
				failed.Add(1)
				return
			}
			w.Commit()
		}()
		<-started
		for range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if _, err := s.Put(ctx, Want{Digest: d}, strings.NewReader(text)); err != nil {
					t.Error(err)
				}
			}()
		}
		close(release)
		wg.Wait()
		want := 9
		if firstFails {
			want = 8
		}
		if st := s.blobs[d]; st == nil || st.holds != want {
			t.Errorf("first fails %v: %+v, want %d holds", firstFails, st, want)
		}
	}
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	s := open(t, t.TempDir())
	d := digest.FromString("x")
	w, err := s.Writer(ctx, Want{Digest: d})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	c, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Put(c, Want{Digest: d}, strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestFsyncsAndFailures(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	before := atomicfile.Syncs()
	s.Put(ctx, Want{}, strings.NewReader("a"))
	if n := atomicfile.Syncs() - before; n != 2 {
		t.Errorf("%d fsyncs, want 2", n)
	}
	t.Cleanup(func() { failpoint.Arm("") })
	for _, p := range []string{"blob/before-sync", "blob/before-name"} {
		failpoint.Arm(p + "=error")
		if _, err := s.Put(ctx, Want{}, strings.NewReader("b")); err == nil {
			t.Errorf("%s: no error", p)
		}
		failpoint.Arm("")
		if s.Has(digest.FromString("b")) {
			t.Errorf("%s: the blob is there", p)
		}
		if left, _ := os.ReadDir(filepath.Join(root, "tmp")); len(left) != 0 {
			t.Errorf("%s: left %v", p, left)
		}
	}
	if _, err := s.Put(ctx, Want{}, strings.NewReader("b")); err != nil {
		t.Errorf("after the failures: %v", err)
	}
}

// Holds and deletions at random must never delete what is held nor leave what is not.
func TestHoldsUnderLoad(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 100 {
				text := string(rune('a' + (g+i)%3))
				d, err := s.Put(ctx, Want{Digest: digest.FromString(text)}, strings.NewReader(text))
				if err != nil {
					t.Error(err)
					return
				}
				if b, err := s.Read(d, 10); err != nil || !bytes.Equal(b, []byte(text)) {
					t.Errorf("held blob: %q %v", b, err)
				}
				s.Release(d)
			}
		}()
	}
	wg.Wait()
	if left, _ := filepath.Glob(filepath.Join(root, "*", "*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

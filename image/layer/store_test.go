package layer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/tarstream"
	"berth/image/archive"
	"berth/image/layer"
	"berth/image/layer/layertest"
	"berth/kernel/probe"
	"berth/kernel/tree"
)

func openStore(t testing.TB, cfg layer.Config) *layer.Store {
	t.Helper()
	s, err := layer.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSuite(t *testing.T) {
	for name, cfg := range map[string]layer.Config{
		"host":       {},
		"old kernel": {Facts: probe.Host().Without(probe.OverlayAppend)},
		"userxattr":  {UserXattr: true},
	} {
		t.Run(name, func(t *testing.T) {
			layertest.Run(t, func(t *testing.T, root string) layertest.Store {
				c := cfg
				c.Root = root
				return openStore(t, c)
			})
		})
	}
}

func needRoot(t testing.TB) {
	if os.Getuid() != 0 {
		t.Skip("needs root: owners and trusted attributes")
	}
}

func TestOneOwner(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, layer.Config{Root: root})
	if _, err := layer.Open(layer.Config{Root: root}); fault.KindOf(err) != fault.Conflict {
		t.Errorf("%v", err)
	}
	s.Close()
	openStore(t, layer.Config{Root: root}).Close()
}

func TestCommitFailsWhole(t *testing.T) {
	needRoot(t)
	ctx := context.Background()
	for _, p := range []string{"layer/before-sync=error", "layer/before-rename=error", "layer/before-rename=error:2"} {
		s := openStore(t, layer.Config{Root: t.TempDir()})
		var staged []*layer.Staged
		for _, n := range []string{"a", "b"} {
			st, err := s.Stage(ctx, bytes.NewReader(layertest.Tar(t, layertest.Entry{Name: n})), "")
			if err != nil {
				t.Fatal(err)
			}
			staged = append(staged, st)
		}
		t.Cleanup(func() { failpoint.Arm("") })
		failpoint.Arm(p)
		if err := s.Commit(staged...); err == nil {
			t.Errorf("%s: no error", p)
		}
		failpoint.Arm("")
		for _, st := range staged {
			if s.Has(st.DiffID) {
				t.Errorf("%s: half committed", p)
			}
			st.Drop()
		}
		s.Close()
	}
}

// One syncfs (not counted) and one fsync of the directory, however many layers.
func TestFsyncs(t *testing.T) {
	needRoot(t)
	ctx := context.Background()
	s := openStore(t, layer.Config{Root: t.TempDir()})
	defer s.Close()
	var staged []*layer.Staged
	for _, n := range []string{"a", "b", "c"} {
		st, err := s.Stage(ctx, bytes.NewReader(layertest.Tar(t, layertest.Entry{Name: n})), "")
		if err != nil {
			t.Fatal(err)
		}
		staged = append(staged, st)
	}
	before := atomicfile.Syncs()
	if err := s.Commit(staged...); err != nil {
		t.Fatal(err)
	}
	if n := atomicfile.Syncs() - before; n != 1 {
		t.Errorf("commit: %d fsyncs, want 1", n)
	}
	before = atomicfile.Syncs()
	if _, err := s.Create(ctx, "c", []digest.Digest{staged[0].DiffID}, layer.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := atomicfile.Syncs() - before; n != 0 {
		t.Errorf("create: %d fsyncs, want none", n)
	}
}

// A process killed in the middle of a commit must leave a store that opens, with each layer whole or absent.
func TestKilledInCommit(t *testing.T) {
	needRoot(t)
	if root := os.Getenv("LAYER_TEST_ROOT"); root != "" {
		failpoint.Arm(os.Getenv(failpoint.Env))
		s := openStore(t, layer.Config{Root: root})
		for _, n := range []string{"a", "b", "c"} {
			s.Add(context.Background(), bytes.NewReader(layertest.Tar(t, layertest.Entry{Name: n, Body: strings.Repeat(n, 1000)})), "")
		}
		return
	}
	for _, p := range []string{"layer/before-sync=kill", "layer/before-rename=kill:2", "layer/after-rename=kill:2", "layer/after-rename=kill:3"} {
		root := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledInCommit$")
		cmd.Env = append(os.Environ(), "LAYER_TEST_ROOT="+root, failpoint.Env+"="+p)
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Fatalf("%s: survived: %s", p, out)
		}
		s := openStore(t, layer.Config{Root: root})
		for _, i := range s.List() {
			if err := s.Retain(i.DiffID); err != nil {
				t.Fatal(err)
			}
			if err := s.Tar(context.Background(), i.DiffID, io.Discard); err != nil {
				t.Errorf("%s: %v", p, err)
			}
		}
		s.WaitTrash(context.Background())
		if left, _ := os.ReadDir(filepath.Join(root, "tmp")); len(left) != 0 {
			t.Errorf("%s: left %v", p, left)
		}
		s.Close()
	}
}

func TestDamagedLayerIsSeen(t *testing.T) {
	needRoot(t)
	ctx := context.Background()
	root := t.TempDir()
	s := openStore(t, layer.Config{Root: root})
	defer s.Close()
	info, err := s.Add(ctx, bytes.NewReader(layertest.Tar(t, layertest.Entry{Name: "f", Body: "right"})), "")
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(root, "d", "*", "fs", "f"))
	os.WriteFile(files[0], []byte("wrong"), 0o644)
	if err := s.Tar(ctx, info.DiffID, io.Discard); err == nil || !strings.Contains(err.Error(), "damaged on disk") {
		t.Errorf("%v", err)
	}
}

func TestLimitsReachTheTar(t *testing.T) {
	s := openStore(t, layer.Config{Root: t.TempDir(), Limits: archive.Limits{Bytes: 3, Limits: tarstream.Limits{}}})
	defer s.Close()
	_, err := s.Add(context.Background(), bytes.NewReader(layertest.Tar(t, layertest.Entry{Name: "f", Body: "four"})), "")
	if fault.KindOf(err) != fault.Invalid {
		t.Errorf("%v", err)
	}
}

func TestWithChain(t *testing.T) {
	needRoot(t)
	ctx := context.Background()
	s := openStore(t, layer.Config{Root: t.TempDir()})
	defer s.Close()
	var chain []digest.Digest
	for _, n := range []string{"a", "b"} {
		info, err := s.Add(ctx, bytes.NewReader(layertest.Tar(t, layertest.Entry{Name: n, Body: n})), "")
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, info.DiffID)
	}
	for n := 1; n <= 2; n++ {
		err := s.WithChain(ctx, chain[:n], func(root *tree.Dir) error {
			names, err := root.Names()
			if len(names) != n {
				t.Errorf("%v", names)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	boom := errors.New("boom")
	if err := s.WithChain(ctx, chain, func(*tree.Dir) error { return boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
}

func BenchmarkCreateRemove(b *testing.B) {
	needRoot(b)
	ctx := context.Background()
	s := openStore(b, layer.Config{Root: b.TempDir()})
	defer s.Close()
	var chain []digest.Digest
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		info, err := s.Add(ctx, bytes.NewReader(layertest.Tar(b, layertest.Entry{Name: n, Body: n})), "")
		if err != nil {
			b.Fatal(err)
		}
		chain = append(chain, info.DiffID)
	}
	for b.Loop() {
		if _, err := s.Create(ctx, "c", chain, layer.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
		s.Remove("c")
	}
}

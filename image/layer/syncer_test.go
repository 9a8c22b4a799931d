package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openHere(t *testing.T) *Store {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	s, err := Open(Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealFile seals a layer of one file, the same for the same name.
func sealFile(t *testing.T, s *Store, name string) Info {
	t.Helper()
	d, err := s.Draft(plainDir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Drop()
	path := filepath.Join(d.Upper(), name)
	if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	info, err := s.Seal(t.Context(), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// The kernel tells once that something was lost. Whoever gets to hear it, what was written before is never called durable.
func TestLostWrites(t *testing.T) {
	s := openHere(t)
	var broken atomic.Bool
	whole := s.disk.syncfs
	s.disk.syncfs = func() error {
		if broken.Swap(false) {
			return unix.EIO
		}
		return whole()
	}
	stage := func(name string) *Staged {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg})
		w.Close()
		st, err := s.Stage(t.Context(), &b, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(st.Drop)
		return st
	}
	st, sealed := stage("staged"), sealFile(t, s, "sealed")
	broken.Store(true)
	_ = s.flush.sync(0) // in the background, where nobody sees what it says
	if err := s.Commit(st); !errors.Is(err, unix.EIO) || s.Has(st.DiffID) {
		t.Errorf("%v", err)
	}
	for range 2 {
		if err := s.Durable(t.Context(), sealed.DiffID); !errors.Is(err, unix.EIO) {
			t.Errorf("%v", err)
		}
	}
	if _, err := os.Stat(s.path("d", shortName(sealed.DiffID), "layer.json")); !os.IsNotExist(err) {
		t.Errorf("it has its name: %v", err)
	}
	// What comes later is another matter.
	if err := s.Commit(stage("other")); err != nil {
		t.Error(err)
	}
	if err := s.Durable(t.Context(), sealFile(t, s, "another").DiffID); err != nil {
		t.Error(err)
	}
	if err := s.Close(); !errors.Is(err, unix.EIO) {
		t.Errorf("%v", err)
	}
}

// A layer that goes and is sealed again while the disk is at work gets its name with the next sync.
func TestSealedAgainMeanwhile(t *testing.T) {
	s := openHere(t)
	defer s.Close()
	first := sealFile(t, s, "a")
	whole := s.disk.syncfs
	var again atomic.Bool
	s.disk.syncfs = func() error {
		err := whole()
		if !again.Swap(true) {
			s.Release(first.DiffID)
			if second := sealFile(t, s, "a"); second.DiffID != first.DiffID {
				t.Errorf("%s is not %s", second.DiffID, first.DiffID)
			}
		}
		return err
	}
	if err := s.harden(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.path("d", shortName(first.DiffID), "pending.json")); err != nil {
		t.Error("it was named without having been synced")
	}
	if err := s.Durable(t.Context(), first.DiffID); err != nil {
		t.Error(err)
	}
}

// A layer that was lost on its way to the disk, and is still held, is whole again when a step makes it once more.
func TestLostIsSealedAgain(t *testing.T) {
	s := openHere(t)
	var broken atomic.Bool
	whole := s.disk.syncfs
	s.disk.syncfs = func() error {
		if broken.Swap(false) {
			return unix.EIO
		}
		return whole()
	}
	first := sealFile(t, s, "a")
	broken.Store(true)
	if err := s.Durable(t.Context(), first.DiffID); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	place := s.path("d", shortName(first.DiffID), "fs", "a")
	var old, now unix.Stat_t
	if err := unix.Stat(place, &old); err != nil {
		t.Fatal(err)
	}
	again := sealFile(t, s, "a")
	if again.DiffID != first.DiffID || s.Holds(first.DiffID) != 2 {
		t.Errorf("%s with %d holds", again.DiffID, s.Holds(first.DiffID))
	}
	if err := unix.Stat(place, &now); err != nil || now.Ino == old.Ino {
		t.Errorf("the lost file is still there: %v", err)
	}
	if err := s.Durable(t.Context(), first.DiffID); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.path("d", shortName(first.DiffID), "layer.json")); err != nil {
		t.Error(err)
	}
	// One that is well stays where it is.
	if sealFile(t, s, "a"); unix.Stat(place, &old) != nil || old.Ino != now.Ino {
		t.Error("a layer that is whole was replaced")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if s, err := Open(Config{Root: s.cfg.Root}); err != nil {
		t.Error(err)
	} else {
		if left, _ := os.ReadDir(s.path("v")); !s.Has(first.DiffID) || len(left) != 0 {
			t.Errorf("after a restart: here %v, %d left aside", s.Has(first.DiffID), len(left))
		}
		s.Close()
	}
}

// A view that waits to be unmounted goes with the store, and nothing of it comes afterwards.
func TestCloseEndsRetiring(t *testing.T) {
	s := openHere(t)
	dir := s.path("tmp", "shown")
	if err := os.MkdirAll(filepath.Join(dir, "fs"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.retire(dir)
	if left, _ := os.ReadDir(s.path("v")); len(left) != 1 {
		t.Fatalf("%d are aside", len(left))
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(s.path("v")); len(left) != 0 {
		t.Errorf("%d are aside", len(left))
	}
	if s.retired != nil {
		t.Error("a timer is left")
	}
}

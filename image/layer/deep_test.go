package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"berth/kernel/tree"
)

// makeDeep makes directories below each other, more than any path can name.
func makeDeep(t *testing.T, dir string, depth int) {
	t.Helper()
	at, err := tree.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range depth {
		if err := at.Mkdir("d", 0o755); err != nil {
			t.Fatal(err)
		}
		sub, err := at.Sub("d")
		if err != nil {
			t.Fatal(err)
		}
		at.Close()
		at = sub
	}
	f, err := at.Create("file", 0o644)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("12345"))
	f.Close()
	at.Close()
}

// few lets the process have few descriptors more than it has.
func few(t *testing.T, more int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc")
	}
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	now := unix.Rlimit{Cur: uint64(len(list) + more), Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &was) })
}

// A step decides how deep a tree is, and not how many descriptors it takes to measure and to delete it.
func TestDeepTrees(t *testing.T) {
	const depth = 3000
	s := openHere(t)
	defer s.Close()
	d, err := s.Draft(plainDir)
	if err != nil {
		t.Fatal(err)
	}
	makeDeep(t, d.Upper(), depth)
	few(t, 250)
	if sp, err := Measure(t.Context(), d.Upper()); err != nil || sp.Size != 5 {
		t.Errorf("%+v, %v", sp, err)
	}
	// No archive can name it. Nor does the error name it once for every directory, which would be megabytes.
	if _, err := s.Seal(t.Context(), d, nil); err == nil {
		t.Error("it is a layer")
	} else if n := len(err.Error()); n > 10_000 || !strings.Contains(err.Error(), "no path may be longer") {
		t.Errorf("an error of %d bytes: %.100s", n, err)
	}
	d.Drop()
	if err := s.WaitTrash(t.Context()); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(s.path("trash", "*")); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// moving is a context that is asked in every directory, and moves one away when it is asked in one that lies deep.
type moving struct {
	context.Context
	asked, times int
	move         func() error
	t            *testing.T
}

func (m *moving) Err() error {
	if m.asked++; m.asked%80 == 79 && m.times > 0 {
		m.times--
		if err := m.move(); err != nil {
			m.t.Error(err)
		}
	}
	return nil
}

// A container that runs moves directories while they are measured. That is nobody's error, unless it never ends.
func TestMeasureWhatMoves(t *testing.T) {
	for times, fine := range map[int]bool{1: true, measureTries - 1: true, 100: false} {
		dir := t.TempDir()
		makeDeep(t, dir, 90)
		ctx := &moving{Context: t.Context(), times: times, t: t}
		ctx.move = func() error { // another directory takes the place of the fourth one
			aside := fmt.Sprint(dir, "/aside", ctx.asked)
			if err := os.Rename(dir+"/d/d/d/d", aside); err != nil {
				return err
			}
			if err := os.Mkdir(dir+"/d/d/d/d", 0o755); err != nil {
				return err
			}
			return os.Rename(aside+"/d", dir+"/d/d/d/d/d")
		}
		sp, err := Measure(ctx, dir)
		if fine && (err != nil || sp.Size != 5) || !fine && !errors.Is(err, unix.ESTALE) {
			t.Errorf("moved %d times: %+v, %v", times, sp, err)
		}
	}
}

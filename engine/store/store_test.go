package store

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"berth/base/atomicfile"
	"berth/base/id"
	"berth/engine/container"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

type roots struct{ data, exec string }

func newRoots(t *testing.T) roots { return roots{t.TempDir(), t.TempDir()} }

// open opens a store. It is closed with its test, also where it stands for one whose engine was killed: what it writes by itself half a second
// later would be counted among another test's fsyncs.
func (r roots) open(t *testing.T, boot string) (*Store, map[string]Loaded, []string) {
	t.Helper()
	s, all, half, err := Open(r.data, r.exec, boot, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	byID := map[string]Loaded{}
	for _, l := range all {
		byID[l.Record.ID] = l
	}
	return s, byID, half
}

func add(t *testing.T, s *Store) *container.Record {
	t.Helper()
	r := &container.Record{Version: container.Version, ID: id.New(), Name: "n", Created: time.Unix(1, 0).UTC(), Spec: &container.Spec{Image: "i"}}
	if err := s.MakeDir(r.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(r); err != nil {
		t.Fatal(err)
	}
	return r
}

func running(pid int) Standing {
	return Standing{State: container.State{Status: container.Running, Running: true, Pid: pid}, RestartCount: 2, RestartWait: time.Second}
}

// The engine is killed: no Close. Another one in the same boot knows everything.
func TestSurvivesDeathOfTheEngine(t *testing.T) {
	dirs := newRoots(t)
	s, _, _ := dirs.open(t, "boot1")
	a, b := add(t, s), add(t, s)
	s.SetStanding(a.ID, running(1))
	s.SetStanding(a.ID, running(2))
	code := 3
	s.SetExec(Exec{ID: "e", Container: a.ID, Running: true, Pid: 9})
	s.SetExec(Exec{ID: "e", Container: a.ID, ExitCode: &code})
	a.Name = "renamed"
	if err := s.Write(a); err != nil {
		t.Fatal(err)
	}

	for range 2 { // opening twice changes nothing
		s, all, half := dirs.open(t, "boot1")
		if len(all) != 2 || len(half) != 0 {
			t.Fatalf("%d containers, half %v", len(all), half)
		}
		if got := all[a.ID]; !reflect.DeepEqual(got.Record, a) || got.Standing != running(2) || got.Boot != "boot1" {
			t.Errorf("%+v", got)
		}
		if got := all[a.ID].Execs; len(got) != 1 || got[0].Running || *got[0].ExitCode != 3 {
			t.Errorf("%+v", got)
		}
		if got := all[b.ID]; got.Standing.State.Status != container.Created || got.Boot != "" {
			t.Errorf("%+v", got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The machine goes down and EXEC-ROOT is empty afterwards: the disk knows what was true a second before.
func TestSurvivesReboot(t *testing.T) {
	dirs := newRoots(t)
	var a *container.Record
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := dirs.open(t, "boot1")
		a = add(t, s)
		before := atomicfile.Syncs()
		s.SetStanding(a.ID, running(1))
		s.SetStanding(a.ID, running(2))
		if n := atomicfile.Syncs() - before; n != 0 {
			t.Errorf("%d fsyncs on the path of a start", n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := atomicfile.Syncs() - before; n != 1 {
			t.Errorf("%d fsyncs for both, want 1", n)
		}
	})
	os.RemoveAll(dirs.exec)
	os.Mkdir(dirs.exec, 0o700)
	_, all, _ := dirs.open(t, "boot2")
	if got := all[a.ID]; got.Standing != running(2) || got.Boot != "boot1" {
		t.Errorf("%+v", got)
	}
}

func TestCreateAndRemoveAreDurable(t *testing.T) {
	dirs := newRoots(t)
	synctest.Test(t, func(t *testing.T) { createAndRemove(t, dirs) }) // what is written behind has its own fsync, half a second later
}

func createAndRemove(t *testing.T, dirs roots) {
	s, _, _ := dirs.open(t, "b")
	before := atomicfile.Syncs()
	a := add(t, s)
	if n := atomicfile.Syncs() - before; n != 3 {
		t.Errorf("create: %d fsyncs, want the file's, its directory's and the parent's", n)
	}
	s.SetStanding(a.ID, Standing{Op: "remove", State: container.State{Status: container.Removing}})
	before = atomicfile.Syncs()
	for range 2 {
		if err := s.Remove(a.ID); err != nil {
			t.Fatal(err)
		}
	}
	if n := atomicfile.Syncs() - before; n != 2 {
		t.Errorf("two removals: %d fsyncs, want 2", n)
	}
	os.Mkdir(filepath.Join(dirs.data, "containers", gonePrefix+a.ID), 0o700) // killed before the files were deleted
	_, all, half := dirs.open(t, "b")
	left, _ := os.ReadDir(filepath.Join(dirs.data, "containers"))
	if len(all) != 0 || len(half) != 0 || len(left) != 0 {
		t.Errorf("%v %v %v", all, half, left)
	}
}

func TestHalfCreatedAndUnreadable(t *testing.T) {
	dirs := newRoots(t)
	s, _, _ := dirs.open(t, "b")
	half, sick, well := id.New(), add(t, s).ID, add(t, s).ID
	s.MakeDir(half)
	os.WriteFile(filepath.Join(s.Dir(half), ".tmp-container.json-1"), []byte("{"), 0o600)
	os.WriteFile(filepath.Join(s.Dir(sick), recordFile), []byte("{"), 0o600)
	s2, all, halves := dirs.open(t, "b")
	if len(all) != 1 || all[well].Record == nil || fmt.Sprint(halves) != "["+half+"]" {
		t.Errorf("%v %v", all, halves)
	}
	if err := s2.Abandon(half); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s2.Dir(sick)); err != nil {
		t.Error("a container that cannot be read was deleted")
	}
}

// A container whose record has gone is not a creation that was cut off: nothing of it is swept, at no start, and when the record is put
// back it stands where it stood.
func TestRecordIsLost(t *testing.T) {
	for _, damage := range []func(path string) error{os.Remove, func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) }} {
		dirs := newRoots(t)
		s, _, _ := dirs.open(t, "b")
		a, other := add(t, s), add(t, s)
		s.SetStanding(a.ID, running(7))
		s.SetStanding(other.ID, running(8))
		s.Close()
		path := filepath.Join(s.Dir(a.ID), recordFile)
		text, _ := os.ReadFile(path)
		if err := damage(path); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			s, all, half := dirs.open(t, "b")
			if len(all) != 1 || len(half) != 0 || !s.Left(a.ID) || s.Left(other.ID) {
				t.Fatalf("%v, half %v", all, half)
			}
			if err := s.Renew(map[string]Standing{other.ID: running(8)}); err != nil {
				t.Fatal(err)
			}
			s.Close()
		}
		os.WriteFile(path, text, 0o600)
		s, all, _ := dirs.open(t, "b")
		if len(all) != 2 || all[a.ID].Standing != running(7) || all[other.ID].Standing != running(8) {
			t.Errorf("%+v", all)
		}
		s.Close()
	}
}

// The machine's clock is set back: what was noted last holds all the same.
func TestClockIsSetBack(t *testing.T) {
	dirs := newRoots(t)
	s, _, _ := dirs.open(t, "b")
	a := add(t, s)
	s.stamp.last.Store(time.Now().Add(time.Hour).UnixNano()) // as if it was noted an hour from now
	for _, pid := range []int{1, 2} {
		if err := s.SetStanding(a.ID, running(pid)); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	for pid := 3; pid < 5; pid++ {
		os.RemoveAll(dirs.exec) // a reboot, after which the clock is right again
		os.Mkdir(dirs.exec, 0o700)
		s, all, _ := dirs.open(t, fmt.Sprint("b", pid))
		if got := all[a.ID].Standing; got != running(pid-1) {
			t.Errorf("%+v", got)
		}
		s.SetStanding(a.ID, running(pid))
		s.Flush()
	}
	if _, all, _ := dirs.open(t, "b"); all[a.ID].Standing != running(4) {
		t.Errorf("%+v", all[a.ID].Standing)
	}
}

func TestStraysOfOthers(t *testing.T) {
	for name, ours := range map[string]bool{".gone-x": true, ".tmp-x-1": true, ".snapshots": false, "notes": false, ".zfs": false} {
		if Ours(name) != ours {
			t.Errorf("%s: %v", name, !ours)
		}
	}
}

func TestTornAndForeignLines(t *testing.T) {
	dirs := newRoots(t)
	s, _, _ := dirs.open(t, "b")
	a := add(t, s)
	s.SetStanding(a.ID, running(7))
	f, _ := os.OpenFile(filepath.Join(dirs.exec, "states.journal"), os.O_APPEND|os.O_WRONLY, 0)
	f.WriteString("\x00\x00\n{}\n" + `{"id":"ghost","boot":"b","time":"2030-01-01T00:00:00Z","standing":{}}` + "\n" + `{"id":"` + a.ID + `","standing":{"sta`)
	f.Close()
	_, all, _ := dirs.open(t, "b")
	if got := all[a.ID]; got.Standing != running(7) {
		t.Errorf("%+v", got)
	}
	os.WriteFile(filepath.Join(dirs.data, "states.journal"), []byte(`{"format":"berth-states","version":2}`+"\n"), 0o600)
	if _, _, _, err := Open(dirs.data, dirs.exec, "b", quiet()); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a newer journal: %v", err)
	}
}

func TestCompaction(t *testing.T) {
	dirs := newRoots(t)
	s, _, _ := dirs.open(t, "b")
	a, b := add(t, s), add(t, s)
	var wg sync.WaitGroup
	for _, r := range []*container.Record{a, b} {
		wg.Go(func() {
			for i := range 3000 {
				s.SetStanding(r.ID, running(i))
				if i%1000 == 999 {
					s.compact() // while the other one writes
				}
			}
		})
	}
	wg.Wait()
	s.Remove(b.ID)
	s.compact()
	for s.now.bloated() {
		t.Fatal("still bloated")
	}
	text, _ := os.ReadFile(filepath.Join(dirs.exec, "states.journal"))
	if strings.Count(string(text), "\n") > 2500 {
		t.Errorf("%d lines", strings.Count(string(text), "\n"))
	}
	_, all, _ := dirs.open(t, "b")
	if got := all[a.ID]; got.Standing != running(2999) {
		t.Errorf("%+v", got)
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"format":"berth-states","version":1}` + "\n" + `{"id":"x","boot":"b","time":"2030-01-01T00:00:00Z","standing":{"state":{"Status":"running"}}}` + "\n"))
	f.Add([]byte(`{"id":"e","exec":{"id":"e","container":"x"}}` + "\n{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ls := newLines()
		readJournal(b, ls)
		ls.keep(func(string) bool { return false })
		if len(ls.standings)+len(ls.execs) != 0 {
			t.Error("kept what belongs to no record")
		}
	})
}

func BenchmarkSetStanding(b *testing.B) {
	s, _, _, err := Open(b.TempDir(), b.TempDir(), "b", quiet())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.SetStanding("x", running(1))
	}
}

// A trash that cannot be looked into may hold anything: what belongs to its containers stays.
func TestTrashThatCannotBeRead(t *testing.T) {
	r := newRoots(t)
	s, _, _ := r.open(t, "boot")
	cid := id.New()
	if s.InTrash(cid) {
		t.Error("nothing was removed")
	}
	if err := os.WriteFile(filepath.Join(r.data, "containers", trashDir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !s.InTrash(cid) {
		t.Error("it is not known to be elsewhere")
	}
}

package image

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// A database that is damaged in any way is set aside, the copy of the last start takes its place, and nothing is lost before somebody says so.
func TestDamagedDatabase(t *testing.T) {
	for way, spoil := range map[string]func(path string) error{
		"garbage":   func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("garbage", 5000)), 0o600) },
		"empty":     func(p string) error { return os.Truncate(p, 0) },
		"truncated": func(p string) error { st, _ := os.Stat(p); return os.Truncate(p, st.Size()/2) },
		"missing":   os.Remove,
		"a page of noise": func(p string) error {
			b, err := os.ReadFile(p)
			for i := 2 * 4096; i < len(b); i++ {
				b[i] = byte(i * 7)
			}
			return errorsJoin(err, os.WriteFile(p, b, 0o600))
		},
	} {
		t.Run(way, func(t *testing.T) {
			h := open(t)
			h.load(makeSample(t, nil, tarOf(t, "a", "1")).dockerArchive(t, "one:1"))
			h.reopen() // the copy is as of now
			h.load(makeSample(t, nil, tarOf(t, "b", "2")).dockerArchive(t, "two:1"))
			if err := h.Close(); err != nil {
				t.Fatal(err)
			}
			// The end copies, too; an engine that is killed does not.
			os.Remove(filepath.Join(h.root, "images.db.old"))
			h.Store = nil
			h.reopen()
			h.load(makeSample(t, nil, tarOf(t, "c", "3")).dockerArchive(t, "three:1"))
			layers, documents := h.counts()
			old, err := os.ReadFile(filepath.Join(h.root, "images.db.old"))
			if err != nil {
				t.Fatal(err)
			}
			h.Close()
			os.WriteFile(filepath.Join(h.root, "images.db.old"), old, 0o600)
			if err := spoil(filepath.Join(h.root, "images.db")); err != nil {
				t.Fatal(err)
			}
			h.Store = nil
			h.reopen()
			for _, name := range []string{"one:1", "two:1"} {
				if _, err := h.Resolve(name); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if _, err := h.Resolve("three:1"); err == nil && way == "truncated" {
				return // what was cut off was not in use
			}
			if l, d := h.counts(); l != layers || d != documents {
				t.Errorf("%d layers and %d documents, there were %d and %d: something was swept", l, d, layers, documents)
			}
			found, err := h.Check(t.Context())
			if err != nil || found.OK() || found.Damages[0].Part != PartDatabase && !strings.Contains(found.Damages[len(found.Damages)-1].Subject, "damaged") {
				t.Errorf("%+v %v", found, err)
			}
			for range 2 { // the second time without what kept everything
				found, _ = h.Fsck(t.Context(), nil)
				if err := h.Repair(t.Context(), found, nil); err != nil {
					t.Fatal(err)
				}
			}
			if found, err = h.Check(t.Context()); err != nil || !found.OK() {
				t.Errorf("after the repair: %+v %v", found.Damages, err)
			}
		})
	}
}

// A database that cannot be opened for a reason of the machine's is not damaged: nothing is set aside, and the next start has it.
func TestDatabaseOutOfReach(t *testing.T) {
	h := open(t)
	h.load(makeSample(t, nil, tarOf(t, "a", "1")).dockerArchive(t, "one:1"))
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h.Store = nil
	path := filepath.Join(h.root, "images.db")
	if err := errorsJoin(os.Rename(path, path+".there"), os.Symlink("images.db", path)); err != nil {
		t.Fatal(err)
	}
	if db, err := openOrRescue(h.root, slog.New(slog.DiscardHandler)); err == nil || errors.Is(err, errDamaged) {
		db.Close()
		t.Errorf("a link to itself was opened: %v", err)
	}
	if aside, _ := filepath.Glob(filepath.Join(h.root, dbSetAside+"*")); len(aside) > 0 {
		t.Errorf("set aside: %v", aside)
	}
	os.Rename(path+".there", path)
	h.reopen()
	if _, err := h.Resolve("one:1"); err != nil {
		t.Error(err)
	}
	for err, machine := range map[error]bool{syscall.ENOMEM: true, syscall.EMFILE: true, fs.ErrPermission: false, &fs.PathError{Err: syscall.EACCES}: true, syscall.ENOSPC: true, syscall.EIO: false, syscall.EUCLEAN: false, errDamaged: false} {
		if ofTheMachine(err) != machine {
			t.Errorf("%v: %v", err, !machine)
		}
	}
}

// Whatever is done to the bytes of a database, opening it is an error or works: nothing panics.
func FuzzPages(f *testing.F) {
	path := filepath.Join(f.TempDir(), "db")
	db, err := openDB(path)
	if err != nil {
		f.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for i := range 500 {
			if err := tx.Bucket(bucketImages).Put(fmt.Appendf(nil, "sha256:%064d", i), []byte(strings.Repeat("{}", i))); err != nil {
				return err
			}
		}
		return nil
	})
	db.Close()
	whole, rerr := os.ReadFile(path)
	if err != nil || rerr != nil {
		f.Fatal(err, rerr)
	}
	f.Add(uint32(0), []byte{})
	f.Add(uint32(8200), []byte{1, 2, 3})
	f.Add(uint32(16), []byte{0xff})
	f.Fuzz(func(t *testing.T, at uint32, over []byte) {
		b := append([]byte(nil), whole...)
		copy(b[int(at)%len(b):], over)
		path := filepath.Join(t.TempDir(), "db")
		os.WriteFile(path, b, 0o600)
		if db, err := openSafely(path); err == nil {
			db.Close()
		}
	})
}

func errorsJoin(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

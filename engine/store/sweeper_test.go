package store

import (
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

func TestSweeperDeletesAll(t *testing.T) {
	root := t.TempDir()
	w := sweeper{log: slog.New(slog.DiscardHandler)}
	for i := range 3 * sweepBacklog {
		dir := filepath.Join(root, strconv.Itoa(i))
		if err := os.MkdirAll(filepath.Join(dir, "below"), 0o700); err != nil {
			t.Fatal(err)
		}
		w.take(dir)
		if _, err := os.Lstat(dir); err == nil && !w.has(dir) {
			if _, err := os.Lstat(dir); err == nil { // it may have gone in between
				t.Fatalf("%s is there and is not known to wait", dir)
			}
		}
	}
	if err := w.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("%d are left, %v", len(left), err)
	}
	w.take(filepath.Join(root, "none")) // one that is not there, after a rest
	w.close()
	late := filepath.Join(root, "late")
	if err := os.Mkdir(late, 0o700); err != nil {
		t.Fatal(err)
	}
	w.take(late)
	if _, err := os.Lstat(late); err != nil || !w.has(late) {
		t.Errorf("what is taken after the end is for the next start: %v", err)
	}
}

package idmap

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAs(t *testing.T) {
	root(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	sentinel := errors.New("x")
	err := As(1234, 1235, func() error {
		if err := os.WriteFile(file, nil, 0o600); err != nil { // the directory is root's: capabilities are kept
			return err
		}
		return sentinel
	})
	if err != sentinel {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil || st.Uid != 1234 || st.Gid != 1235 {
		t.Errorf("made as %d:%d, %v", st.Uid, st.Gid, err)
	}
	if !isFS(0, 0) {
		t.Error("the thread is not itself again")
	}
}

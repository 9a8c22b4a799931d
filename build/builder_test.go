package build

import (
	"path/filepath"
	"testing"
	"time"

	"berth/base/fault"
)

// A build that does not end, as its process sleeps in the kernel, does not keep the engine from its end.
func TestCloseWithoutEnd(t *testing.T) {
	dir := t.TempDir()
	b, err := Open(Config{DataRoot: filepath.Join(dir, "data"), ExecRoot: filepath.Join(dir, "exec")})
	if err != nil {
		t.Fatal(err)
	}
	b.patience = 10 * time.Millisecond
	b.working.Add(1)
	defer b.working.Done()
	closed := make(chan error, 1)
	go func() { closed <- b.Close() }()
	select {
	case err := <-closed:
		if !fault.Is(err, fault.Deadline) {
			t.Errorf("closed: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the builder waits for ever")
	}
}

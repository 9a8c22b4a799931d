package exec

import (
	"context"
	"log/slog"
	"os"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"berth/kernel/tree"
)

// A step decides how deep the directories of a cache mount are, beyond what any path can name. What that takes to delete is not one of the
// engine's descriptors for each.
func TestDeepCacheIsDeleted(t *testing.T) {
	root := t.TempDir()
	c, err := openCaches(root, slog.New(slog.DiscardHandler))
	must(t, err)
	nest := func(dir string) error {
		at, err := tree.OpenDir(dir)
		for range 3000 {
			if err != nil {
				return err
			}
			var sub *tree.Dir
			if err = at.Mkdir("d", 0o755); err == nil {
				sub, err = at.Sub("d")
			}
			at.Close()
			at = sub
		}
		if err == nil {
			at.Close()
		}
		return err
	}
	h, err := c.get(context.Background(), "key", "", pb.CacheSharingOpt_SHARED, nest)
	must(t, err)
	h.release()

	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc")
	}
	var was unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(list) + 250), Max: was.Max}))
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &was) })
	must(t, c.remove(h.d.id))
	must(t, c.close())
	if left, err := os.ReadDir(root); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

package local

import (
	"context"
	"testing"

	"github.com/moby/buildkit/session/filesync"
)

// BenchmarkUnchangedPeer is BenchmarkUnchanged done by BuildKit's library, without what BuildKit adds to it: the digests.
func BenchmarkUnchangedPeer(b *testing.B) {
	_, m := newStore(b)
	dir, dest := many(b, 100_000, 10), b.TempDir()
	c := dial(b, m, dir)
	sync := func() {
		if err := filesync.FSSync(context.Background(), c.caller, filesync.FSSendRequestOpt{Name: "context", DestDir: dest}); err != nil {
			b.Fatal(err)
		}
	}
	sync()
	for b.Loop() {
		sync()
	}
}

package transfer

import (
	"os"
	"testing"

	"berth/base/ref"
)

// BenchmarkPull pulls BERTH_BENCH_IMAGE, HOST/REPOSITORY:TAG at a registry that somebody has started, into a new store each time: for profiles.
// Figures beside the floor and Docker are test/bench's.
func BenchmarkPull(b *testing.B) {
	name := os.Getenv("BERTH_BENCH_IMAGE")
	if name == "" {
		b.Skip("needs BERTH_BENCH_IMAGE: an image at a registry")
	}
	n, err := ref.Parse(name)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		e := newEngine(b, nil)
		if _, err := e.Pull(ctx, PullRequest{Name: n}); err != nil {
			b.Fatal(err)
		}
	}
}

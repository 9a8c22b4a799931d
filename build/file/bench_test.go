package file

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"berth/kernel/tree"
)

// BenchmarkCopy copies a context as the measurements have it, between plain directories: the floor of what a COPY costs.
func BenchmarkCopy(b *testing.B) {
	for _, bb := range []struct {
		name       string
		files, dir int
		size       int
	}{
		{"2000x27KB", 2000, 20, 27 << 10},
		{"20000x1KB", 20000, 50, 1 << 10},
	} {
		b.Run(bb.name, func(b *testing.B) {
			src := b.TempDir()
			content := make([]byte, bb.size)
			for i := range bb.files {
				dir := filepath.Join(src, fmt.Sprint("d", i/bb.dir))
				if err := os.MkdirAll(dir, 0o755); err != nil {
					b.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("f", i)), content, 0o644); err != nil {
					b.Fatal(err)
				}
			}
			from, err := tree.OpenDir(src)
			if err != nil {
				b.Fatal(err)
			}
			defer from.Close()
			for b.Loop() {
				b.StopTimer()
				dir := b.TempDir()
				to, err := tree.OpenDir(dir)
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := copyTo(b.Context(), from, place{root: to}, copyOf("/", "/", dockerfile), nil); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				to.Close()
				os.RemoveAll(dir)
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*bb.files), "µs/file")
		})
	}
}

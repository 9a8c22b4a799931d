package oracle

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"
)

const tenSteps = `FROM busybox
ARG SEED=%d
RUN echo $SEED >/seed
WORKDIR /app
COPY src src
RUN find src -type f | wc -l >/count
ENV A=1
RUN mkdir -p out && cp -r src/d1 out/
COPY src/d2 /app/two
RUN rm -r /app/out && echo done >/done
LABEL bench=1
RUN cat /count /done >/all
CMD ["cat", "/all"]
`

// BenchmarkTenSteps builds a context of 2,000 files and 55 MB, new each time, with the builder alone: no command line, no API.
func BenchmarkTenSteps(b *testing.B) {
	if os.Getuid() != 0 || ociRuntime() == "" {
		b.Skip("needs root, and runc or crun")
	}
	for _, who := range []struct {
		name  string
		start func(testing.TB) *client.Client
	}{{"Berth", startBerth}, {"BuildKit", startBuildKit}} {
		b.Run(who.name, func(b *testing.B) {
			bases := newBases(b)
			c := who.start(b)
			n := 0
			var cpu float64
			for b.Loop() {
				b.StopTimer()
				dir := filepath.Join(b.TempDir(), fmt.Sprint(n))
				n++
				fill(b, dir, uint64(n))
				before := used()
				b.StartTimer()
				fs, err := fsutil.NewFS(dir)
				if err != nil {
					b.Fatal(err)
				}
				opt := client.SolveOpt{
					Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{"force-network-mode": "host", "context:busybox": bases.attrs["context:busybox"]},
					LocalMounts: map[string]fsutil.FS{"context": fs, "dockerfile": fs}, OCIStores: map[string]content.Store{storeName: bases},
					AllowedEntitlements: []string{"network.host"},
				}
				if _, err := c.Solve(context.Background(), nil, opt, nil); err != nil {
					b.Fatal(err)
				}
				cpu += used() - before
			}
			b.ReportMetric(cpu/float64(n)*1000, "cpu-ms/op")
		})
	}
}

// used is the processor's time of this process and of its children that have ended, in seconds.
func used() (sum float64) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			sum += float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
		}
	}
	return sum
}

func fill(b *testing.B, dir string, seed uint64) {
	b.Helper()
	r := rand.New(rand.NewPCG(seed, seed))
	body := make([]byte, 28_000)
	for i := range 2000 {
		for k := range body {
			body[k] = byte(r.Uint32())
		}
		path := filepath.Join(dir, "src", fmt.Sprintf("d%d", i/50), fmt.Sprintf("f%d", i%50))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, body, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), fmt.Appendf(nil, tenSteps, seed), 0o644); err != nil {
		b.Fatal(err)
	}
}

package buildkit_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
)

// A Dockerfile becomes an image in the store, over the wire; the second time everything is cached and the image is the same.
func TestBuildFromScratch(t *testing.T) {
	b := newBench(t)
	dir := b.context("Dockerfile", "FROM scratch\nCOPY hello.txt /greeting/\nENV A=b\nCMD [\"/x\"]\n", "hello.txt", "hello\n")
	moby := func(o *client.SolveOpt) {
		o.Exports = []client.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": "docker.io/library/hello:1"}}}
	}
	first := b.build(dir, moby)
	if first.err != nil {
		t.Fatal(first.err)
	}
	id := first.resp.ExporterResponse["containerimage.config.digest"]
	if !strings.HasPrefix(id, "sha256:") {
		t.Fatalf("response %v has no configuration's digest", first.resp.ExporterResponse)
	}
	img, err := b.images.Resolve("hello:1")
	if err != nil {
		t.Fatal(err)
	}
	if string(img.ID) != id {
		t.Errorf("the name stands for %s, the client was told %s", img.ID, id)
	}
	second := b.build(dir, moby)
	if second.err != nil {
		t.Fatal(second.err)
	}
	if got := second.resp.ExporterResponse["containerimage.config.digest"]; got != id {
		t.Errorf("the second build gave %s, the first %s", got, id)
	}
	if !second.cached("COPY hello.txt") {
		t.Errorf("COPY was not cached: %v", second.vertices)
	}
}

// Steps run, find their mounts, and are found again; a failed one tells its line, command and exit code.
func TestBuildRuns(t *testing.T) {
	b := newBench(t)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs busybox: a static program for steps")
	}
	dir := b.context("busybox", string(busybox), "Dockerfile", `FROM scratch AS base
COPY --chmod=755 busybox /bin/busybox
RUN --network=none ["/bin/busybox", "--install", "/bin"]
FROM base AS one
RUN --network=none echo one > /one && echo said
FROM base AS two
RUN --network=none --mount=type=cache,target=/c echo two > /two && echo kept >> /c/kept && wc -l < /c/kept
FROM base
COPY --from=one /one /
COPY --from=two /two /
RUN --network=none cat /one /two > /both
`)
	out := t.TempDir()
	local := func(o *client.SolveOpt) {
		o.Exports = []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: out}}
	}
	first := b.build(dir, local)
	if first.err != nil {
		t.Fatalf("%v\n%s", first.err, first.log.String())
	}
	if got, err := os.ReadFile(filepath.Join(out, "both")); err != nil || string(got) != "one\ntwo\n" {
		t.Errorf("both is %q, %v", got, err)
	}
	if !strings.Contains(first.log.String(), "said\n") {
		t.Errorf("log has no output: %q", first.log.String())
	}
	second := b.build(dir, local)
	if second.err != nil {
		t.Fatal(second.err)
	}
	if !second.cached("cat /one /two") {
		t.Errorf("the last step ran again")
	}
	failing := b.context("busybox", string(busybox), "Dockerfile", "FROM scratch\nCOPY --chmod=755 busybox /bin/sh\nRUN --network=none echo alas; exit 7\n")
	o := b.build(failing, nil)
	if o.err == nil {
		t.Fatal("a failed step built")
	}
	var exit *gatewaypb.ExitError
	if !errors.As(o.err, &exit) || exit.ExitCode != 7 {
		t.Errorf("error %v has no exit code 7", o.err)
	}
	sources := errdefs.Sources(o.err)
	if len(sources) == 0 || len(sources[0].Ranges) == 0 || sources[0].Ranges[0].Start.Line != 3 {
		t.Errorf("error %v does not tell line 3: %v", o.err, sources)
	}
	if want := `process "/bin/sh -c echo alas; exit 7" did not complete successfully: exit code: 7`; !strings.Contains(o.err.Error(), want) {
		t.Errorf("error is %q, want %q in it", o.err, want)
	}
}

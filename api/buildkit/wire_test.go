package buildkit_test

import (
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
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

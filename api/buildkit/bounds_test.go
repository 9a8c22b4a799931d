package buildkit_test

import (
	"net"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	"golang.org/x/net/http2"

	"berth/api/buildkit"
	"berth/build"
)

// What would be the end of the engine, or keep it busy for hours, is one build's error.
func TestHostileDockerfile(t *testing.T) {
	b := newBench(t)
	const many = 1_000_000
	nested := strings.Repeat("${A:-", many) + strings.Repeat("}", many)
	var file strings.Builder
	file.WriteString("FROM scratch\nENV A=")
	for ; len(nested) > 60_000; nested = nested[60_000:] {
		file.WriteString(nested[:60_000] + "\\\n")
	}
	file.WriteString(nested + "\n")
	o := b.build(b.context("Dockerfile", file.String()), nil)
	if o.err == nil || !strings.Contains(o.err.Error(), "opening braces") {
		t.Errorf("%.300v", o.err)
	}
	o = b.build(b.context("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n"), func(o *client.SolveOpt) {
		for range 100 {
			o.CacheImports = append(o.CacheImports, client.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": "localhost:1/x"}})
		}
	})
	if o.err == nil || !strings.Contains(o.err.Error(), "caches to import") {
		t.Errorf("%.300v", o.err)
	}
	if _, err := b.builder.Solve(t.Context(), build.Request{ID: strings.Repeat("x", 10_000)}); err == nil {
		t.Error("any name will do")
	}
	if o := b.build(b.context("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n"), nil); o.err != nil {
		t.Errorf("the next build: %v", o.err)
	}
}

// A few lines that would fill any memory are refused before they are translated.
func TestGrowingDockerfile(t *testing.T) {
	b := newBench(t)
	dir := b.context("Dockerfile", "FROM scratch\nENV A=0123456789\n"+strings.Repeat("ENV A=$A$A$A$A\n", 16)+"COPY Dockerfile /\n")
	o := b.build(dir, nil)
	if o.err == nil || !strings.Contains(o.err.Error(), "grows to more than 64 MiB") {
		t.Errorf("%v", o.err)
	}
}

// A client is told how many calls it may have under way on one connection.
func TestStreamsAreBounded(t *testing.T) {
	s := buildkit.New(buildkit.Config{})
	ours, theirs := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- s.ServeConn(t.Context(), ours) }()
	go theirs.Write([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")) // no settings of its own
	frame, err := http2.NewFramer(nil, theirs).ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		t.Fatalf("%v", frame)
	}
	if n, _ := settings.Value(http2.SettingMaxConcurrentStreams); n != 10_000 {
		t.Errorf("%d calls at once", n)
	}
	theirs.Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

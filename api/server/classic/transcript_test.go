package classic

import (
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

const dockerfile = `FROM golang AS build
ENV CGO_ENABLED=0
COPY . /src
RUN make \
    all
FROM scratch AS unused
COPY x /
FROM busybox
ARG who=me
COPY --from=build /bin/app /app
RUN ["/app", "--check"]
CMD ["/app"]
`

type event struct {
	name   string
	state  string // waiting, started, done, cached, failed, or a log
	output string
}

func hear(t *Transcript, events ...event) {
	now := time.Now()
	for _, e := range events {
		d := digest.FromString(e.name)
		if e.output != "" {
			t.Hear(&client.SolveStatus{Logs: []*client.VertexLog{{Vertex: d, Data: []byte(e.output)}}})
			continue
		}
		v := &client.Vertex{Digest: d, Name: e.name}
		if e.state != "waiting" {
			v.Started = &now
		}
		switch e.state {
		case "done", "cached":
			v.Completed, v.Cached = &now, e.state == "cached"
		case "failed":
			v.Completed, v.Error = &now, "process did not complete"
		}
		t.Hear(&client.SolveStatus{Vertexes: []*client.Vertex{v}})
	}
}

func short(name string) string { return digest.FromString(name).Encoded()[:12] }

// TestTranscript has vertices come in another order than the Dockerfile's, with output of two steps at once.
func TestTranscript(t *testing.T) {
	var b strings.Builder
	tr := New(Config{Dockerfile: []byte(dockerfile), Print: func(text string) { b.WriteString(text) }})
	const from, src, run, base, app, check = "[build 1/3] FROM docker.io/library/golang", "[build 2/3] COPY . /src", "[build 3/3] RUN make     all",
		"[stage-2 1/4] FROM docker.io/library/busybox", "[stage-2 3/4] COPY --from=build /bin/app /app", "[stage-2 4/4] RUN [/app --check]"
	const trigger = "[stage-2 2/4] ONBUILD RUN echo trigger"
	hear(tr,
		event{name: "[internal] load build definition from Dockerfile", state: "done"},
		event{name: base, state: "cached"}, event{name: trigger, state: "started"}, event{name: from, state: "done"},
		event{name: src, state: "cached"}, event{name: run, state: "started"}, event{name: run, output: "making\n"})
	if got, want := b.String(), "Step 1/9 : FROM golang AS build\n ---> "+short(from)+"\nStep 2/9 : ENV CGO_ENABLED=0\n ---> Using cache\nStep 3/9 : COPY . /src\n ---> Using cache\n ---> "+short(src)+
		"\nStep 4/9 : RUN make     all\n ---> Running in "+short(run)+"\nmaking\n"; got != want {
		t.Fatalf("while the first step runs:\n%s\nwant\n%s", got, want)
	}
	b.Reset()
	hear(tr, event{name: trigger, output: "pulled\n"}, event{name: trigger, state: "done"}, event{name: run, state: "done"}, event{name: app, state: "done"},
		event{name: check, state: "started"}, event{name: check, output: "fine\n"}, event{name: check, state: "done"})
	tr.Finish(true)
	if got, want := b.String(), " ---> "+short(run)+"\nStep 5/9 : FROM busybox\n ---> "+short(base)+
		"\n# Executing 1 build trigger\n ---> Running in "+short(trigger)+"\npulled\n ---> "+short(trigger)+"\nStep 6/9 : ARG who=me\nStep 7/9 : COPY --from=build /bin/app /app\n ---> "+short(app)+
		"\nStep 8/9 : RUN [\"/app\", \"--check\"]\n ---> Running in "+short(check)+"\nfine\n ---> "+short(check)+"\nStep 9/9 : CMD [\"/app\"]\n"; got != want {
		t.Errorf("the rest:\n%s\nwant\n%s", got, want)
	}
}

func TestFailure(t *testing.T) {
	var b strings.Builder
	tr := New(Config{Dockerfile: []byte("FROM scratch\nSHELL [\"/bin/bash\", \"-e\"]\nRUN false && true\nRUN later\n"), Print: func(text string) { b.WriteString(text) }})
	const run = "[1/2] RUN false && true"
	hear(tr, event{name: run, state: "started"}, event{name: run, output: "no\n"}, event{name: run, state: "failed"})
	tr.Finish(false)
	if got, want := b.String(), "Step 1/4 : FROM scratch\nStep 2/4 : SHELL [\"/bin/bash\", \"-e\"]\nStep 3/4 : RUN false && true\n ---> Running in "+short(run)+"\nno\n"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if got, want := tr.Failed(1), "The command '/bin/bash -e false && true' returned a non-zero code: 1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestSharedStep: two stages on one base have one vertex for it, under the first one's name.
func TestSharedStep(t *testing.T) {
	var b strings.Builder
	tr := New(Config{Dockerfile: []byte("FROM busybox AS a\nRUN one\nFROM busybox\nCOPY --from=a /x /x\n"), Print: func(text string) { b.WriteString(text) }})
	const from, one, copied = "[a 1/2] FROM docker.io/library/busybox", "[a 2/2] RUN one", "[stage-1 2/2] COPY --from=a /x /x"
	hear(tr, event{name: from, state: "done"}, event{name: one, state: "done"}, event{name: copied, state: "done"})
	if got, want := b.String(), "Step 1/4 : FROM busybox AS a\n ---> "+short(from)+"\nStep 2/4 : RUN one\n ---> Running in "+short(one)+"\n ---> "+short(one)+
		"\nStep 3/4 : FROM busybox\nStep 4/4 : COPY --from=a /x /x\n ---> "+short(copied)+"\n"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestUnknown: a Dockerfile that nobody here has seen is told without steps.
func TestUnknown(t *testing.T) {
	var b strings.Builder
	tr := New(Config{Print: func(text string) { b.WriteString(text) }})
	hear(tr, event{name: "[1/1] RUN x", state: "failed"}, event{name: "[1/1] RUN x", output: "why\n"})
	tr.Finish(false)
	if b.String() != "why\n" || tr.Failed(2) != "" {
		t.Errorf("%q %q", b.String(), tr.Failed(2))
	}
}

// TestLearned: the Dockerfile of a remote context is known only once the build has read it.
func TestLearned(t *testing.T) {
	var b strings.Builder
	tr := New(Config{Print: func(text string) { b.WriteString(text) }})
	const from, run = "[1/2] FROM docker.io/library/busybox", "[2/2] RUN true"
	hear(tr, event{name: "[internal] load remote build context", state: "done"})
	tr.Learn([]byte("FROM busybox\nRUN true\n"))
	tr.Learn([]byte("FROM another\n"))
	hear(tr, event{name: from, state: "done"}, event{name: run, state: "started"}, event{name: run, state: "done"})
	tr.Finish(true)
	if got, want := b.String(), "Step 1/2 : FROM busybox\n ---> "+short(from)+"\nStep 2/2 : RUN true\n ---> Running in "+short(run)+"\n ---> "+short(run)+"\n"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestTriggersOnly: all that is built may be the base's triggers, and the base may be a stage.
func TestTriggersOnly(t *testing.T) {
	var b strings.Builder
	tr := New(Config{Dockerfile: []byte("FROM busybox AS base\nONBUILD RUN one\nONBUILD RUN two\nFROM base\nENV a=b\n"), Print: func(text string) { b.WriteString(text) }})
	const from, one, two = "[base 1/1] FROM docker.io/library/busybox", "[stage-1 1/2] ONBUILD RUN one", "[stage-1 2/2] ONBUILD RUN two"
	hear(tr, event{name: one, state: "waiting"}, event{name: two, state: "waiting"}, event{name: from, state: "done"}, event{name: two, state: "cached"}, event{name: one, state: "cached"})
	tr.Finish(true)
	if got, want := b.String(), "Step 1/5 : FROM busybox AS base\n ---> "+short(from)+"\nStep 2/5 : ONBUILD RUN one\nStep 3/5 : ONBUILD RUN two\nStep 4/5 : FROM base\n"+
		"# Executing 2 build triggers\n ---> Using cache\n ---> "+short(one)+"\n ---> Using cache\n ---> "+short(two)+"\nStep 5/5 : ENV a=b\n"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestUnconsumedArguments(t *testing.T) {
	var b strings.Builder
	tr := New(Config{Dockerfile: []byte("ARG a\nFROM scratch AS x\nARG b=1 c\nFROM scratch AS later\nARG d\n"), Target: "x",
		Args: map[string]bool{"a": true, "b": true, "c": true, "d": true, "A": true, "no_proxy": true, "BUILDKIT_INLINE_CACHE": true}, Print: func(text string) { b.WriteString(text) }})
	tr.Finish(true)
	if want := "\n[Warning] One or more build-args [A d] were not consumed\n"; !strings.HasSuffix(b.String(), want) {
		t.Errorf("%s\nwant at its end\n%s", b.String(), want)
	}
}

func TestMissing(t *testing.T) {
	for _, c := range [...]struct{ text, failed, want string }{
		{"ADD foo /x", `failed to calculate checksum of ref a::b: "/foo": not found`, "ADD failed: file not found in build context or excluded by .dockerignore: stat foo: file does not exist"},
		{"ADD foo /x", "failed to compute cache key: lstat /foo: no such file or directory", "ADD failed: file not found in build context or excluded by .dockerignore: stat foo: file does not exist"},
		{"COPY --from=a foo /x", `failed to calculate checksum of ref a::b: "/foo": not found`, "COPY failed: stat foo: file does not exist"},
		{"COPY foo /x", "no space left on device", ""},
	} {
		tr := New(Config{Dockerfile: []byte("FROM scratch\n" + c.text + "\n"), Print: func(string) {}})
		now := time.Now()
		tr.Hear(&client.SolveStatus{Vertexes: []*client.Vertex{{Digest: digest.FromString(c.text), Name: "[1/1] " + c.text, Started: &now, Completed: &now, Error: c.failed}}})
		tr.Finish(false)
		if got := tr.Missing(); got != c.want {
			t.Errorf("%s: %q, want %q", c.text, got, c.want)
		}
	}
	tr := New(Config{Dockerfile: []byte("FROM scratch\nRUN x\n"), Print: func(string) {}})
	hear(tr, event{name: "[1/1] RUN x", state: "failed"})
	if got := tr.Missing(); got != "" {
		t.Errorf("of a command: %q", got)
	}
}

// TestRootDirectory: a WORKDIR that names the root makes nothing, so later vertices have lower numbers.
func TestRootDirectory(t *testing.T) {
	for _, dir := range []string{"/", "$HERE"} {
		var b strings.Builder
		tr := New(Config{Dockerfile: []byte("FROM busybox\nWORKDIR " + dir + "\nRUN false\n"), Print: func(text string) { b.WriteString(text) }})
		const from, run = "[1/3] FROM docker.io/library/busybox", "[2/3] RUN false"
		hear(tr, event{name: from, state: "waiting"}, event{name: run, state: "waiting"})
		hear(tr, event{name: from, state: "done"}, event{name: run, state: "started"}, event{name: run, output: "no\n"}, event{name: run, state: "failed"})
		tr.Finish(false)
		if got, want := b.String(), "Step 1/3 : FROM busybox\n ---> "+short(from)+"\nStep 2/3 : WORKDIR "+dir+
			"\nStep 3/3 : RUN false\n ---> Running in "+short(run)+"\nno\n"; got != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
		if got, want := tr.Failed(1), "The command '/bin/sh -c false' returned a non-zero code: 1"; got != want {
			t.Errorf("%s: %q, want %q", dir, got, want)
		}
	}
}

// TestSharedTriggers: two stages on one base with triggers have one vertex for them, under the first one's name.
func TestSharedTriggers(t *testing.T) {
	var b strings.Builder
	tr := New(Config{Dockerfile: []byte("FROM base AS a\nRUN one\nFROM base\nCOPY --from=a /x /x\nRUN two\n"), Print: func(text string) { b.WriteString(text) }})
	const from, trigger, one, copied, two = "[a 1/2] FROM docker.io/library/base", "[a 2/3] ONBUILD RUN t", "[a 3/3] RUN one", "[stage-1 3/4] COPY --from=a /x /x", "[stage-1 4/4] RUN two"
	for _, name := range []string{from, trigger, one, copied, two} {
		hear(tr, event{name: name, state: "waiting"})
	}
	for _, name := range []string{from, trigger, one, copied, two} {
		hear(tr, event{name: name, state: "started"}, event{name: name, state: "done"})
	}
	tr.Finish(true)
	if got, want := b.String(), "Step 1/5 : FROM base AS a\n ---> "+short(from)+"\n# Executing 1 build trigger\n ---> Running in "+short(trigger)+"\n ---> "+short(trigger)+
		"\nStep 2/5 : RUN one\n ---> Running in "+short(one)+"\n ---> "+short(one)+"\nStep 3/5 : FROM base\nStep 4/5 : COPY --from=a /x /x\n ---> "+short(copied)+
		"\nStep 5/5 : RUN two\n ---> Running in "+short(two)+"\n ---> "+short(two)+"\n"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

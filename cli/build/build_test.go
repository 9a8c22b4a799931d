package build

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"berth/cli/build/expand"
	"berth/cli/build/request"
)

// fake gives a command line whose outputs can be read.
func fake(t *testing.T) (*command.DockerCli, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	var out, errs bytes.Buffer
	d, err := command.NewDockerCli(command.WithOutputStream(&out), command.WithErrorStream(&errs))
	if err != nil {
		t.Fatal(err)
	}
	return d, &out, &errs
}

func TestMetadata(t *testing.T) {
	object := base64.StdEncoding.EncodeToString([]byte(`{"a":1}`))
	got, err := json.Marshal(metadata(map[string]string{"text": "sha256:x", "object": object, "result.json": `{"b":2}`, "number": base64.StdEncoding.EncodeToString([]byte("5"))}))
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"number":"NQ==","object":{"a":1},"result.json":{"b":2},"text":"sha256:x"}`; string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestImageID(t *testing.T) {
	if got := imageID(map[string]string{"containerimage.digest": "m", "containerimage.config.digest": "c"}); got != "c" {
		t.Error(got)
	}
	if got := imageID(map[string]string{"containerimage.digest": "m"}); got != "m" {
		t.Error(got)
	}
}

func TestNewer(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"1.1.0", "1.0.9", true}, {"1.0", "1.0.0", false}, {"", "1", false}, {"1.10", "1.9", true}} {
		if newer(c.a, c.b) != c.want {
			t.Errorf("newer(%s, %s)", c.a, c.b)
		}
	}
}

func TestDisplayMode(t *testing.T) {
	t.Setenv("BUILDKIT_PROGRESS", "")
	for _, c := range []struct {
		progress  string
		quiet     bool
		mode      string
		quietness bool
		err       bool
	}{
		{"auto", false, "auto", false, false}, {"plain", false, "plain", false, false}, {"quiet", false, "quiet", true, false}, {"none", false, "quiet", false, false},
		{"auto", true, "quiet", true, false}, {"plain", true, "", true, true},
	} {
		quiet := c.quiet
		mode, err := displayMode(c.progress, &quiet)
		if string(mode) != c.mode || quiet != c.quietness || (err != nil) != c.err {
			t.Errorf("%+v: %s, %v, %v", c, mode, quiet, err)
		}
	}
	t.Setenv("BUILDKIT_PROGRESS", "plain")
	for quiet, want := range map[bool]string{false: "plain", true: "quiet"} {
		if mode, err := displayMode("auto", &quiet); string(mode) != want || err != nil {
			t.Errorf("quiet %v: %s, %v, want %s", quiet, mode, err, want)
		}
	}
}

// An error shows the lines that it is about, in the file that was written, and has Docker's words and code.
func TestFailure(t *testing.T) {
	dir := t.TempDir()
	e, err := expand.Expand(expand.Source{Name: "app/Dockerfile", Dir: dir, Text: []byte("# berth:expand\nFROM scratch\nIF 1\nRUN false\nEND\n")})
	if err != nil {
		t.Fatal(err)
	}
	at := &pb.Position{Line: 2}
	cause := errdefs.WithSource(errors.New("failed to solve: it is broken"), &errdefs.Source{
		Info: &pb.SourceInfo{Filename: "Dockerfile", Data: e.Text}, Ranges: []*pb.Range{{Start: at, End: at}},
	})
	d, _, errs := fake(t)
	got := failure(d, fmt.Errorf("failed to build: %w", cause), &request.Request{Expanded: e})
	var st cli.StatusError
	if !errors.As(got, &st) || st.StatusCode != 1 || st.Status != "ERROR: failed to build: failed to solve: it is broken" {
		t.Errorf("%#v", got)
	}
	if want := "app/Dockerfile:4\n"; !strings.HasPrefix(errs.String(), want) || !strings.Contains(errs.String(), ">>> RUN false") {
		t.Errorf("printed:\n%s", errs)
	}
	for code, want := range map[codes.Code]int{codes.Canceled: 130, codes.Internal: 100, codes.ResourceExhausted: 102, codes.Unknown: 1} {
		if !errors.As(failure(d, grpcerrors.FromGRPC(status.Error(code, "x")), nil), &st) || st.StatusCode != want {
			t.Errorf("%s gives %d", code, st.StatusCode)
		}
	}
	if !errors.As(failure(d, context.Canceled, nil), &st) || st.StatusCode != 130 {
		t.Error("an interrupt")
	}
	if failure(d, nil, nil) != nil {
		t.Error("nothing is a failure")
	}
	old := status.Error(codes.Unimplemented, "unsupported frontend capability moby.buildkit.frontend.contexts")
	if !errors.As(failure(d, grpcerrors.FromGRPC(old), nil), &st) || !strings.Contains(st.Status, "does not support --build-context") {
		t.Error(st.Status)
	}
}

func vertex(name, failed string) *client.SolveStatus {
	now := time.Now()
	return &client.SolveStatus{Vertexes: []*client.Vertex{{Digest: digest.FromString(name), Name: name, Started: &now, Completed: &now, Error: failed}}}
}

// Several builds write to one display; each target's steps have its name.
func TestDisplay(t *testing.T) {
	var out bytes.Buffer
	show, err := openDisplay(&out, "plain", "default")
	if err != nil {
		t.Fatal(err)
	}
	one, two := show.writer(""), show.writer("web")
	one <- vertex("exporting", "")
	two <- vertex("[build 1/2] RUN x", "")
	two <- vertex("exporting too", "")
	close(one)
	close(two)
	if err := show.close(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"#0 building with \"default\" instance using docker driver", "[web build 1/2] RUN x", "[web] exporting too"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}

// Who wants the screen gets it once the failed step has been shown, and nothing is drawn after that.
func TestDisplayYields(t *testing.T) {
	var out bytes.Buffer
	show, err := openDisplay(&out, "plain", "default")
	if err != nil {
		t.Fatal(err)
	}
	w := show.writer("")
	w <- vertex("RUN false", "exit code: 1")
	show.yield()
	seen := out.String()
	if !strings.Contains(seen, "ERROR: exit code: 1") {
		t.Errorf("not shown:\n%s", seen)
	}
	w <- vertex("late", "")
	close(w)
	if err := show.close(); err != nil {
		t.Fatal(err)
	}
	if out.String() != seen {
		t.Errorf("drawn later:\n%s", out.String()[len(seen):])
	}
}

func TestFlags(t *testing.T) {
	d, _, _ := fake(t)
	c := New(d, Hooks{})
	o := &options{}
	c.ResetFlags()
	o.install(c.Flags())
	// Both builders' flags, as scripts have them.
	if err := c.ParseFlags(strings.Fields("-t a -t b:1 -f x.Dockerfile --build-arg A=1 --label l --memory 1g -c 2 --cpuset-cpus 0 --rm=false --force-rm --compress --security-opt x " +
		"--isolation default --add-host a:1.2.3.4 --ulimit nofile=1:2 --shm-size 64m --cache-from img --cache-to type=inline --secret id=s --ssh default --no-cache --pull --squash " +
		"--platform linux/amd64 --sbom=true --provenance mode=max --check --disable-content-trust --builder default")); err != nil {
		t.Fatal(err)
	}
	o.context = "."
	s, err := o.spec()
	if err != nil {
		t.Fatal(err)
	}
	want := &request.Spec{
		Context: ".", Dockerfile: "x.Dockerfile", Contexts: map[string]string{}, Args: map[string]string{"A": "1"}, Labels: map[string]string{"l": ""}, Tags: []string{"a", "b:1"},
		Platforms: []string{"linux/amd64"}, Attests: []request.Attest{{Type: "provenance", Attrs: map[string]string{"mode": "max"}}, {Type: "sbom", Attrs: map[string]string{}}},
		Secrets: []request.Secret{{ID: "s"}}, SSH: []request.SSH{{ID: "default"}}, CacheFrom: []request.Cache{{Type: "registry", Attrs: map[string]string{"ref": "img"}}},
		CacheTo: []request.Cache{{Type: "inline", Attrs: map[string]string{}}}, NoCache: true, Pull: true, Squash: true, Network: "default", ExtraHosts: []string{"a:1.2.3.4"},
		ShmSize: 64 << 20, Ulimits: []string{"nofile=1:2"}, Resources: []string{"memory=1g", "cpu-shares=2", "cpuset-cpus=0"}, Call: request.Call{Name: "lint"},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	o.onError = "dance"
	if _, err := o.spec(); err == nil {
		t.Error("--on-error takes anything")
	}
}

func TestPrintExpanded(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("Dockerfile", []byte("FROM scratch\nIF $A\nLABEL a=1\nEND\nARG A=1\nFOR l IN x y\nLABEL $l=1\nEND\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d, out, errs := fake(t)
	err := printExpanded(d, &request.Spec{Context: "."})
	if err == nil || !strings.Contains(errs.String(), ">>> IF $A") {
		t.Errorf("%v\n%s", err, errs)
	}
	if err := os.WriteFile("Dockerfile", []byte("FROM scratch\nARG A=1\nFOR l IN x y\nLABEL $l=1\nEND\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := printExpanded(d, &request.Spec{Context: "."}); err != nil || out.String() != "FROM scratch\nARG A=1\nLABEL x=1\nLABEL y=1\n" {
		t.Errorf("%v: %q", err, out)
	}
}

// Every command shows how it is used, on lines that fit a terminal.
func TestExamples(t *testing.T) {
	d, _, _ := fake(t)
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		if c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for l := range strings.Lines(c.Example) {
			if len(strings.TrimRight(l, "\n")) > 80 {
				t.Errorf("%s: a line of %d characters: %s", c.CommandPath(), len(l), l)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(NewBuildx(d, Hooks{}))
	walk(NewInit(d))
}

// Nobody's source policy is passed over in silence.
func TestPolicy(t *testing.T) {
	var p policy
	for text, ok := range map[string]bool{"disabled=true": true, "disabled=false": false, "filename=x.rego": false, "": false, "disabled=true,strict=true": false} {
		if err := p.Set(text); (err == nil) != ok {
			t.Errorf("--policy %q: %v", text, err)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"Dockerfile", "Dockerfile.rego", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("FROM scratch\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		spec request.Spec
		ok   bool
	}{
		{request.Spec{Context: dir}, false},
		{request.Spec{Context: dir, Dockerfile: filepath.Join(dir, "Dockerfile")}, false},
		{request.Spec{Context: dir, NoPolicy: true}, true},
		{request.Spec{Context: dir, Dockerfile: filepath.Join(dir, "other")}, true},
	} {
		r, err := c.spec.Prepare(context.Background(), request.Engine{}, strings.NewReader(""), nil)
		if (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.spec, err)
		}
		if r != nil {
			r.Release()
		}
	}
}

// Each target that failed by itself is told of, with the lines of its own Dockerfile; what was given up since another failed is not.
func TestWaveFailure(t *testing.T) {
	turn := func(name string, err error) *waveTurn {
		e, xerr := expand.Expand(expand.Source{Name: name + "/Dockerfile", Dir: t.TempDir(), Text: []byte("# berth:expand\nFROM scratch\nIF 1\nRUN false\nEND\n")})
		if xerr != nil {
			t.Fatal(xerr)
		}
		w := newWaveTurn(name, &request.Spec{})
		w.request = &request.Request{Expanded: e}
		if err != nil {
			at := &pb.Position{Line: 2}
			w.err = errdefs.WithSource(fmt.Errorf("target %s: %w", name, err), &errdefs.Source{
				Info: &pb.SourceInfo{Filename: "Dockerfile", Data: e.Text}, Ranges: []*pb.Range{{Start: at, End: at}},
			})
		}
		return w
	}
	d, _, errs := fake(t)
	w := &wave{turns: map[string]*waveTurn{}}
	for _, one := range []*waveTurn{turn("a", errors.New("no a")), turn("b", context.Canceled), turn("c", errors.New("no c")), turn("d", nil)} {
		w.turns[one.name] = one
	}
	err := w.failure(d, errors.New("no c"))
	var st cli.StatusError
	if !errors.As(err, &st) || st.Status != "ERROR: failed to build: target a: no a\nERROR: failed to build: target c: no c" || st.StatusCode != 1 {
		t.Errorf("%#v", err)
	}
	for name, want := range map[string]bool{"a": true, "b": false, "c": true} {
		if strings.Contains(errs.String(), name+"/Dockerfile:4\n") != want {
			t.Errorf("lines of %s: %v, printed:\n%s", name, !want, errs)
		}
	}
	for _, one := range w.turns {
		one.err = nil
	}
	if !errors.As(w.failure(d, context.Canceled), &st) || st.StatusCode != 130 {
		t.Errorf("an interrupt: %#v", st)
	}
}

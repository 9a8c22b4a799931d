package oracle

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
)

// TestToldOnce has a source change between the moment at which a build asks what it is and the one at which it uses it: what the build was told
// holds for it, and not for the next one.
func TestToldOnce(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: builds mount overlay file systems")
	}
	if ociRuntime() == "" {
		t.Skip("needs runc or crun: BuildKit's steps run in it")
	}
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	for name, start := range map[string]func(testing.TB) *client.Client{"buildkit": startBuildKit, "berth": startBerth} {
		t.Run(name, func(t *testing.T) {
			bk := start(t)
			t.Run("http", func(t *testing.T) { toldHTTP(t, bk) })
			t.Run("git", func(t *testing.T) { toldGit(t, bk) })
		})
	}
}

// told resolves a source, has it changed, and gives the files of what a state that uses it then is.
func told(t *testing.T, bk *client.Client, op *pb.SourceOp, change func(), use llb.State) (files map[string]string, first, second *sourceresolver.MetaResponse) {
	t.Helper()
	dest := t.TempDir()
	_, err := bk.Build(t.Context(), client.SolveOpt{Exports: []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: dest}}}, "test", func(ctx context.Context, c gateway.Client) (_ *gateway.Result, err error) {
		if first, err = c.ResolveSourceMetadata(ctx, op.CloneVT(), sourceresolver.Opt{}); err != nil {
			return nil, err
		}
		change()
		if second, err = c.ResolveSourceMetadata(ctx, op.CloneVT(), sourceresolver.Opt{}); err != nil {
			return nil, err
		}
		def, err := use.Marshal(ctx)
		if err != nil {
			return nil, err
		}
		return c.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB()})
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	list, _ := os.ReadDir(dest)
	for _, e := range list {
		raw, err := os.ReadFile(filepath.Join(dest, e.Name()))
		if err == nil {
			files[e.Name()] = string(raw)
		}
	}
	return files, first, second
}

func toldHTTP(t *testing.T, bk *client.Client) {
	var mu sync.Mutex
	body, tag := "one", `"1"`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write([]byte(body))
	}))
	defer server.Close()
	set := func(b, e string) func() {
		return func() {
			mu.Lock()
			defer mu.Unlock()
			body, tag = b, e
		}
	}
	op := &pb.SourceOp{Identifier: server.URL + "/foo"}
	use := llb.Scratch().File(llb.Copy(llb.HTTP(server.URL+"/foo"), "foo", "bar"))
	for i, step := range []struct {
		change func()
		want   string
	}{
		{set("two", `"2"`), "one"},
		{set("three", `"3"`), "two"}, // another build: what is there now
		{func() { set("four", `"3"`)(); _ = bk.Prune(t.Context(), nil, client.PruneAll) }, "three"},
	} {
		files, first, second := told(t, bk, op, step.change, use)
		if files["bar"] != step.want || first.HTTP.Digest != second.HTTP.Digest {
			t.Errorf("build %d: %q, want %q; %s, then %s", i, files["bar"], step.want, first.HTTP.Digest, second.HTTP.Digest)
		}
	}
}

func toldGit(t *testing.T, bk *client.Client) {
	dir := t.TempDir()
	sh := func(script string) string {
		t.Helper()
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@x", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@x")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	sh("git init -q -b main . && echo a > a && git add . && git commit -q -m a && git tag -a -m x v1 && echo b > b && git add . && git commit -q -m b && git update-server-info")
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	commit := sh("git rev-parse v1^{commit}")
	op := &pb.SourceOp{Identifier: "git://" + strings.TrimPrefix(server.URL, "http://") + "/.git#v1", Attrs: map[string]string{pb.AttrFullRemoteURL: server.URL + "/.git"}}
	use := llb.Git(server.URL+"/.git", "", llb.GitRef("v1"))
	files, first, second := told(t, bk, op, func() { sh("git tag -f v1 && git update-server-info") }, use)
	if files["a"] != "a\n" || files["b"] != "" || first.Git.CommitChecksum != commit || second.Git.CommitChecksum != commit {
		t.Errorf("%v; %+v, then %+v", files, first.Git, second.Git)
	}
	files, _, _ = told(t, bk, op, func() {}, use)
	if files["b"] != "b\n" {
		t.Errorf("the next build: %v", files)
	}
}

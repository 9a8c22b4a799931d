package git

import (
	"context"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"

	"berth/base/fault"
	"berth/build/graph"
	"berth/build/progress"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/image/layer"
	"berth/kernel/tree"
)

// bed is a source, and a server with repositories.
type bed struct {
	t      *testing.T
	s      *Source
	root   string // of the repositories
	server *httptest.Server
	auth   string // what the server wants in the Authorization header; "" nothing
	log    strings.Builder
	asked  int
	seen   []string // Authorization headers of requests
}

func open(t *testing.T, sessions ...Sessions) *bed {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: overlay mounts")
	}
	path, err := exec.LookPath("git")
	if err != nil {
		t.Skip("needs git")
	}
	libexec, err := exec.Command(path, "--exec-path").Output()
	need(t, err)
	backend := filepath.Join(strings.TrimSpace(string(libexec)), "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		t.Skip("needs git-http-backend")
	}
	layers, err := layer.Open(layer.Config{Root: t.TempDir()})
	need(t, err)
	snaps, err := snapshot.Open(snapshot.Config{Layers: layers, Root: t.TempDir()})
	need(t, err)
	cfg := Config{Snapshots: snaps, Root: filepath.Join(t.TempDir(), "git")}
	if len(sessions) > 0 {
		cfg.Sessions = sessions[0]
	}
	s, err := Open(cfg)
	need(t, err)
	b := &bed{t: t, s: s, root: t.TempDir()}
	h := &cgi.Handler{Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + b.root, "GIT_HTTP_EXPORT_ALL=1"}, InheritEnv: []string{"PATH"}}
	b.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.asked++
		b.seen = append(b.seen, r.Header.Get("Authorization"))
		if b.auth != "" && r.Header.Get("Authorization") != b.auth {
			w.Header().Set("WWW-Authenticate", "Basic realm=x")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if p := r.Header.Get("Git-Protocol"); p != "" { // cgi passes it as HTTP_GIT_PROTOCOL, which the backend wants as GIT_PROTOCOL
			g := *h
			g.Env = append(append([]string{}, h.Env...), "GIT_PROTOCOL="+p)
			g.ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		b.server.Close()
		snaps.Close()
		layers.Close()
	})
	return b
}

func need(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// git runs git in a repository of the server and gives what it prints.
func (b *bed) git(repo string, args ...string) string {
	b.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = filepath.Join(b.root, repo)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@x", "GIT_COMMITTER_NAME=c", "GIT_COMMITTER_EMAIL=c@x",
		"GIT_AUTHOR_DATE=1000000000 +0000", "GIT_COMMITTER_DATE=1000000000 +0000"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// repo makes a repository on the server.
func (b *bed) repo(name string, args ...string) {
	b.t.Helper()
	need(b.t, os.MkdirAll(filepath.Join(b.root, name), 0o755))
	b.git(name, append([]string{"-c", "init.defaultBranch=main", "init", "--quiet"}, args...)...)
}

// commit writes files ("path=content") and commits them; it gives the commit's name.
func (b *bed) commit(repo string, files ...string) string {
	b.t.Helper()
	for _, f := range files {
		p, content, _ := strings.Cut(f, "=")
		p = filepath.Join(b.root, repo, p)
		need(b.t, os.MkdirAll(filepath.Dir(p), 0o755))
		need(b.t, os.WriteFile(p, []byte(content), 0o644))
	}
	b.git(repo, "add", "-A")
	b.git(repo, "commit", "--quiet", "-m", strings.Join(files, " "))
	return b.git(repo, "rev-parse", "HEAD")
}

// pin pins fragment (#ref:subdir) of a repository of the server, with attributes "key=value".
func (b *bed) pin(repo, fragment string, attrs ...string) (solver.Pinned, error) {
	b.t.Helper()
	host := strings.TrimPrefix(b.server.URL, "http://")
	m := map[string]string{pb.AttrFullRemoteURL: b.server.URL + "/" + repo}
	for _, a := range attrs {
		k, v, _ := strings.Cut(a, "=")
		m[k] = v
	}
	src, err := b.s.Source(&graph.Vertex{Op: &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "git://" + host + "/" + repo + fragment, Attrs: m}}}})
	if err != nil {
		return solver.Pinned{}, err
	}
	return src.Pin(b.t.Context(), &solver.Run{Sessions: session.NewGroup("s1"), Stderr: &b.log, Progress: quiet{}})
}

// files gives what a pinned source has: "path" or "path content", sorted, without what is in .git.
func (b *bed) files(p solver.Pinned) (string, error) {
	s, err := p.Snapshot(b.t.Context())
	if err != nil {
		return "", err
	}
	defer s.Release()
	var lines []string
	err = s.View(b.t.Context(), func(root *tree.Dir) error { return list(root, "", &lines) })
	return strings.Join(lines, "\n"), err
}

// read gives one file of a pinned source.
func (b *bed) read(p solver.Pinned, path string) (string, error) {
	s, err := p.Snapshot(b.t.Context())
	if err != nil {
		return "", err
	}
	defer s.Release()
	var content string
	err = s.View(b.t.Context(), func(root *tree.Dir) error {
		c, err := os.ReadFile(root.Path() + "/" + path)
		content = string(c)
		return err
	})
	return content, err
}

func list(d *tree.Dir, at string, lines *[]string) error {
	entries, err := d.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := strings.TrimPrefix(at+"/"+e.Name, "/")
		switch {
		case e.Name == ".git":
			*lines = append(*lines, p)
		case e.Type == tree.TypeDir:
			sub, err := d.Sub(e.Name)
			if err != nil {
				return err
			}
			err = list(sub, p, lines)
			sub.Close()
			if err != nil {
				return err
			}
		case e.Type == tree.TypeRegular:
			c, err := os.ReadFile(d.Path() + "/" + e.Name)
			if err != nil {
				return err
			}
			*lines = append(*lines, p+" "+string(c))
		default:
			target, _ := d.Readlink(e.Name)
			*lines = append(*lines, fmt.Sprintf("%s -> %s", p, target))
		}
	}
	return nil
}

// secrets is a client with secrets and nothing else.
type secrets map[string]string

func (s secrets) Secret(_ context.Context, _ session.Group, id string) ([]byte, error) {
	if v, ok := s[id]; ok {
		return []byte(v), nil
	}
	return nil, fault.New(fault.NotFound, "secret %s", id)
}

func (s secrets) Sessions() []string { return []string{"s1"} }

func (s secrets) Any(context.Context, session.Group, func(context.Context, string, session.Caller) error) error {
	return fault.New(fault.NotFound, "no active sessions")
}

// quiet hears nothing.
type quiet struct{}

func (quiet) Vertex(progress.Vertex)   {}
func (quiet) Status(progress.Status)   {}
func (quiet) Log(progress.Log)         {}
func (quiet) Warning(progress.Warning) {}

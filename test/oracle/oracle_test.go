package oracle

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/rogpeppe/go-internal/txtar"
)

// testCase is one Dockerfile with what the client asks for.
type testCase struct {
	archive, name string
	dir           string // the context, with the Dockerfile
	change        string // a script that changes the context; "": the case is built once
	attrs         map[string]string
	fails         bool
	ownWords      bool // errors need not end alike
}

// TestOracle builds the corpus with Berth and with BuildKit and compares.
func TestOracle(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root: builds mount overlay file systems")
	}
	if ociRuntime() == "" {
		t.Skip("needs runc or crun: BuildKit's steps run in it")
	}
	web := newWeb(t)
	cases := corpus(t, web)
	b := newBases(t)
	buildkit, berth := startBuildKit(t), startBerth(t)
	t.Run("cases", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.archive+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				want, got := c.both(t, buildkit, berth, b, c.dir)
				if (want.err != nil) != c.fails {
					t.Fatalf("the case is not what it says: with BuildKit %v\n%s", want.err, want.log)
				}
				if list := c.differences(want, got); len(list) > 0 {
					t.Errorf("- BuildKit, + Berth:\n%s", strings.Join(list, "\n"))
				}
				if c.change != "" && !c.fails {
					c.again(t, buildkit, berth, b)
				}
				if c.fails && testing.Verbose() {
					t.Logf("BuildKit: %v", want.err)
					t.Logf("Berth:    %v", got.err)
				}
			})
		}
	})
}

// again builds a case a second time: touched, which changes nothing, and with what its context's files say changed. What comes out must be
// the same again, and Berth runs no step that BuildKit finds in its cache.
func (c *testCase) again(t *testing.T, buildkit, berth *client.Client, b *bases) {
	dir := copied(t, c.dir, `find . -type f -exec touch -d '2021-01-01 00:00:00Z' {} +`)
	if o := c.build(t, berth, b, dir); o.err != nil || len(o.ran) > 0 {
		t.Errorf("touched: %v, ran %q", o.err, o.ran)
	}
	dir = copied(t, c.dir, c.change)
	want, got := c.both(t, buildkit, berth, b, dir)
	if list := c.differences(want, got); len(list) > 0 {
		t.Errorf("changed: - BuildKit, + Berth:\n%s", strings.Join(list, "\n"))
	}
	for _, step := range got.ran {
		if !slices.Contains(want.ran, step) {
			t.Errorf("changed: Berth ran %q, BuildKit had it in its cache", step)
		}
	}
}

// copied gives a copy of a directory on which a script has run.
func copied(t *testing.T, dir, script string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "context")
	cmd := exec.Command("sh", "-ec", `cp -a "$1" "$2"; cd "$2"; `+script, "sh", dir, to)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return to
}

func TestCorpusIsLarge(t *testing.T) {
	if n := len(corpus(t, "http://x")); n < 150 {
		t.Errorf("%d Dockerfiles, want 150", n)
	}
}

// newWeb serves what cases fetch; $HTTP in a Dockerfile stands for its address.
func newWeb(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := map[string][]byte{"/file.txt": []byte("Hello"), "/named": []byte("named"), "/plain.tar": layerOf(t, file("in-tar", "1", 0o644, 3, 4))}[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.URL.Path == "/named" {
			w.Header().Set("Content-Disposition", `attachment; filename="given.name"`)
		}
		http.ServeContent(w, r, "", longAgo, bytes.NewReader(body))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// corpus reads all archives.
func corpus(t *testing.T, web string) []*testCase {
	t.Helper()
	list, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(list) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	var cases []*testCase
	for _, path := range list {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, unpack(t, strings.TrimSuffix(filepath.Base(path), ".txtar"), a, web)...)
	}
	return cases
}

// unpack writes an archive's files and reads what its comment says of its cases.
func unpack(t *testing.T, name string, a *txtar.Archive, web string) (cases []*testCase) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	byName := map[string]*testCase{}
	for _, f := range a.Files {
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.ReplaceAll(f.Data, []byte("$HTTP"), []byte(web)), 0o644); err != nil {
			t.Fatal(err)
		}
		if n, ok := strings.CutPrefix(f.Name, "Dockerfile."); ok && !strings.HasSuffix(n, ".dockerignore") {
			c := &testCase{archive: name, name: n, dir: dir, attrs: map[string]string{}}
			byName[n] = c
			cases = append(cases, c)
		}
	}
	for line := range strings.Lines(string(a.Comment)) {
		line = strings.TrimSpace(line)
		if script, ok := strings.CutPrefix(line, "$$ "); ok {
			for _, c := range cases {
				c.change = script
			}
			continue
		}
		if script, ok := strings.CutPrefix(line, "$ "); ok {
			cmd := exec.Command("sh", "-ec", script)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %s: %v: %s", name, script, err, out)
			}
			continue
		}
		who, what, ok := strings.Cut(line, ": ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		c := byName[who]
		if c == nil {
			t.Fatalf("%s: there is no Dockerfile.%s", name, who)
		}
		for word := range strings.FieldsSeq(what) {
			k, v, _ := strings.Cut(word, "=")
			switch word {
			case "fails":
				c.fails = true
				continue
			case "own-words":
				c.ownWords = true
				continue
			}
			c.attrs[k] = v
		}
	}
	cmd := exec.Command("find", dir, "-exec", "touch", "-h", "-d", longAgo.Format("2006-01-02T15:04:05Z"), "{}", "+")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return cases
}

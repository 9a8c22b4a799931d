package starter

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"golang.org/x/tools/txtar"
	"gopkg.in/yaml.v3"
)

var update = flag.Bool("update", false, "write what is expected anew")

// Each case is an archive: a project's files, then, below want/, what init writes for it.
func TestFiles(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			dir := fstest.MapFS{}
			want := map[string]string{}
			for _, f := range a.Files {
				if name, ok := strings.CutPrefix(f.Name, "want/"); ok {
					want[name] = string(f.Data)
					continue
				}
				dir[f.Name] = &fstest.MapFile{Data: f.Data, Mode: 0o644}
			}
			got := map[string]string{}
			p, err := Look(dir, "", "project dir")
			if err != nil {
				got["error"] = err.Error() + "\n"
			} else {
				files, err := p.Files()
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range files {
					got[f.Name] = f.Text
				}
				check(t, got)
			}
			if *update {
				rewrite(t, path, a, got)
				return
			}
			delete(got, ".dockerignore") // the same for all of a kind
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// check holds that what was written is what the tools that read it understand.
func check(t *testing.T, files map[string]string) {
	t.Helper()
	ast, err := parser.Parse(strings.NewReader(files["Dockerfile"]))
	if err != nil {
		t.Fatalf("%v in\n%s", err, files["Dockerfile"])
	}
	if _, _, err := instructions.Parse(ast.AST, nil); err != nil {
		t.Errorf("%v in\n%s", err, files["Dockerfile"])
	}
	var compose struct{ Services map[string]any }
	if err := yaml.Unmarshal([]byte(files["compose.yaml"]), &compose); err != nil || len(compose.Services) != 1 {
		t.Errorf("compose.yaml: %v, %v", compose, err)
	}
	if !strings.Contains(files[".dockerignore"], ".git\n") {
		t.Error(".dockerignore is wrong")
	}
}

func rewrite(t *testing.T, path string, a *txtar.Archive, got map[string]string) {
	t.Helper()
	a.Files = slices.DeleteFunc(a.Files, func(f txtar.File) bool { return strings.HasPrefix(f.Name, "want/") })
	for _, name := range []string{"Dockerfile", "compose.yaml", "error"} {
		if text, ok := got[name]; ok {
			a.Files = append(a.Files, txtar.File{Name: "want/" + name, Data: []byte(text)})
		}
	}
	if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"Dockerfile": "mine", "docker-compose.yml": "mine"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files := []File{{"Dockerfile", "ours"}, {".dockerignore", "ours"}, {"compose.yaml", "ours"}}
	wrote, found, err := Write(dir, files)
	if err != nil || !slices.Equal(wrote, []string{".dockerignore"}) || !slices.Equal(found, []string{"Dockerfile", "docker-compose.yml"}) {
		t.Errorf("wrote %q, found %q, %v", wrote, found, err)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "Dockerfile")); string(text) != "mine" {
		t.Errorf("the Dockerfile is now %q", text)
	}
	wrote, _, err = Write(dir, files)
	if err != nil || len(wrote) > 0 {
		t.Errorf("a second time it wrote %q, %v", wrote, err)
	}
}

func TestUnknown(t *testing.T) {
	if _, err := Look(fstest.MapFS{"notes.txt": {}}, "", "x"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	if _, err := Look(fstest.MapFS{}, "cobol", "x"); err == nil || !strings.Contains(err.Error(), "go, rust") {
		t.Error(err)
	}
}

func FuzzLook(f *testing.F) {
	f.Add("package.json", `{"scripts":{"start":"node ."}}`)
	f.Add("go.mod", "module x/y\ngo 1.2")
	f.Add("pom.xml", "<project><artifactId>a</artifactId></project>")
	f.Add("pyproject.toml", "[project]\nname='a'")
	f.Fuzz(func(t *testing.T, name, text string) {
		dir := fstest.MapFS{name: {Data: []byte(text)}, "main.go": {Data: []byte("package main")}, "main.py": {}, "src/main.rs": {}}
		p, err := Look(dir, "", "x")
		if err != nil {
			return
		}
		if _, err := p.Files(); err != nil {
			t.Fatal(err)
		}
	})
}

package starter

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"golang.org/x/tools/txtar"
	"gopkg.in/yaml.v3"

	"berth/cli/build/goldentest"
)

// Each case is an archive: a project's files, then, below want/, what init writes for it.
func TestFiles(t *testing.T) {
	goldentest.Run(t, func(name string) bool { return strings.HasPrefix(name, "want/") }, func(t *testing.T, in []txtar.File) (out []txtar.File) {
		dir := fstest.MapFS{}
		for _, f := range in {
			dir[f.Name] = &fstest.MapFile{Data: f.Data, Mode: 0o644}
		}
		p, err := Look(dir, "", "project dir")
		if err != nil {
			return []txtar.File{{Name: "want/error", Data: []byte(err.Error() + "\n")}}
		}
		files, err := p.Files()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, f := range files {
			got[f.Name] = f.Text
			if f.Name != ".dockerignore" { // the same for all of a kind
				out = append(out, txtar.File{Name: "want/" + f.Name, Data: []byte(f.Text)})
			}
		}
		check(t, got)
		return out
	})
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

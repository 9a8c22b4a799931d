package bake

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what is expected anew")

// Each case is an archive: files to read in order, env, args (targets and --set texts), and want: what `bake --print` shows, or error.
func TestBake(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			path, err := filepath.Abs(path)
			if err != nil {
				t.Fatal(err)
			}
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(t.TempDir())
			var files []File
			env := map[string]string{}
			var targets, sets []string
			want := ""
			for _, f := range a.Files {
				switch f.Name {
				case "want":
					want = string(f.Data)
				case "env":
					for l := range strings.Lines(string(f.Data)) {
						k, v, _ := strings.Cut(strings.TrimSpace(l), "=")
						env[k] = v
					}
				case "args":
					for l := range strings.Lines(string(f.Data)) {
						if l = strings.TrimSpace(l); strings.Contains(l, "=") {
							sets = append(sets, l)
						} else if l != "" {
							targets = append(targets, l)
						}
					}
				case ".env":
					if err := os.WriteFile(f.Name, f.Data, 0o644); err != nil {
						t.Fatal(err)
					}
				default:
					files = append(files, File{f.Name, f.Data})
				}
			}
			if len(targets) == 0 {
				targets = []string{"default"}
			}
			got := printed(files, env, targets, sets)
			if *update {
				a.Files = append(withoutWant(a.Files), txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func printed(files []File, env map[string]string, targets, sets []string) string {
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	c, err := Parse(files, map[string]string{"BAKE_CMD_CONTEXT": "cwd://"}, lookup)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	ts, gs, err := c.Resolve(targets, sets)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	text, err := json.MarshalIndent(map[string]any{"group": gs, "target": ts}, "", "  ")
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	for _, t := range ts {
		if _, err := t.Spec(); err != nil {
			return "error: " + err.Error() + "\n"
		}
	}
	return string(text) + "\n"
}

func withoutWant(files []txtar.File) []txtar.File {
	var out []txtar.File
	for _, f := range files {
		if f.Name != "want" {
			out = append(out, f)
		}
	}
	return out
}

func FuzzParse(f *testing.F) {
	cases, _ := filepath.Glob("testdata/*.txt")
	for _, path := range cases {
		a, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(a.Files[0].Data)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		printed([]File{{"-", text}}, nil, []string{"default"}, nil)
	})
}

// Package goldentest runs tests whose cases are files: archives in testdata with what goes in and what is to come out. `go test -update` writes
// what comes out into them. It never judges: what differs is shown, and whoever wrote anew looks at the difference.
package goldentest

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what is expected anew")

// Run runs each case of testdata/*.txt as a test of its name. Those files of its archive that wanted names are what is to come out; run gets the others,
// in order, and gives what came out, in the order in which an update writes it.
func Run(t *testing.T, wanted func(name string) bool, run func(t *testing.T, in []txtar.File) (out []txtar.File)) {
	t.Helper()
	for _, path := range cases(t) {
		path, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var in []txtar.File
			want, got := map[string]string{}, map[string]string{}
			for _, f := range a.Files {
				if wanted(f.Name) {
					want[f.Name] = string(f.Data)
				} else {
					in = append(in, f)
				}
			}
			out := run(t, in)
			for _, f := range out {
				got[f.Name] = string(f.Data)
			}
			if *update {
				a.Files = append(in, out...)
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

// Seed gives fuzzing the first file of each case to begin with.
func Seed(f *testing.F) {
	f.Helper()
	for _, path := range cases(f) {
		a, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(a.Files[0].Data)
	}
}

// Lay writes a file of a case below dir.
func Lay(t *testing.T, dir string, file txtar.File) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(file.Name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, file.Data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func cases(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	return paths
}

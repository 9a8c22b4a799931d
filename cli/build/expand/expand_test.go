package expand

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what is expected anew")

// Each case is an archive: Dockerfile and the files it includes, args with build arguments, want with the plain file or error with the message.
func TestExpand(t *testing.T) {
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
			src := Source{Name: "Dockerfile", Dir: t.TempDir(), Args: map[string]string{}}
			var want, wantError string
			for _, f := range a.Files {
				switch f.Name {
				case "want":
					want = string(f.Data)
				case "error":
					wantError = strings.TrimSpace(string(f.Data))
				case "args":
					for l := range strings.Lines(string(f.Data)) {
						k, v, _ := strings.Cut(strings.TrimSpace(l), "=")
						src.Args[k] = v
					}
				case "Dockerfile":
					src.Text = f.Data
				default:
					target := filepath.Join(src.Dir, f.Name)
					if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(target, f.Data, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			got, gotError := "", ""
			result, err := Expand(src)
			if err != nil {
				gotError = strings.ReplaceAll(err.Error(), src.Dir, "DIR")
			} else {
				got = string(result.Text)
				checkPlaces(t, result)
			}
			if *update {
				rewrite(t, path, a, got, gotError)
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("expanded (-want +got):\n%s", diff)
			}
			if wantError != gotError {
				t.Errorf("error %q, want %q", gotError, wantError)
			}
		})
	}
}

func rewrite(t *testing.T, path string, a *txtar.Archive, got, gotError string) {
	t.Helper()
	var files []txtar.File
	for _, f := range a.Files {
		if f.Name != "want" && f.Name != "error" {
			files = append(files, f)
		}
	}
	if gotError != "" {
		files = append(files, txtar.File{Name: "error", Data: []byte(gotError + "\n")})
	} else {
		files = append(files, txtar.File{Name: "want", Data: []byte(got)})
	}
	a.Files = files
	if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
		t.Fatal(err)
	}
}

// checkPlaces holds that each line has a place, and that a plain line is the one of its place but for what was replaced.
func checkPlaces(t *testing.T, r *Result) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(string(r.Text), "\n"), "\n")
	if len(lines) != len(r.Lines) {
		t.Fatalf("%d lines have %d places", len(lines), len(r.Lines))
	}
	for i, p := range r.Lines {
		origin := strings.Split(strings.TrimPrefix(string(r.Files[p.File]), "\xef\xbb\xbf"), "\n")
		if p.Line < 1 || p.Line > len(origin) {
			t.Fatalf("line %d comes from %s:%d, which has %d", i+1, p.File, p.Line, len(origin))
		}
		was := strings.TrimSuffix(origin[p.Line-1], "\r")
		if !strings.Contains(was, "$") && was != lines[i] {
			t.Errorf("line %d is %q, and was %q at %s:%d", i+1, lines[i], was, p.File, p.Line)
		}
	}
}

func TestWanted(t *testing.T) {
	for text, want := range map[string]bool{
		"# berth:expand\nFROM x\n":             true,
		"#berth:expand":                        true,
		"\xef\xbb\xbf# berth:expand\r\nFROM x": true,
		"FROM x\n# berth:expand\n":             false,
		"# syntax=docker/dockerfile:1\nFROM x": false,
		"":                                     false,
	} {
		if got := Wanted([]byte(text)); got != want {
			t.Errorf("Wanted(%q) = %v", text, got)
		}
	}
}

func TestOriginal(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "part"), []byte("# a part\nRUN false\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := Expand(Source{Name: "ctx/Dockerfile", Dir: dir, Text: []byte(Marker + "\nFROM scratch\nFOR i IN 1 2\nRUN echo $i\nEND\nINCLUDE part\n")})
	if err != nil {
		t.Fatal(err)
	}
	at := func(first, last int32) *errdefs.Source {
		return &errdefs.Source{Info: &pb.SourceInfo{Filename: "Dockerfile", Data: r.Text}, Ranges: []*pb.Range{{Start: &pb.Position{Line: first}, End: &pb.Position{Line: last}}}}
	}
	for _, c := range []struct {
		in   *errdefs.Source
		file string
		line int32
	}{
		{at(1, 1), "ctx/Dockerfile", 2},
		{at(3, 3), "ctx/Dockerfile", 4},
		{at(5, 5), "part", 2},
	} {
		got := r.Original(c.in)
		if got.Info.Filename != c.file || got.Ranges[0].Start.Line != c.line {
			t.Errorf("%v leads to %s:%d, want %s:%d", c.in.Ranges, got.Info.Filename, got.Ranges[0].Start.Line, c.file, c.line)
		}
	}
	other := &errdefs.Source{Info: &pb.SourceInfo{Filename: "x", Data: []byte("other")}, Ranges: at(1, 1).Ranges}
	if r.Original(other) != other {
		t.Error("the source of another file was changed")
	}
}

func TestIncludeStaysInside(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("RUN secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../secret", filepath.Join(outside, "secret"), "link", "a/../../secret", "."} {
		_, err := Expand(Source{Dir: dir, Text: []byte("FROM scratch\nINCLUDE " + name + "\n")})
		var at *Error
		if !errors.As(err, &at) || at.Line != 2 {
			t.Errorf("INCLUDE %s: %v", name, err)
		}
	}
}

func TestBounds(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "again"), []byte("RUN x\nINCLUDE again\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	loops := strings.Repeat("FOR a IN 1 2 3 4 5 6 7 8 9\n", 8) + "RUN x\n" + strings.Repeat("END\n", 8)
	for name, text := range map[string]string{
		"include": "INCLUDE again\n",
		"loops":   loops,
		"nesting": strings.Repeat("IF 1\n", 200) + strings.Repeat("END\n", 200),
		"parens":  "IF " + strings.Repeat("(", 500) + "1\nEND\n",
		"nots":    "IF " + strings.Repeat("!", 50000) + "1\nEND\n",
	} {
		if _, err := Expand(Source{Dir: dir, Text: []byte(text)}); err == nil {
			t.Errorf("%s: no bound", name)
		}
	}
}

func FuzzExpand(f *testing.F) {
	cases, _ := filepath.Glob("testdata/*.txt")
	for _, path := range cases {
		a, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(a.Files[0].Data)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Expand(Source{Dir: dir, Text: text, Args: map[string]string{"A": "1"}})
		if err != nil {
			var at *Error
			if !errors.As(err, &at) {
				t.Fatalf("an error without place: %v", err)
			}
			return
		}
		if n := strings.Count(string(r.Text), "\n"); n != len(r.Lines) {
			t.Fatalf("%d lines, %d places", n, len(r.Lines))
		}
		if len(text) > 0 && strings.Contains(string(r.Text), "FROM") {
			if p, err := parser.Parse(strings.NewReader(string(r.Text))); err == nil {
				for _, n := range p.AST.Children {
					if strings.EqualFold(n.Value, "include") {
						t.Fatalf("INCLUDE is left over in %q", r.Text)
					}
				}
			}
		}
	})
}

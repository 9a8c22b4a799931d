package expand

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/tools/txtar"

	"berth/cli/build/goldentest"
)

// Each case is an archive: Dockerfile and the files it includes, args with build arguments, want with the plain file or error with the message.
func TestExpand(t *testing.T) {
	goldentest.Run(t, func(name string) bool { return name == "want" || name == "error" }, func(t *testing.T, in []txtar.File) []txtar.File {
		src := Source{Name: "Dockerfile", Dir: t.TempDir(), Args: map[string]string{}}
		for _, f := range in {
			switch f.Name {
			case "args":
				for l := range strings.Lines(string(f.Data)) {
					k, v, _ := strings.Cut(strings.TrimSpace(l), "=")
					src.Args[k] = v
				}
			case "Dockerfile":
				src.Text = f.Data
			default:
				goldentest.Lay(t, src.Dir, f)
			}
		}
		result, err := Expand(src)
		if err != nil {
			return []txtar.File{{Name: "error", Data: []byte(strings.ReplaceAll(err.Error(), src.Dir, "DIR") + "\n")}}
		}
		checkPlaces(t, result)
		return []txtar.File{{Name: "want", Data: result.Text}}
	})
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
	goldentest.Seed(f)
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

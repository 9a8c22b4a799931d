package bake

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"golang.org/x/tools/txtar"

	"berth/cli/build/goldentest"
	"berth/cli/build/request"
	"berth/compose/file"
	"berth/compose/load"
)

// Each case is an archive: files to read in order, those below disk/ only where others lead to them, env, args (targets and --set texts), and want: what
// `bake --print` shows, or error.
func TestBake(t *testing.T) {
	goldentest.Run(t, func(name string) bool { return name == "want" }, func(t *testing.T, in []txtar.File) []txtar.File {
		dir := t.TempDir()
		t.Chdir(dir)
		var files []File
		env := map[string]string{}
		var targets, sets []string
		for _, f := range in {
			onDisk, beside := strings.CutPrefix(f.Name, "disk/")
			switch {
			case f.Name == "env":
				for l := range strings.Lines(string(f.Data)) {
					k, v, _ := strings.Cut(strings.TrimSpace(l), "=")
					env[k] = v
				}
			case f.Name == "args":
				for l := range strings.Lines(string(f.Data)) {
					if l = strings.TrimSpace(l); strings.Contains(l, "=") {
						sets = append(sets, l)
					} else if l != "" {
						targets = append(targets, l)
					}
				}
			case f.Name == ".env":
				goldentest.Lay(t, dir, f)
			case beside:
				goldentest.Lay(t, dir, txtar.File{Name: onDisk, Data: f.Data})
			default:
				files = append(files, File{f.Name, f.Data})
			}
		}
		if len(targets) == 0 {
			targets = []string{"default"}
		}
		return []txtar.File{{Name: "want", Data: []byte(printed(files, env, targets, sets))}}
	})
}

// composer answers as berth-compose does.
func composer(q file.Question) (a file.Answer, err error) {
	text, err := json.Marshal(q)
	if err == nil {
		q = file.Question{}
		err = json.Unmarshal(text, &q)
	}
	if err == nil {
		text, err = json.Marshal(load.Answer(q))
	}
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	return a, err
}

func printed(files []File, env map[string]string, targets, sets []string) string {
	c, err := Parse(files, map[string]string{"BAKE_CMD_CONTEXT": "cwd://"}, env, composer)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	ts, gs, err := c.Resolve(targets, sets)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	for _, name := range sortedKeys(ts) {
		if err := ts[name].Settle(nil); err != nil {
			return "error: " + err.Error() + "\n"
		}
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

// Files of a repository speak of its directories, and reach this machine's only where they say so.
func TestSettleRemote(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	state := llb.Git("https://example.com/a.git", "main")
	from := &Remote{URL: "https://example.com/a.git#main:top", State: &state, Secrets: func(string) []request.Secret { return []request.Secret{{ID: "t", Env: "T"}} }}
	text := func(s string) *string { return &s }
	for name, c := range map[string]struct {
		in            Target
		context, file string
		state, auth   bool
		reads         []string
	}{
		"all":         {Target{Context: text("."), Dockerfile: text("Dockerfile")}, "https://example.com/a.git#main:top", "Dockerfile", false, true, nil},
		"part":        {Target{Context: text("sub/"), Dockerfile: text("x")}, "https://example.com/a.git#main:top/sub", "x", true, true, nil},
		"here":        {Target{Context: text("cwd://app"), Dockerfile: text("Dockerfile")}, "app", "app/Dockerfile", false, false, []string{"app", "app/Dockerfile"}},
		"elsewhere":   {Target{Context: text("https://example.org/b.git"), Dockerfile: text("Dockerfile")}, "https://example.org/b.git", "Dockerfile", false, false, nil},
		"file here":   {Target{Context: text("."), Dockerfile: text("cwd://own")}, "https://example.com/a.git#main:top", filepath.Join(dir, "own"), false, true, []string{filepath.Join(dir, "own")}},
		"file stolen": {Target{Context: text("."), Dockerfile: text("/etc/shadow")}, "https://example.com/a.git#main:top", "/etc/shadow", false, true, []string{"/etc/shadow"}},
	} {
		target := c.in
		if err := target.Settle(from); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s, err := target.Spec()
		if err != nil {
			t.Fatal(err)
		}
		if s.Context != c.context || s.Dockerfile != c.file || (s.ContextState != nil) != c.state || (len(s.Secrets) > 0) != c.auth {
			t.Errorf("%s: %q, %q, state %v, secrets %v", name, s.Context, s.Dockerfile, s.ContextState != nil, s.Secrets)
		}
		if got := target.reads(); !slices.Equal(got, c.reads) {
			t.Errorf("%s reads %q, want %q", name, got, c.reads)
		}
	}
	if err := os.WriteFile("Dockerfile", []byte("FROM scratch"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := (&Target{Context: text("cwd://"), Dockerfile: text("Dockerfile")}).Settle(from); err == nil {
		t.Error("a Dockerfile of this machine is taken for the repository's")
	}
}

func FuzzParse(f *testing.F) {
	goldentest.Seed(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		printed([]File{{"-", text}}, nil, []string{"default"}, nil)
	})
}

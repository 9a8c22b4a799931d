package bake

import (
	"encoding/json"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"berth/cli/build/goldentest"
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

func printed(files []File, env map[string]string, targets, sets []string) string {
	c, err := Parse(files, map[string]string{"BAKE_CMD_CONTEXT": "cwd://"}, env)
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

func FuzzParse(f *testing.F) {
	goldentest.Seed(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		printed([]File{{"-", text}}, nil, []string{"default"}, nil)
	})
}

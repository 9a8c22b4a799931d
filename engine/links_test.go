package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/engine/container"
)

// Mount targets and a working directory that are links of the image to nothing are made where they lead to, inside the container's root.
func TestLinksToNothing(t *testing.T) {
	w := newWorld(t)
	outside := filepath.Join(t.TempDir(), "outside")
	for name, to := range map[string]string{
		"vol": "/made/vol", "tmpfs": "made/deep/tmpfs", "bound": "/../.." + outside, "wd": "/made/wd", "chain": "wd", "loop": "loop", "covered": "/etc",
	} {
		if err := os.Symlink(to, filepath.Join(w.images.lower, name)); err != nil {
			t.Fatal(err)
		}
	}
	src := t.TempDir()
	for name, text := range map[string]string{"file": "text", "sub/f": ""} {
		_ = os.MkdirAll(filepath.Dir(filepath.Join(src, name)), 0o755)
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// In a bind there is another link of that name, whose own target counts.
	if err := os.Symlink("sub/inner", filepath.Join(src, "chain")); err != nil {
		t.Fatal(err)
	}
	s := spec("cat /made/vol/file; stat -c %F /made/deep/tmpfs; pwd; grep -c made /proc/self/mounts; stat -c %F /vol /wd >/dev/null; test -d " + outside + " && echo inside")
	s.Process.WorkingDir = "/chain/sub"
	s.Mounts = []container.Mount{
		{Type: "bind", Source: src, Target: "/vol", FromBinds: true}, {Type: "tmpfs", Target: "/tmpfs"}, {Type: "bind", Source: src, Target: "/bound", FromBinds: true},
	}
	out, _ := w.output(s)
	if want := "textdirectory\n/made/wd/sub\n2\ninside\n"; out != want {
		t.Errorf("%q, want %q", out, want)
	}
	if _, err := os.Lstat(outside); err == nil {
		t.Error("something was made outside of the container")
	}
	s = spec("true")
	s.Process.WorkingDir = "/loop"
	if err := w.Start(t.Context(), w.create("loops", s)); err == nil || !strings.Contains(err.Error(), "too many levels") {
		t.Errorf("a loop: %v", err)
	}
}

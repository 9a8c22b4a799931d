package file

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/kernel/tree"
)

// FuzzResolve resolves paths in a tree full of links: whatever they say, the result is a plain path inside, and resolving it again changes nothing.
func FuzzResolve(f *testing.F) {
	root := f.TempDir()
	for name, target := range map[string]string{"up": "../../..", "abs": "/d/e", "self": "self", "a": "b", "b": "/a", "rel": "d/../d/e", "etc": "/etc/passwd", "dot": "."} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			f.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "d/e"), 0o755); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "d/file"), nil, 0o644); err != nil {
		f.Fatal(err)
	}
	d, err := tree.OpenDir(root)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { d.Close() })
	for _, p := range []string{"/", "up/up/etc", "abs/../../x", "self/x", "a/b", "rel/./y//z", "d/file/x", "etc", "dot/dot/abs", "../up", "none/../up/d"} {
		f.Add(p, true)
		f.Add(p, false)
	}
	f.Fuzz(func(t *testing.T, p string, follow bool) {
		if strings.ContainsRune(p, 0) {
			return
		}
		got, err := resolve(d, p, follow)
		if err != nil {
			return
		}
		names := split(got)
		if strings.Join(names, "/") != got || slices.Contains(names, "..") {
			t.Fatalf("%q became %q", p, got)
		}
		if again, err := resolve(d, got, false); err != nil || again != got {
			t.Errorf("%q became %q, and that %q, %v", p, got, again, err)
		}
		if matches, err := glob(d, p, follow); err == nil {
			for _, m := range matches {
				if slices.Contains(split(m), "..") {
					t.Errorf("%q matched %q", p, m)
				}
			}
		}
	})
}

package mergedroot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// tree makes files: "a/b": "text", "a/l": "->target", "d/": directory, "a/x": "whiteout", "d/": "opaque", "p": "fifo".
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, what := range files {
		p := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(p), 0o755)
		var err error
		switch {
		case what == "whiteout":
			err = unix.Mknod(p, unix.S_IFCHR, 0)
		case what == "fifo":
			err = unix.Mkfifo(p, 0o600)
		case what == "opaque":
			os.MkdirAll(p, 0o755)
			err = unix.Setxattr(p, "trusted.overlay.opaque", []byte("y"), 0)
		case len(what) > 2 && what[:2] == "->":
			err = os.Symlink(what[2:], p)
		default:
			err = os.WriteFile(p, []byte(what), 0o644)
		}
		if errors.Is(err, unix.EPERM) {
			t.Skip("needs CAP_MKNOD and CAP_SYS_ADMIN: whiteouts and trusted xattrs")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestView(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	os.WriteFile(outside, []byte("secret"), 0o600)
	base := tree(t, map[string]string{
		"etc/passwd": "base", "etc/group": "base", "etc/gone": "base", "dir/low": "base", "file/x": "base", "opq/low": "base",
		"usr/lib/real": "real", "deep/a/b/c": "deep",
	})
	mid := tree(t, map[string]string{
		"etc/passwd": "mid", "etc/gone": "whiteout", "lib": "->usr/lib", "abs": "->/etc/passwd", "up": "->../../../etc/passwd",
		"loop": "->loop", "out": "->" + outside, "opq": "opaque", "opq/new": "mid", "deep/a/b/d": "mid", "pipe": "fifo",
	})
	upper := tree(t, map[string]string{"etc/shadow": "upper", "file": "now a file", "dir": "whiteout", "deep/l": "->a/../a/b/./c", "via": "->/lib/real"})
	r, err := Open(upper, []string{mid, base})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for name, want := range map[string]string{
		"/abs": "/etc/passwd", "lib/none/deep": "/usr/lib/none/deep", "etc/gone/../x": "/etc/x", "out": outside, "deep/l": "/deep/a/b/c", "/": "/", "via": "/usr/lib/real",
	} {
		if got, err := r.Follow(name); err != nil || got != want {
			t.Errorf("following %s: %q, %v, want %q", name, got, err, want)
		}
	}
	if _, err := r.Follow("loop/x"); err == nil {
		t.Error("a loop was followed to its end")
	}
	for name, want := range map[string]string{
		"/etc/passwd": "mid", "etc/group": "base", "/etc/shadow": "upper", "/etc/gone": "", "/dir/low": "", "/file": "now a file", "/file/x": "",
		"/lib/real": "real", "/abs": "mid", "/up": "mid", "/loop": "", "/out": "", "/opq/new": "mid", "/opq/low": "", "/deep/a/b/c": "deep",
		"/deep/a/b/d": "mid", "/deep/l": "deep", "/via": "real", "/../../etc/passwd": "mid", "/pipe": "", "/etc": "", "/": "",
	} {
		b, err := r.ReadFile(name, 100)
		if string(b) != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", name, b, err, want)
		}
	}
	if b, _ := r.ReadFile("/etc/passwd", 2); string(b) != "mi" {
		t.Errorf("limit: %q", b)
	}
	if _, err := r.ReadFile("/nothing", 1); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if st, err := r.Stat("/lib"); err != nil || !st.IsDir() {
		t.Error(st, err)
	}
}

func TestPrograms(t *testing.T) {
	self, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Skip("needs /bin/sh: a dynamic program to look at")
	}
	dir := tree(t, map[string]string{"bin/script": "#! /bin/none -x\n", "usr/bin/text": "hello", "usr/bin/prog": string(self), "etc/x": ""})
	r, err := Open("", []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for name, want := range map[string]string{"script": "/bin/script", "prog": "/usr/bin/prog", "none": "", "/etc/x": "/etc/x", "/etc/none": "", "x": ""} {
		if got := LookPath(r, name, "/bin:/usr/bin"); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := Loader(r, "/bin/script"); got != "/bin/none" {
		t.Errorf("script: %q", got)
	}
	if got := Loader(r, "/usr/bin/text"); got != "" {
		t.Errorf("text: %q", got)
	}
	if got := Loader(r, "/usr/bin/prog"); !filepath.IsAbs(got) {
		t.Errorf("/bin/sh: %q", got)
	}
}

func FuzzELFLoader(f *testing.F) {
	if b, err := os.ReadFile("/bin/sh"); err == nil {
		f.Add(b[:2048])
	}
	f.Fuzz(func(t *testing.T, b []byte) { elfLoader(b) })
}

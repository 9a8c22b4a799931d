package frontend

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	fstypes "github.com/tonistiigi/fsutil/types"

	"berth/kernel/tree"
)

// hostile makes a tree with links that lead everywhere, and a file outside that none may reach.
func hostile(t *testing.T) *tree.Dir {
	t.Helper()
	outer := t.TempDir()
	root := filepath.Join(outer, "root")
	for _, d := range []string{"root/a/b", "root/etc"} {
		if err := os.MkdirAll(filepath.Join(outer, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"secret": "outside", "root/secret": "inside", "root/a/b/f": "0123456789", "root/etc/x.conf": "x", "root/etc/y": "y"} {
		if err := os.WriteFile(filepath.Join(outer, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{
		"up": "../secret", "far": "../../../../../../../../secret", "abs": "/secret", "a/rel": "b/f", "a/b/back": "../rel", "dir": "/a/b",
		"loop": "loop2", "loop2": "loop", "dangling": "nowhere",
	} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	d, err := tree.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestReadFileStaysInside(t *testing.T) {
	root := hostile(t)
	for name, want := range map[string]string{
		"secret": "inside", "up": "inside", "far": "inside", "abs": "inside", "/abs": "inside", "../../secret": "inside",
		"a/rel": "0123456789", "a/b/back": "0123456789", "dir/f": "0123456789", "dir/../../secret": "inside",
	} {
		got, err := readFile(root, name, nil)
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	part, err := readFile(root, "dir/f", &gwclient.FileRange{Offset: 3, Length: 4})
	if err != nil || string(part) != "3456" {
		t.Errorf("a part is %q, %v", part, err)
	}
	for _, name := range []string{"loop", "dangling", "none", "a", "secret/x"} {
		if got, err := readFile(root, name, nil); err == nil {
			t.Errorf("%s was read: %q", name, got)
		} else if !strings.Contains(err.Error(), name) {
			t.Errorf("error %q does not name %s", err, name)
		}
	}
	if _, err := readFile(root, "none", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there is %v", err)
	}
	if _, err := readFile(root, "secret", &gwclient.FileRange{Offset: -1, Length: 1}); err == nil {
		t.Error("a range before the beginning was read")
	}
}

func TestStatAndReadDir(t *testing.T) {
	root := hostile(t)
	st, err := statFile(root, "abs")
	if err != nil || st.Path != "secret" || st.Size != 6 || os.FileMode(st.Mode) != 0o640 {
		t.Errorf("stat of a link is %+v, %v", st, err)
	}
	st, err = statFile(root, "/")
	if err != nil || !os.FileMode(st.Mode).IsDir() {
		t.Errorf("stat of the root is %+v, %v", st, err)
	}
	names := func(list []*fstypes.Stat) string {
		var n []string
		for _, s := range list {
			n = append(n, s.Path)
		}
		return strings.Join(n, " ")
	}
	for _, c := range []struct{ dir, pattern, want string }{
		{"etc", "", "x.conf y"}, {"etc", "*.conf", "x.conf"}, {"dir", "", "back f"}, {"a", "", "b rel"},
	} {
		list, err := readDir(root, c.dir, c.pattern)
		if err != nil || names(list) != c.want {
			t.Errorf("%s %s: %q, %v; want %q", c.dir, c.pattern, names(list), err, c.want)
		}
	}
	list, err := readDir(root, "a", "rel")
	if err != nil || len(list) != 1 || list[0].Linkname != "b/f" || os.FileMode(list[0].Mode)&os.ModeSymlink == 0 {
		t.Errorf("a link in a list is %+v, %v", list, err)
	}
}

func TestBuiltIn(t *testing.T) {
	for _, c := range []struct {
		opts map[string]string
		want bool
	}{
		{map[string]string{"source": "docker/dockerfile:1"}, true},
		{map[string]string{"source": "docker.io/docker/dockerfile:1.4-labs@sha256:" + strings.Repeat("a", 64)}, true},
		{map[string]string{"source": "docker/dockerfile-upstream:master"}, true},
		{map[string]string{"source": "dockerfile.v0"}, true},
		{map[string]string{"source": "example.com/docker/dockerfile:1"}, false},
		{map[string]string{"source": "docker/dockerfile:1", "context:docker/dockerfile:1": "docker-image://mine"}, false},
		{map[string]string{"source": "docker/dockerfile:1", "context:docker.io/docker/dockerfile:1::linux/amd64": "docker-image://mine"}, false},
		{map[string]string{"source": "docker/dockerfile:1", "context:alpine": "docker-image://mine"}, true},
		{map[string]string{"source": "my/frontend"}, false},
		{map[string]string{}, false},
	} {
		if got := builtIn(c.opts); got != c.want {
			t.Errorf("%v: %v", c.opts, got)
		}
	}
}

func TestCheckCaps(t *testing.T) {
	for _, c := range []struct {
		has, needs string
		inputs     bool
		ok         bool
	}{
		{"", "", false, true},
		{"moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests+forward", "moby.buildkit.frontend.subrequests", true, true},
		{"a", "b", false, false},
		{"a", "", true, false},
	} {
		if err := checkCaps(c.has, c.needs, c.inputs); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

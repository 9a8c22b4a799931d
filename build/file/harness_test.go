package file

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"berth/kernel/tree"
)

// grow makes a tree in a new directory. Each line is one file: "dir/ 755 1:2", "file 644 0:0 content", "link -> target",
// "name == other" for another name of the same file. Mode and owner may be left out.
func grow(t *testing.T, lines ...string) *tree.Dir {
	t.Helper()
	root := t.TempDir()
	for _, line := range lines {
		if name, target, ok := strings.Cut(line, " -> "); ok {
			need(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
			need(t, os.Symlink(target, filepath.Join(root, name)))
			continue
		}
		if name, other, ok := strings.Cut(line, " == "); ok {
			need(t, os.Link(filepath.Join(root, other), filepath.Join(root, name)))
			continue
		}
		f := strings.SplitN(line, " ", 4)
		p := filepath.Join(root, f[0])
		need(t, os.MkdirAll(filepath.Dir(p), 0o755))
		mode := "644"
		if strings.HasSuffix(f[0], "/") {
			mode = "755"
			need(t, os.MkdirAll(p, 0o755))
		} else {
			content := ""
			if len(f) > 3 {
				content = f[3]
			}
			need(t, os.WriteFile(p, []byte(content), 0o644))
		}
		if len(f) > 2 {
			var uid, gid int
			_, err := fmt.Sscanf(f[2], "%d:%d", &uid, &gid)
			need(t, err)
			need(t, os.Chown(p, uid, gid))
		}
		if len(f) > 1 {
			mode = f[1]
		}
		m, err := strconv.ParseUint(mode, 8, 32)
		need(t, err)
		need(t, syscall.Chmod(p, uint32(m)))
	}
	d, err := tree.OpenDir(root)
	need(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// dump prints a tree in the lines that grow reads, sorted; a second name of a file as "name == first".
func dump(t *testing.T, d *tree.Dir) string {
	t.Helper()
	root := real(t, d)
	var lines []string
	first := map[uint64]string{}
	need(t, filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		need(t, err)
		rel, _ := filepath.Rel(root, p)
		if rel == "." {
			return nil
		}
		fi, err := e.Info()
		need(t, err)
		st := fi.Sys().(*syscall.Stat_t)
		look := fmt.Sprintf("%o %d:%d", st.Mode&0o7777, st.Uid, st.Gid)
		switch {
		case fi.IsDir():
			lines = append(lines, rel+"/ "+look)
		case fi.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			need(t, err)
			lines = append(lines, rel+" -> "+target)
		case fi.Mode().IsRegular():
			if f, known := first[st.Ino]; known && st.Nlink > 1 {
				lines = append(lines, rel+" == "+f)
				return nil
			}
			first[st.Ino] = rel
			b, err := os.ReadFile(p)
			need(t, err)
			lines = append(lines, strings.TrimSpace(rel+" "+look+" "+string(b)))
		default:
			lines = append(lines, fmt.Sprintf("%s %v %s", rel, fi.Mode().Type(), look))
		}
		return nil
	}))
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// real is the path of a directory.
func real(t *testing.T, d *tree.Dir) string {
	t.Helper()
	p, err := os.Readlink(d.Path())
	need(t, err)
	return p
}

func need(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// root skips a test that chowns.
func root(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: files are given to other users")
	}
}

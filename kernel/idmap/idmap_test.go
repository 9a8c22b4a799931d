package idmap

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/mount"
	"berth/kernel/probe"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Map
		err  string
	}{
		{"0:100000:65536", Map{{0, 100000, 65536}}, ""},
		{"0:0:1,1:100000:65535", Map{{0, 0, 1}, {1, 100000, 65535}}, ""},
		{"0:0:4294967295", Map{{0, 0, 4294967295}}, ""},
		{"0:1000:1#1:100000:1", Map{{0, 1000, 1}, {1, 100000, 1}}, ""},
		{"", nil, "at least one range"},
		{"0:1", nil, "inside:outside:size"},
		{"0:1:2:3", nil, "inside:outside:size"},
		{"a:1:2", nil, "number from 0"},
		{"0:-1:2", nil, "number from 0"},
		{"0:4294967296:1", nil, "number from 0"},
		{"0:1:0", nil, "is empty"},
		{"0:4294967295:1", nil, "past the last id"},
		{"1:0:4294967295", nil, "past the last id"},
		{"0:0:10,5:100:10", nil, "overlap inside"},
		{"0:0:10,10:5:10", nil, "overlap on the host"},
	} {
		m, err := Parse(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || !fault.Is(err, fault.Invalid) {
				t.Errorf("%q: %v %v, want an error with %q", c.in, m, err, c.err)
			}
			continue
		}
		if err != nil || !slices.Equal(m, c.want) {
			t.Errorf("%q: %v %v, want %v", c.in, m, err, c.want)
		}
		if again, err := ParseProc(m.Proc()); err != nil || !slices.Equal(again, m) {
			t.Errorf("%q through the kernel's form: %v %v", c.in, again, err)
		}
		for i, r := range m.Spec() {
			if m[i] != (Range{r.ContainerID, r.HostID, r.Size}) {
				t.Errorf("%q: range %d in OCI's form: %v", c.in, i, r)
			}
		}
	}
}

func TestInOut(t *testing.T) {
	m := Map{{0, 1000, 1}, {1, 100000, 65535}}
	for _, c := range []struct {
		in, out uint32
		ok      bool
	}{{0, 1000, true}, {1, 100000, true}, {65535, 165534, true}, {65536, 0, false}} {
		if got, ok := m.Out(c.in); got != c.out || ok != c.ok {
			t.Errorf("out %d: %d %v", c.in, got, ok)
		}
		if c.ok {
			if got, ok := m.In(c.out); got != c.in || !ok {
				t.Errorf("in %d: %d %v", c.out, got, ok)
			}
		}
	}
	if _, ok := m.In(1001); ok {
		t.Error("1001 has an id inside")
	}
}

func TestSubordinate(t *testing.T) {
	const text = "# comment\nroot:100000:65536\n\nanna:165536:65536\n1000:300000:1000\nanna:400000:10\nbad:line\n"
	for _, c := range []struct {
		user string
		uid  int
		want []Block
	}{
		{"root", 0, []Block{{100000, 65536}}},
		{"anna", 1000, []Block{{165536, 65536}, {300000, 1000}, {400000, 10}}},
		{"anna", -1, []Block{{165536, 65536}, {400000, 10}}},
		{"nobody", 65534, nil},
	} {
		got, err := ParseSubordinate(text, c.user, c.uid)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v %v, want %v", c.user, got, err, c.want)
		}
	}
	for _, bad := range []string{"u:1", "u:x:1", "u:1:0", "u:4294967295:1", "u:1:2:3"} {
		if got, err := ParseSubordinate(bad, "u", 5); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
	file := filepath.Join(t.TempDir(), "subuid")
	if _, err := Subordinate(file, "u", 5); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "u:100000:65536") {
		t.Errorf("no file: %v", err)
	}
	os.WriteFile(file, []byte("u:7:8\n"), 0o600)
	if got, err := Subordinate(file, "u", 5); err != nil || !slices.Equal(got, []Block{{7, 8}}) {
		t.Errorf("%v %v", got, err)
	}
	if got := Lines([]Block{{500, 10}, {100, 20}}).String(); got != "0:100:20,20:500:10" {
		t.Errorf("Lines: %s", got)
	}
}

func root(t *testing.T) {
	t.Helper()
	f := probe.Host()
	if !f.Has(probe.CapSysAdmin) || !f.Has(probe.UserNamespace) {
		t.Skip("needs root and user namespaces: " + f.Why(probe.UserNamespace))
	}
}

// A file of host user 7 shows as 100007 through an id-mapped mount, and nothing is left behind.
func TestNamespaceOnMount(t *testing.T) {
	root(t)
	if f := probe.Host(); !f.Has(probe.IDMapMount) {
		t.Skip("needs id-mapped mounts: " + f.Why(probe.IDMapMount))
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	os.WriteFile(file, nil, 0o644)
	if err := os.Chown(file, 7, 8); err != nil {
		t.Fatal(err)
	}
	ns, err := Namespace(Pair{Map{{0, 100000, 1000}}, Map{{0, 200000, 1000}}})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ns)
	tree, err := mount.OpenTree(unix.AT_FDCWD, dir, true, false)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tree)
	if err := mount.IDMap(tree, ns, false); err != nil {
		t.Skip("needs a file system with id-mapped mounts: " + err.Error())
	}
	var st unix.Stat_t
	if err := unix.Fstatat(tree, "f", &st, 0); err != nil {
		t.Fatal(err)
	}
	if st.Uid != 100007 || st.Gid != 200008 {
		t.Errorf("owner %d:%d, want 100007:200008", st.Uid, st.Gid)
	}
	if _, err := Namespace(Pair{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("no mapping: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("0:0:1,1:100000:65535")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(m.String())
		if err != nil || !slices.Equal(m, again) {
			t.Errorf("%q: %v, again %v %v", s, m, again, err)
		}
		for _, r := range m {
			if out, ok := m.Out(r.Inside + r.Size - 1); !ok || out != r.Outside+r.Size-1 {
				t.Errorf("%q: last of %v is %d %v", s, r, out, ok)
			}
		}
	})
}

func FuzzParseSubordinate(f *testing.F) {
	f.Add("u:1:2\n", "u", 3)
	f.Fuzz(func(t *testing.T, text, user string, uid int) {
		blocks, err := ParseSubordinate(text, user, uid)
		for _, b := range blocks {
			if err == nil && (b.Size == 0 || past(b.Start, b.Size)) {
				t.Errorf("%q: %v", text, b)
			}
		}
	})
}

func BenchmarkNamespace(b *testing.B) {
	p := Pair{Map{{0, 100000, 1000}}, Map{{0, 200000, 1000}}}
	for b.Loop() {
		fd, err := Namespace(p)
		if err != nil {
			b.Skip("needs user namespaces: " + err.Error())
		}
		unix.Close(fd)
	}
}

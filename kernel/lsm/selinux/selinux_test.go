package selinux

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

const fedora = `# comment
process = "system_u:system_r:container_t:s0"
content = "system_u:object_r:virt_var_lib_t:s0"
; another
file = "system_u:object_r:container_file_t:s0"
ro_file="system_u:object_r:container_ro_file_t:s0"
sandbox_kvm_process = "x"
`

func machine(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func targeted(t *testing.T) *Labeller {
	return open(machine(t, map[string]string{
		"etc/selinux/config": "SELINUX=enforcing\nSELINUXTYPE=targeted\n", "etc/selinux/targeted/contexts/lxc_contexts": fedora,
	}))
}

func TestParse(t *testing.T) {
	for label, want := range map[string]Context{
		"u:r:t":              {"u", "r", "t", ""},
		"u:r:t:s0":           {"u", "r", "t", "s0"},
		"u:r:t:s0:c1,c2":     {"u", "r", "t", "s0:c1,c2"},
		"u:r:t:s0-s0:c0.c10": {"u", "r", "t", "s0-s0:c0.c10"},
	} {
		c, err := Parse(label)
		if err != nil || c != want || c.String() != label {
			t.Errorf("%s: %+v %v", label, c, err)
		}
	}
	for _, bad := range []string{"", "u", "u:r", "u::t", ":r:t", "u:r:t\x00", "u:r:t s0", `u:r:t"`} {
		if _, err := Parse(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestLabels(t *testing.T) {
	l := targeted(t)
	for _, c := range []struct {
		options []string
		want    Labels // * stands for a pair
	}{
		{nil, Labels{"system_u:system_r:container_t:s0:*", "system_u:object_r:container_file_t:s0:*"}},
		{[]string{"type:spc_t"}, Labels{"system_u:system_r:spc_t:s0:*", "system_u:object_r:container_file_t:s0:*"}},
		{[]string{"user:root", "role:sysadm_r", "filetype:x_t"}, Labels{"root:sysadm_r:container_t:s0:*", "root:object_r:x_t:s0:*"}},
		{[]string{"level:s0:c7,c8"}, Labels{"system_u:system_r:container_t:s0:c7,c8", "system_u:object_r:container_file_t:s0:c7,c8"}},
		{[]string{"level:s0"}, Labels{"system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0"}},
		{[]string{"user:root", "disable"}, Labels{"", "system_u:object_r:container_file_t:s0:c1022,c1023"}},
	} {
		got, err := l.Labels(c.options)
		if err != nil {
			t.Fatal(err)
		}
		if _, cats, ok := strings.Cut(got.Mount, ":s0:"); ok && strings.HasSuffix(c.want.Mount, "*") {
			c.want.Process = strings.Replace(c.want.Process, "*", cats, 1)
			c.want.Mount = strings.Replace(c.want.Mount, "*", cats, 1)
		}
		if got != c.want {
			t.Errorf("%v: %+v, want %+v", c.options, got, c.want)
		}
	}
	for _, bad := range []string{"", "x", "level", "level:", "colour:red", "type:a b", `type:"`} {
		if _, err := l.Labels([]string{bad}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "bad label option") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestLabelsFollowThePolicy(t *testing.T) {
	none := open(machine(t, nil))
	if got, err := none.Labels(nil); got != (Labels{}) || err != nil {
		t.Error(got, err)
	}
	flat := open(machine(t, map[string]string{
		"etc/selinux/config":                         "SELINUXTYPE=standard",
		"etc/selinux/standard/contexts/lxc_contexts": "process = \"u:r:t\"\nfile = \"u:o:f\"\n",
	}))
	if got, err := flat.Labels(nil); got != (Labels{"u:r:t", "u:o:f"}) || err != nil {
		t.Error(got, err)
	}
	if got, err := flat.Labels([]string{"disable"}); got != (Labels{"", "u:o:f"}) || err != nil {
		t.Error(got, err)
	}
	own := open(machine(t, map[string]string{"usr/share/containers/selinux/contexts": fedora}))
	if own.process != "system_u:system_r:container_t:s0" {
		t.Error(own.process)
	}
	away := open(machine(t, map[string]string{"etc/selinux/config": "SELINUXTYPE=../../etc\n"}))
	if away.process != "" {
		t.Error("a policy outside /etc/selinux")
	}
}

func TestPairsAreUnique(t *testing.T) {
	l := targeted(t)
	var mu sync.Mutex
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				got, err := l.Labels(nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if seen[got.Mount] || strings.HasSuffix(got.Mount, unconfinedPair) {
					t.Error(got.Mount, "given twice")
				}
				seen[got.Mount] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for label := range seen {
		l.Release(label)
	}
	if want := map[string]int{unconfinedPair: 1}; !reflect.DeepEqual(l.taken, want) {
		t.Errorf("%d pairs are kept", len(l.taken))
	}
}

func TestReserve(t *testing.T) {
	l := targeted(t)
	l.categories = 20
	for a := range l.categories {
		for b := a + 1; b < l.categories; b++ {
			if a != 3 || b != 9 {
				l.taken[pairOf(a, b)] = 1
			}
		}
	}
	last, err := l.Labels(nil)
	if err != nil || last.Mount != "system_u:object_r:container_file_t:s0:c3,c9" {
		t.Fatal(last, err)
	}
	if _, err := l.Labels(nil); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
	// Two containers that named the same level: it is free when both are gone.
	l.Reserve(last.Process)
	l.Release(last.Process)
	if _, err := l.Labels(nil); err == nil {
		t.Error("a pair in use was given away")
	}
	l.Release(last.Process)
	l.Release(last.Process)
	if again, err := l.Labels(nil); err != nil || again != last {
		t.Error(again, err)
	}
	l.Reserve("nonsense")
	l.Release("u:r:t")
	l.Release("u:r:t:s0:" + unconfinedPair)
	if l.taken[unconfinedPair] != 1 {
		t.Error("the pair of unconfined containers was freed")
	}
}

func TestAttributes(t *testing.T) {
	if p, v := ExecAttr("u:r:t:s0"); p != "/proc/self/attr/exec" || v != "u:r:t:s0" {
		t.Error(p, v)
	}
	if p, v := KeyAttr("u:r:t:s0"); p != "/proc/self/attr/keycreate" || v != "u:r:t:s0" {
		t.Error(p, v)
	}
	if p, v := ExecAttr(""); p+v != "" || MountOption("") != "" {
		t.Error("attributes for no label")
	}
	if o := MountOption("u:o:f:s0:c1,c2"); o != `context="u:o:f:s0:c1,c2"` {
		t.Error(o)
	}
}

// The attribute can be written with SELinux off too, given a file system for it and CAP_SYS_ADMIN.
func TestRelabel(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Setxattr(dir, xattr, []byte("u:o:old:s0\x00"), 0); err != nil {
		t.Skip("needs a file system with security attributes, and CAP_SYS_ADMIN: ", err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	for _, p := range []string{outside, filepath.Join(dir, "file"), filepath.Join(dir, "a/b/c/deep")} {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(dir, "a/dirlink")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	label := func(p string) string {
		b := make([]byte, 200)
		n, err := unix.Lgetxattr(p, xattr, b)
		if err != nil {
			return err.Error()
		}
		return string(trimZero(b[:n]))
	}
	before := label(outside)
	for _, c := range []struct {
		shared bool
		want   string
	}{{false, "u:o:container_file_t:s0:c1,c2"}, {true, "u:o:container_file_t:s0"}} {
		if err := Relabel(dir, "u:o:container_file_t:s0:c1,c2", c.shared); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{"", "file", "a", "a/b/c/deep", "link", "a/dirlink", "fifo"} {
			if got := label(filepath.Join(dir, p)); got != c.want {
				t.Errorf("%s: %s, want %s", p, got, c.want)
			}
		}
	}
	if got := label(outside); got != before {
		t.Errorf("a link was followed: %s", got)
	}
	// What is right already is not touched.
	var a, b unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "file"), &a); err != nil {
		t.Fatal(err)
	}
	if err := Relabel(dir, "u:o:container_file_t:s0", false); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(filepath.Join(dir, "file"), &b); err != nil || a.Ctim != b.Ctim {
		t.Error("the change time moved", err)
	}
}

// Of a directory with the right label nothing below is looked at; one with another, be it of a broken off run, is labelled whole.
func TestShare(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	label := func(p, want string) {
		t.Helper()
		b := make([]byte, 200)
		n, err := unix.Lgetxattr(p, xattr, b)
		if got := string(trimZero(b[:max(n, 0)])); err != nil || got != want {
			t.Errorf("%s is %q %v, want %q", p, got, err, want)
		}
	}
	if err := unix.Setxattr(dir, xattr, []byte("u:o:old:s0\x00"), 0); err != nil {
		t.Skip("needs a file system with security attributes, and CAP_SYS_ADMIN: ", err)
	}
	for range 2 {
		if err := Share(dir, "u:o:container_file_t:s0:c1,c2"); err != nil {
			t.Fatal(err)
		}
		label(dir, "u:o:container_file_t:s0")
		label(file, "u:o:container_file_t:s0")
	}
	if err := unix.Setxattr(file, xattr, []byte("u:o:other:s0\x00"), 0); err != nil {
		t.Fatal(err)
	}
	if err := Share(dir, "u:o:container_file_t:s0:c3,c4"); err != nil {
		t.Fatal(err)
	}
	label(file, "u:o:other:s0")
	if err := Share(dir, "x"); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestSharedLabels(t *testing.T) {
	l := targeted(t)
	want := Labels{"system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0"}
	if got, err := l.Shared(); got != want || err != nil || len(l.taken) != 1 {
		t.Errorf("%+v %v, want %+v; taken: %v", got, err, want, l.taken)
	}
	if got, err := open(machine(t, nil)).Shared(); got != (Labels{}) || err != nil {
		t.Error("a machine without a policy:", got, err)
	}
}

// A socket's label cannot be had without the module; that must not be a socket without one.
func TestWithSocketLabel(t *testing.T) {
	ran := false
	f := func() error { ran = true; return nil }
	if err := WithSocketLabel("", f); err != nil || !ran {
		t.Error("without a label:", err)
	}
	if Enabled() {
		t.Skip("needs a kernel without SELinux")
	}
	ran = false
	if err := WithSocketLabel("u:r:container_t:s0", f); err == nil || ran {
		t.Error("with a label on a kernel that has none:", err, ran)
	}
}

func TestRelabelRefuses(t *testing.T) {
	const label = "u:o:f:s0"
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/usr", link); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/", "/usr", "/usr/", "/etc/../usr", link, "/var/lib", os.Getenv("HOME")} {
		if p == "" {
			continue
		}
		if err := Relabel(p, label, true); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "SELinux relabeling of "+p+" is not allowed") {
			t.Errorf("%s: %v", p, err)
		}
	}
	if err := Relabel(filepath.Join(t.TempDir(), "none"), label, false); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if err := Relabel("/", "", false); err != nil {
		t.Error("no label is nothing to do:", err)
	}
	if err := Relabel(t.TempDir(), "x", false); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func FuzzLabels(f *testing.F) {
	f.Add("level:s0:c1,c2", fedora)
	f.Add("disable", "process=u:r:t\nfile=u:o:f:s0-s0:c0.c1023")
	f.Fuzz(func(t *testing.T, option, contexts string) {
		l := open(machine(t, map[string]string{"usr/share/containers/selinux/contexts": contexts}))
		got, err := l.Labels([]string{option})
		if err != nil || got.Mount == "" {
			return
		}
		for _, label := range []string{got.Mount, got.Process} {
			if label == "" {
				continue
			}
			if _, err := Parse(label); err != nil {
				t.Errorf("made %q: %v", label, err)
			}
		}
	})
}

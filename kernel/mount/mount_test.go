package mount

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/probe"
)

func TestParseOptions(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Options
	}{
		{"", Options{}},
		{"defaults", Options{}},
		{"ro nosuid nodev noexec", Options{Flags: unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC}},
		{"ro rw", Options{Cleared: unix.MS_RDONLY}},
		{"rw ro", Options{Flags: unix.MS_RDONLY}},
		{"rbind rprivate ro", Options{Flags: unix.MS_BIND | unix.MS_REC | unix.MS_RDONLY, Propagation: []uintptr{unix.MS_PRIVATE | unix.MS_REC}}},
		{"bind private shared", Options{Flags: unix.MS_BIND, Propagation: []uintptr{unix.MS_PRIVATE, unix.MS_SHARED}}},
		{"noatime strictatime", Options{Flags: unix.MS_STRICTATIME}},
		{"relatime noatime", Options{Flags: unix.MS_NOATIME}},
		{"nosuid size=64m mode=1777", Options{Flags: unix.MS_NOSUID, Data: "size=64m,mode=1777"}},
		{"newinstance ptmxmode=0666 gid=5", Options{Data: "newinstance,ptmxmode=0666,gid=5"}},
		{"rro rnosuid", Options{RecSet: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}},
		{"rro rrw", Options{RecClear: unix.MOUNT_ATTR_RDONLY}},
		{"rnoatime rrelatime", Options{RecSet: unix.MOUNT_ATTR_RELATIME, RecClear: unix.MOUNT_ATTR__ATIME}},
		{"rstrictatime", Options{RecSet: unix.MOUNT_ATTR_STRICTATIME, RecClear: unix.MOUNT_ATTR__ATIME}},
		{"tmpcopyup idmap", Options{TmpCopyUp: true, IDMap: true}},
		{"ridmap", Options{IDMapRec: true}},
		{"symfollow dev exec suid async", Options{Cleared: unix.MS_NOSYMFOLLOW | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_SYNCHRONOUS}},
	} {
		got, err := ParseOptions(strings.Fields(c.in))
		if err != nil || !equal(got, c.want) {
			t.Errorf("%q: %+v %v, want %+v", c.in, got, err, c.want)
		}
	}
	if o, err := ParseOptions([]string{"", "a b", ""}); err != nil || o.Data != "a b" {
		t.Errorf("%+v %v", o, err)
	}
	if _, err := ParseOptions([]string{"a\x00"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("zero byte: %v", err)
	}
}

func equal(a, b Options) bool {
	p := slices.Equal(a.Propagation, b.Propagation)
	a.Propagation, b.Propagation = nil, nil
	return p && a.Flags == b.Flags && a.Cleared == b.Cleared && a.RecSet == b.RecSet && a.RecClear == b.RecClear && a.Data == b.Data &&
		a.TmpCopyUp == b.TmpCopyUp && a.IDMap == b.IDMap && a.IDMapRec == b.IDMapRec
}

func TestWords(t *testing.T) {
	words := Words()
	if !slices.IsSorted(words) {
		t.Error("not sorted")
	}
	for _, w := range words {
		if _, ok := lookup(w); !ok {
			t.Errorf("%s is listed and not known", w)
		}
	}
	// The other way round, against the source: every case of the switch is listed.
	src, err := os.ReadFile("options.go")
	if err != nil {
		t.Fatal(err)
	}
	text := string(src)
	text = text[strings.Index(text, "func lookup"):strings.Index(text, "return word{}, false")]
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "case ")
		if !ok {
			continue
		}
		for name := range strings.SplitSeq(strings.TrimSuffix(rest, ":"), ", ") {
			if !slices.Contains(words, strings.Trim(name, `"`)) {
				t.Errorf("%s is known and not listed", name)
			}
		}
	}
}

func TestAttributes(t *testing.T) {
	if got, want := Attributes(unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOATIME|unix.MS_BIND),
		uint64(unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NOATIME); got != want {
		t.Errorf("%#x, want %#x", got, want)
	}
	if got := Super(unix.MS_RDONLY | unix.MS_SYNCHRONOUS | unix.MS_NOSUID); !slices.Equal(got, []string{"ro", "sync"}) {
		t.Errorf("%v", got)
	}
}

func TestMount(t *testing.T) {
	for _, c := range []struct {
		m        Mount
		bind, ro bool
	}{
		{Mount{Type: "bind"}, true, false},
		{Mount{Type: "none", Options: []string{"rbind", "ro"}}, true, true},
		{Mount{Type: "tmpfs", Options: []string{"ro", "rw"}}, false, false},
		{Mount{Options: []string{"bind", "rro"}}, true, true},
	} {
		if c.m.IsBind() != c.bind || c.m.ReadOnly() != c.ro {
			t.Errorf("%+v: bind %v, read-only %v", c.m, c.m.IsBind(), c.m.ReadOnly())
		}
	}
}

const sample = `23 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
24 23 0:21 / /proc rw,nosuid shared:2 master:1 propagate_from:3 - proc proc rw
30 23 0:25 /a\040b /mnt/c\134d\011e ro - ext4 /dev/with\040blank rw
31 30 0:26 / /mnt/c\134d\011e/sub rw unbindable - tmpfs  rw,size=1k
32 23 0:26 / /mnt rw - fuse.x#y s rw
`

func TestParse(t *testing.T) {
	list, err := Parse([]byte(sample), nil)
	if err != nil || len(list) != 5 {
		t.Fatalf("%v %v", list, err)
	}
	i := list[0]
	if i.ID != 23 || i.Parent != 1 || i.Major != 254 || i.Minor != 0 || i.Root != "/" || i.Point != "/" || i.Options != "rw,relatime" || i.Type != "ext4" || i.Source != "/dev/vda" || i.Super != "rw,errors=remount-ro" {
		t.Errorf("%+v", i)
	}
	if got := list[1].Fields; !slices.Equal(got, []string{"shared:2", "master:1", "propagate_from:3"}) {
		t.Errorf("%q", got)
	}
	if list[2].Root != "/a b" || list[2].Point != "/mnt/c\\d\te" || list[2].Source != "/dev/with blank" {
		t.Errorf("%+v", list[2])
	}
	if list[3].Source != "" || list[3].Super != "rw,size=1k" {
		t.Errorf("%+v", list[3])
	}
	var ids []int
	for _, i := range Below(list, "/mnt") {
		ids = append(ids, i.ID)
	}
	if !slices.Equal(ids, []int{32, 31, 30}) {
		t.Errorf("Below: %v", ids)
	}
	some, err := Parse([]byte(sample), func(i *Info) bool { return i.Type == "proc" })
	if err != nil || len(some) != 1 {
		t.Errorf("%v %v", some, err)
	}
	for _, bad := range []string{"x", "1 2 3 / / rw - a b c", "1 2 3:4 / / rw a b c", "1 2 3:4 / / rw - a b", "1 2 3:4 / / rw -", "a 2 3:4 / / rw - a b c", "1 2 3:4 / / rw - ", "1 2 a:4 / / rw - a b c"} {
		if list, err := Parse([]byte(bad+"\n"), nil); err == nil {
			t.Errorf("%q: %+v", bad, list)
		}
	}
}

func TestSelf(t *testing.T) {
	list, err := Self(nil)
	if err != nil || len(list) == 0 {
		t.Fatal(err)
	}
	if i := at(list, "/proc"); i == nil || i.Type != "proc" {
		t.Errorf("/proc: %+v", i)
	}
}

// mounts skips without the right to mount; the tests below mount nothing in view, or in t.TempDir only.
func mounts(t *testing.T) {
	t.Helper()
	for _, f := range []probe.Facility{probe.CapSysAdmin, probe.MountFD} {
		if why := probe.Host().Why(f); why != "" {
			t.Skipf("needs %v: %s", f, why)
		}
	}
}

// detached makes a tmpfs that is mounted nowhere.
func detached(t *testing.T) int {
	t.Helper()
	fs, err := OpenFS("tmpfs")
	if err != nil {
		t.Fatal(err)
	}
	if err := fs.Data("size=1m,mode=0755"); err != nil {
		t.Fatal(err)
	}
	fd, err := fs.Mount(unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestDetached(t *testing.T) {
	mounts(t)
	fd := detached(t)
	if err := unix.Mkdirat(fd, "d", 0o755); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := Move(fd, unix.AT_FDCWD, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { UnmountBelow(dir) })
	list, err := Self(nil)
	if i := at(list, dir); err != nil || i == nil || i.Type != "tmpfs" || !strings.Contains(i.Options, "nosuid") {
		t.Fatalf("%+v %v", i, err)
	}
	if probe.Host().Has(probe.MountSetattr) {
		if err := SetAttributes(unix.AT_FDCWD, dir, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOATIME, 0, true); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir+"/e", 0o755); !errors.Is(err, unix.EROFS) {
			t.Errorf("mkdir on a read-only mount: %v", err)
		}
	}
	copied, err := OpenTree(unix.AT_FDCWD, dir, true, true)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(copied)
	if err := Move(copied, unix.AT_FDCWD, dir+"/d"); err != nil {
		t.Fatal(err)
	}
	if err := UnmountBelow(dir); err != nil {
		t.Fatal(err)
	}
	list, _ = Self(nil)
	if left := Below(list, dir); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	if err := Unmount(dir); err != nil {
		t.Errorf("unmounting what is not mounted: %v", err)
	}
	if err := Unmount(dir + "/none/x"); err != nil {
		t.Errorf("unmounting what is not there: %v", err)
	}
}

func TestErrorsSpeak(t *testing.T) {
	mounts(t)
	fs, err := OpenFS("tmpfs")
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	if err := fs.Set("nonsense", "1"); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "nonsense") || !strings.Contains(err.Error(), "tmpfs") {
		t.Errorf("unknown key: %v", err)
	}
	if _, err := OpenFS("no-such-fs"); !fault.Is(err, fault.NotImplemented) || !strings.Contains(err.Error(), "no-such-fs") {
		t.Errorf("unknown file system: %v", err)
	}
	if _, err := OpenTree(unix.AT_FDCWD, "/no/such/path", true, false); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "/no/such/path") {
		t.Errorf("no path: %v", err)
	}
}

// hostile makes a root whose links try to get out.
func hostile(t *testing.T) (root int, outside string) {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "root")
	outside = filepath.Join(top, "outside")
	for _, d := range []string{dir + "/a/b", dir + "/etc", outside} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(dir+"/etc/in", []byte("in"), 0o644)
	os.WriteFile(outside+"/secret", []byte("out"), 0o644)
	for name, target := range map[string]string{
		"abs": "/etc", "up": "../../../../etc", "out": outside, "a/b/back": "../../etc/in", "loop1": "loop2", "loop2": "loop1",
		"dots": "a/../../..", "chain": "abs/in", "dangling": "/new/place", "self": ".", "magic": "/proc/self/root",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd, outside
}

func read(fd int) string {
	b := make([]byte, 100)
	n, _ := unix.Read(fd, b)
	unix.Close(fd)
	return string(b[:max(n, 0)])
}

// Both ways of resolving agree on every path, and stay inside.
func TestOpenInRoot(t *testing.T) {
	root, outside := hostile(t)
	host := probe.Host()
	ways := map[string]probe.Features{"walk": host.Without(probe.Openat2)}
	if host.Has(probe.Openat2) {
		ways["openat2"] = host
	}
	for way, have := range ways {
		for _, c := range []struct {
			path string
			want string // content, "dir", or an errno
		}{
			{"etc/in", "in"}, {"/etc/in", "in"}, {"//etc///in", "in"}, {"abs/in", "in"}, {"up/in", "in"}, {"a/b/back", "in"}, {"chain", "in"},
			{"../../etc/in", "in"}, {"a/b/../../../../etc/in", "in"}, {"dots/etc/in", "in"}, {"self/self/etc/in", "in"},
			{"", "dir"}, {"/", "dir"}, {"..", "dir"}, {"a/b/..", "dir"}, {"abs", "dir"}, {"abs/", "dir"}, {"a/b/.", "dir"},
			{"out/secret", "ENOENT"}, {outside + "/secret", "ENOENT"}, {"dangling", "ENOENT"}, {"none", "ENOENT"}, {"none/x", "ENOENT"},
			{"loop1", "ELOOP"}, {"etc/in/x", "ENOTDIR"}, {"etc/in/", "ENOTDIR"}, {"etc/in/..", "ENOTDIR"},
		} {
			fd, err := OpenInRoot(have, root, c.path, unix.O_RDONLY, 0)
			got := ""
			var st unix.Stat_t
			var errno unix.Errno
			switch {
			case errors.As(err, &errno):
				got = unix.ErrnoName(errno)
			case unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
				got = "dir"
				unix.Close(fd)
			default:
				got = read(fd)
			}
			if got != c.want {
				t.Errorf("%s: %q gives %s, want %s", way, c.path, got, c.want)
			}
		}
		// A link itself, when asked for.
		fd, err := OpenInRoot(have, root, "abs", unix.O_PATH|unix.O_NOFOLLOW, 0)
		var st unix.Stat_t
		if err != nil || unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
			t.Errorf("%s: O_PATH|O_NOFOLLOW: %v", way, err)
		}
		unix.Close(fd)
		if _, err := OpenInRoot(have, root, "abs", unix.O_RDONLY|unix.O_NOFOLLOW, 0); !errors.Is(err, unix.ELOOP) {
			t.Errorf("%s: O_NOFOLLOW: %v", way, err)
		}
		// Creating.
		name := "abs/new-" + way
		fd, err = OpenInRoot(have, root, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
		if err != nil {
			t.Errorf("%s: create: %v", way, err)
			continue
		}
		unix.Write(fd, []byte(way))
		unix.Close(fd)
		if fd, err = OpenInRoot(have, root, "etc/new-"+way, unix.O_RDONLY, 0); err != nil || read(fd) != way {
			t.Errorf("%s: what was created is not there: %v", way, err)
		}
		if _, err := OpenInRoot(have, root, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600); !errors.Is(err, unix.EEXIST) {
			t.Errorf("%s: create again: %v", way, err)
		}
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Errorf("something was made outside: %v", entries)
	}
}

// A magic link of procfs leads out of any root: it is refused both ways.
func TestMagicLinks(t *testing.T) {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	for way, have := range map[string]probe.Features{"walk": probe.Host().Without(probe.Openat2), "openat2": probe.Host()} {
		if fd, err := OpenInRoot(have, root, "/proc/self/root/etc", unix.O_PATH, 0); !errors.Is(err, unix.ELOOP) {
			t.Errorf("%s: %d %v", way, fd, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := Parse([]byte(text), nil)
		if err != nil {
			return
		}
		for _, i := range list {
			if i.Point == "" || i.Type == "" || i.ID < 0 || i.Major < 0 {
				t.Errorf("%q: %+v", text, i)
			}
		}
		Below(list, "/mnt")
	})
}

func FuzzParseOptions(f *testing.F) {
	f.Add("ro,rbind,rro,size=1")
	f.Fuzz(func(t *testing.T, text string) {
		o, err := ParseOptions(strings.Split(text, ","))
		if err == nil && (o.Flags&o.Cleared != 0 || o.RecSet&o.RecClear&^unix.MOUNT_ATTR__ATIME != 0) {
			t.Errorf("%q: both set and cleared: %+v", text, o)
		}
	})
}

// FuzzWalk compares the fallback with the kernel's own resolution, on a root full of links.
func FuzzWalk(f *testing.F) {
	top := f.TempDir()
	os.MkdirAll(top+"/a/b", 0o755)
	os.WriteFile(top+"/a/f", nil, 0o644)
	os.Symlink("/a", top+"/l")
	os.Symlink("../..", top+"/a/b/u")
	os.Symlink("b/u/l/f", top+"/a/x")
	os.Symlink("y", top+"/y")
	root, err := unix.Open(top, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		f.Fatal(err)
	}
	host := probe.Host()
	if !host.Has(probe.Openat2) {
		f.Skip("needs openat2")
	}
	f.Add("a/b/u/l/f")
	f.Add("/l/../a/x")
	f.Add("y/")
	f.Add("a/f/.")
	f.Fuzz(func(t *testing.T, p string) {
		if strings.IndexByte(p, 0) >= 0 || len(p) > 3000 {
			return
		}
		identity := func(have probe.Features) (string, uint64) {
			fd, err := openInRoot(have, root, p, unix.O_PATH, 0)
			if err != nil {
				return err.Error(), 0
			}
			defer unix.Close(fd)
			var st unix.Stat_t
			unix.Fstat(fd, &st)
			return "", st.Ino
		}
		e1, i1 := identity(host)
		e2, i2 := identity(host.Without(probe.Openat2))
		if e1 != e2 || i1 != i2 {
			t.Errorf("%q: openat2 %q %d, walk %q %d", p, e1, i1, e2, i2)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	text := []byte(strings.Repeat(sample, 100))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Parse(text, func(i *Info) bool { return i.Type == "proc" }); err != nil {
			b.Fatal(err)
		}
	}
}

// at gives the topmost mount exactly at the path, or nil.
func at(list []Info, path string) *Info {
	for n := len(list) - 1; n >= 0; n-- {
		if list[n].Point == path {
			return &list[n]
		}
	}
	return nil
}

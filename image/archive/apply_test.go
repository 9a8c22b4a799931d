package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/base/fault"
	"berth/base/tarstream"
	"berth/image/archive/compress"
	"berth/image/archive/split"
	"berth/kernel/tree"
)

// item is an entry of a test archive: "name", content or link target, and what differs from the ordinary.
type item struct {
	name, body string
	h          tar.Header
}

func file(name, body string) item { return item{name: name, body: body} }
func dirOf(name string) item {
	return item{name: name, h: tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}}
}
func link(name, target string) item {
	return item{name: name, h: tar.Header{Typeflag: tar.TypeLink, Linkname: target}}
}
func symlink(name, target string) item {
	return item{name: name, h: tar.Header{Typeflag: tar.TypeSymlink, Linkname: target}}
}

func pack(t testing.TB, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		h := i.h
		h.Name, h.Size = i.name, int64(len(i.body))
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1600000000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("%s: %v", i.name, err)
		}
		if _, err := io.WriteString(w, i.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func openTree(t testing.TB, path string) *tree.Dir {
	t.Helper()
	d, err := tree.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// apply unpacks into a new directory, whose parent holds a victim that must stay untouched.
func apply(t testing.TB, archive []byte, o ApplyOptions) (string, *Applied, error) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "outer", "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	a, err := Apply(context.Background(), openTree(t, root), tarstream.FromReader(bytes.NewReader(archive)), o)
	return root, a, err
}

// list prints a tree, a line a name: type, permissions, owner, and content or target.
func list(t testing.TB, root string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		line := fmt.Sprintf("%s %o", rel, st.Mode&0o7777)
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			b, _ := os.ReadFile(p)
			line += " = " + string(b)
		case syscall.S_IFDIR:
			line += " dir"
			var v [8]byte
			if n, err := syscall.Getxattr(p, "trusted.overlay.opaque", v[:]); err == nil {
				line += " opaque=" + string(v[:n])
			}
		case syscall.S_IFLNK:
			target, _ := os.Readlink(p)
			line = rel + " -> " + target
		case syscall.S_IFCHR, syscall.S_IFBLK:
			line += fmt.Sprintf(" node %d:%d", st.Rdev>>8, st.Rdev&0xff)
		default:
			line += fmt.Sprintf(" type %o", st.Mode&syscall.S_IFMT)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func needRoot(t testing.TB) {
	if os.Getuid() != 0 {
		t.Skip("needs root: device nodes, owners and trusted attributes")
	}
}

func TestApply(t *testing.T) {
	needRoot(t)
	for name, c := range map[string]struct {
		items []item
		want  []string
	}{
		"plain": {[]item{dirOf("d/"), file("d/a", "A"), symlink("l", "d/a"), link("h", "d/a"), {name: "f", h: tar.Header{Typeflag: tar.TypeFifo}}, {name: "n", h: tar.Header{Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}}},
			[]string{"d 755 dir", "d/a 644 = A", "f 644 type 10000", "h 644 = A", "l -> d/a", "n 666 node 1:3"}},
		"absolute and dirty names": {[]item{file("/a", "1"), file("./b", "2"), file("x/../c", "3"), file("//d//e", "4")},
			[]string{"a 644 = 1", "b 644 = 2", "c 644 = 3", "d 755 dir", "d/e 644 = 4"}},
		"implied directories":                        {[]item{file("a/b/c", "x")}, []string{"a 755 dir", "a/b 755 dir", "a/b/c 644 = x"}},
		"setuid survives chown":                      {[]item{{name: "s", body: "x", h: tar.Header{Mode: 0o4755, Uid: 7, Gid: 8}}}, []string{"s 4755 = x"}},
		"later entry wins":                           {[]item{file("a", "old"), file("a", "new")}, []string{"a 644 = new"}},
		"replacing a link does not write through it": {[]item{file("t", "target"), symlink("l", "t"), file("l", "new")}, []string{"l 644 = new", "t 644 = target"}},
		"replacing one name keeps the other":         {[]item{file("a", "old"), link("b", "a"), file("a", "new")}, []string{"a 644 = new", "b 644 = old"}},
		"dir replaced by file":                       {[]item{dirOf("a/"), file("a/b", "x"), file("a", "f")}, []string{"a 644 = f"}},
		"file replaced by dir":                       {[]item{file("a", "f"), dirOf("a/"), file("a/b", "x")}, []string{"a 755 dir", "a/b 644 = x"}},
		"dir replaced by link then used":             {[]item{dirOf("d/"), dirOf("a/"), file("a/x", "1"), symlink("a", "d"), file("a/y", "2")}, []string{"a -> d", "d 755 dir", "d/y 644 = 2"}},
		"link to itself as hard link":                {[]item{file("a", "x"), link("a", "./a")}, []string{"a 644 = x"}},
		"hard link to a symlink":                     {[]item{symlink("s", "nowhere"), link("h", "s")}, []string{"h -> nowhere", "s -> nowhere"}},
		"through a link inside":                      {[]item{dirOf("usr/"), dirOf("usr/lib/"), symlink("lib", "usr/lib"), file("lib/x", "1")}, []string{"lib -> usr/lib", "usr 755 dir", "usr/lib 755 dir", "usr/lib/x 644 = 1"}},
		"through a link to a lower layer's dir":      {[]item{symlink("lib", "usr/lib"), file("lib/x", "1")}, []string{"lib -> usr/lib", "usr 755 dir", "usr/lib 755 dir", "usr/lib/x 644 = 1"}},
		"through an absolute link":                   {[]item{symlink("l", "/etc/deep"), file("l/passwd", "mine")}, []string{"etc 755 dir", "etc/deep 755 dir", "etc/deep/passwd 644 = mine", "l -> /etc/deep"}},
		"through a climbing link":                    {[]item{symlink("l", "../../../../../../tmp/up"), file("l/x", "mine")}, []string{"l -> ../../../../../../tmp/up", "tmp 755 dir", "tmp/up 755 dir", "tmp/up/x 644 = mine"}},
		"whiteout":                                   {[]item{dirOf("d/"), file("d/.wh.gone", "")}, []string{"d 755 dir", "d/gone 0 node 0:0"}},
		"opaque":                                     {[]item{dirOf("d/"), file("d/.wh..wh..opq", ""), file("d/.wh.x", ""), file("d/new", "n")}, []string{"d 755 dir opaque=y", "d/new 644 = n"}},
		"whiteout then directory":                    {[]item{file(".wh.d", ""), dirOf("d/"), file("d/x", "1")}, []string{"d 755 dir opaque=y", "d/x 644 = 1"}},
		"whiteout then implied directory":            {[]item{file(".wh.d", ""), file("d/x", "1")}, []string{"d 755 dir opaque=y", "d/x 644 = 1"}},
		"whiteout then file":                         {[]item{file(".wh.f", ""), file("f", "1")}, []string{"f 644 = 1"}},
		"directory then whiteout":                    {[]item{dirOf("d/"), file("d/x", "1"), file(".wh.d", "")}, []string{"d 755 dir opaque=y", "d/x 644 = 1"}},
		"file then whiteout":                         {[]item{file("f", "1"), file(".wh.f", "")}, []string{"f 644 = 1"}},
		"AUFS files are dropped":                     {[]item{file(".wh..wh.aufs", "x"), dirOf(".wh..wh.plnk/"), file("a", "1")}, []string{"a 644 = 1"}},
	} {
		root, _, err := apply(t, pack(t, c.items...), ApplyOptions{Whiteouts: Overlay})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := list(t, root); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", name, got, c.want)
		}
	}
}

func TestApplyRefuses(t *testing.T) {
	needRoot(t)
	for name, c := range map[string]struct {
		items []item
		want  string
	}{
		"climbing name":          {[]item{file("../victim", "x")}, "leads out of the root"},
		"climbing later":         {[]item{file("a/../../victim", "x")}, "leads out of the root"},
		"climbing hard link":     {[]item{link("h", "../victim")}, "leads out of the root"},
		"hard link to outside":   {[]item{link("h", "/etc/passwd")}, "hard link to \"/etc/passwd\""},
		"hard link through link": {[]item{symlink("l", "/etc"), link("h", "l/passwd")}, "hard link"},
		"hard link to directory": {[]item{dirOf("d/"), link("h", "d")}, "hard link"},
		"hard link to root":      {[]item{link("h", "/")}, "hard link to the root"},
		"missing hard link":      {[]item{link("h", "nothing")}, "not in the archive"},
		"below a file":           {[]item{file("f", "x"), file("f/g", "x")}, "is no directory"},
		"link loop":              {[]item{symlink("a", "b"), symlink("b", "a"), file("a/x", "1")}, "unpack \"a/x\""},
		"whiteout of dotdot":     {[]item{file("d/.wh...", "")}, "whiteout of"},
		"whiteout of dot":        {[]item{file("d/.wh..", "")}, "whiteout of"},
		"whiteout of nothing":    {[]item{file("d/.wh.", "")}, "whiteout of"},
		"huge uid":               {[]item{{name: "a", h: tar.Header{Uid: 1<<32 - 1, Format: tar.FormatPAX}}}, "no user or group"},
		"negative uid":           {[]item{{name: "a", h: tar.Header{Uid: -5, Format: tar.FormatGNU}}}, "no user or group"},
		"name too long":          {[]item{file(strings.Repeat("n", 300), "x")}, "file name too long"},
		"path too long":          {[]item{file(strings.Repeat("n/", 3000)+"x", "x")}, "no path may be longer"},
		"root as link":           {[]item{symlink(".", "/etc")}, "must be a directory"},
		"device out of range":    {[]item{{name: "a", h: tar.Header{Typeflag: tar.TypeChar, Devmajor: 1 << 20}}}, "no device"},
	} {
		archive := pack(t, c.items...)
		root, _, err := apply(t, archive, ApplyOptions{Whiteouts: Overlay})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want …%s…", name, err, c.want)
			continue
		}
		if fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: kind %v of %v", name, fault.KindOf(err), err)
		}
		if left, _ := os.ReadDir(filepath.Dir(root)); len(left) != 1 {
			t.Errorf("%s: something appeared beside the root: %v", name, left)
		}
	}
}

func TestApplyKeepsMetadata(t *testing.T) {
	needRoot(t)
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	mtime := time.Unix(1500000000, 123456789)
	x := map[string]string{
		"SCHILY.xattr.security.capability":    capability,
		"SCHILY.xattr.user.mine":              "yes",
		"SCHILY.xattr.trusted.overlay.opaque": "y",
		"SCHILY.xattr.user.overlay.opaque":    "y",
		"SCHILY.xattr.trusted.evil":           "1",
		"SCHILY.xattr.security.selinux":       "label",
	}
	root, a, err := apply(t, pack(t,
		item{name: "./", h: tar.Header{Typeflag: tar.TypeDir, Mode: 0o1777, Uid: 3, ModTime: mtime, Format: tar.FormatPAX}},
		item{name: "d/", h: tar.Header{Typeflag: tar.TypeDir, Mode: 0o2750, Uid: 4000000000, Gid: 12, ModTime: mtime, Format: tar.FormatPAX}},
		item{name: "d/f", body: "hello", h: tar.Header{Uid: 4000000000, Gid: 3000000000, ModTime: mtime, PAXRecords: x, Format: tar.FormatPAX}},
		item{name: "d/l", h: tar.Header{Typeflag: tar.TypeSymlink, Linkname: "x", Uid: 9, ModTime: time.Unix(-100, 0), Format: tar.FormatPAX}},
	), ApplyOptions{Whiteouts: Overlay})
	if err != nil {
		t.Fatal(err)
	}
	d := openTree(t, root)
	for path, want := range map[string]tree.Stat{
		"":    {Mode: tree.TypeDir | 0o1777, UID: 3, Mtime: tree.Time{Sec: 1500000000, Nsec: 123456789}},
		"d":   {Mode: tree.TypeDir | 0o2750, UID: 4000000000, GID: 12, Mtime: tree.Time{Sec: 1500000000, Nsec: 123456789}},
		"d/f": {Mode: tree.TypeRegular | 0o644, UID: 4000000000, GID: 3000000000, Mtime: tree.Time{Sec: 1500000000, Nsec: 123456789}},
		"d/l": {Mode: tree.TypeSymlink | 0o777, UID: 9, Mtime: tree.Time{Sec: -100}},
	} {
		st, ok, err := d.Lookup(path)
		if err != nil || !ok || st.Mode != want.Mode || st.UID != want.UID || st.GID != want.GID || st.Mtime != want.Mtime {
			t.Errorf("%q: %+v %v, want %+v", path, st, err, want)
		}
	}
	sub, _, _ := d.Open("d")
	defer sub.Close()
	attrs, err := sub.Xattrs("f")
	slices.Sort(attrs)
	if err != nil || !slices.Equal(attrs, []string{"security.capability", "user.mine"}) {
		t.Errorf("attributes %v %v", attrs, err)
	}
	if !a.Root || a.Size != 6 || a.Entries != 4 {
		t.Errorf("%+v", a)
	}
}

func TestHolesAreKept(t *testing.T) {
	zeros := strings.Repeat("\x00", 4<<20)
	body := "start" + zeros + "middle" + zeros
	root, a, err := apply(t, pack(t, file("f", body), file("z", zeros)), ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"f": body, "z": zeros} {
		p := filepath.Join(root, name)
		if b, _ := os.ReadFile(p); string(b) != want {
			t.Errorf("%s: content differs", name)
		}
		var st syscall.Stat_t
		syscall.Stat(p, &st)
		if st.Blocks*512 > 1<<20 {
			t.Errorf("%s takes %d bytes on disk", name, st.Blocks*512)
		}
	}
	if a.Size != int64(len(body)+len(zeros)) {
		t.Errorf("size %d", a.Size)
	}
}

// The size is that of what lies on disk in the end.
func TestSizeIsOfTheTree(t *testing.T) {
	for want, items := range map[int64][]item{
		3:  {file("a", "12345"), file("a", "123")},
		5:  {file("a", "12345"), link("b", "a"), file("a", "")},
		7:  {symlink("l", "1234567")},
		2:  {dirOf("d/"), file("d/a", "12345"), symlink("d/l", "123"), file("d", "12")},
		10: {file("a", "12345"), file("b/c", "12345")},
	} {
		for _, shadows := range []bool{false, true} {
			o := ApplyOptions{}
			if shadows {
				o.Shadows = openTree(t, t.TempDir())
			}
			if _, a, err := apply(t, pack(t, items...), o); err != nil || a.Size != want {
				t.Errorf("size %d, want %d, %v", a.Size, want, err)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	_, _, err := apply(t, pack(t, file("a", "12345"), file("b", "12345")), ApplyOptions{Limits: Limits{Bytes: 9}})
	if err == nil || !strings.Contains(err.Error(), "more than the limit of 9 bytes") || fault.KindOf(err) != fault.Invalid {
		t.Errorf("bytes: %v", err)
	}
	_, _, err = apply(t, pack(t, file("a", ""), file("b", "")), ApplyOptions{Limits: Limits{Limits: tarstream.Limits{Entries: 1}}})
	if err == nil || !strings.Contains(err.Error(), "more than 1 entries") {
		t.Errorf("entries: %v", err)
	}
}

func TestKeepKinds(t *testing.T) {
	for want, items := range map[string][]item{
		"cannot overwrite directory":     {dirOf("a/"), file("a", "x")},
		"cannot overwrite non-directory": {file("a", "x"), dirOf("a/")},
	} {
		if _, _, err := apply(t, pack(t, items...), ApplyOptions{KeepKinds: true}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// What is copied into /tmp does not take the sticky bit from it.
func TestKeepRoot(t *testing.T) {
	root := t.TempDir()
	if err := os.Chmod(root, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(root)
	if err != nil {
		t.Fatal(err)
	}
	packed := pack(t, item{name: "./", h: tar.Header{Typeflag: tar.TypeDir, Mode: 0o700, Uid: 7, Gid: 7}})
	if _, err := Apply(t.Context(), openTree(t, root), tarstream.FromReader(bytes.NewReader(packed)), ApplyOptions{KeepRoot: true}); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(root)
	if err != nil || after.Mode() != before.Mode() || after.Sys().(*syscall.Stat_t).Uid != before.Sys().(*syscall.Stat_t).Uid || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("%v was %v: %v", after, before, err)
	}
}

func TestOpaqueRootAndImplied(t *testing.T) {
	_, a, err := apply(t, pack(t, file(".wh..wh..opq", ""), file("a/b/c", "1")), ApplyOptions{Whiteouts: Overlay})
	if err != nil || !a.OpaqueRoot || !slices.Equal(a.Implied, []string{"a", "a/b"}) {
		t.Errorf("%+v %v", a, err)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Apply(ctx, openTree(t, t.TempDir()), tarstream.FromReader(bytes.NewReader(pack(t, file("a", "x")))), ApplyOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Unpacked and put together again, an archive must be the same to the last bit, duplicates and all.
func TestRebuildIsExact(t *testing.T) {
	needRoot(t)
	big := strings.Repeat("0123456789abcdef", 40000)
	archives := map[string][]byte{
		"plain":      pack(t, dirOf("d/"), file("d/a", "A"), link("h", "d/a"), symlink("s", "d"), file("s/through", "link"), file("big", big), file("empty", "")),
		"duplicates": pack(t, file("a", "one"), file("a", "two"), file("a", "three"), link("b", "a"), file("a", "four")),
		"tree replaced": pack(t, dirOf("d/"), file("d/a", "A"), file("d/e/f", "F"), file("d", "file"), dirOf("d/"), file("d/a", "again"), file("d/e/f", "G"),
			file("d/e/f", "H"), symlink("d", "x")),
		"link replaced":  pack(t, dirOf("x/"), dirOf("y/"), symlink("l", "x"), file("l/f", "in x"), symlink("l", "y"), file("l/f", "in y"), file("x/f", "new")),
		"whiteouts":      pack(t, file(".wh.gone", "payload of a whiteout"), file(".wh..wh.plnk", "aufs"), file("a", "1")),
		"junk after end": append(pack(t, file("a", "1")), bytes.Repeat([]byte("junk"), 50000)...),
		"no end":         pack(t, file("a", "1"))[:1024],
		"odd names":      pack(t, file("a\xffb", "1"), file("a\nb", "2"), file("q\"", "3")),
	}
	for name, archive := range archives {
		root, shadows := t.TempDir(), t.TempDir()
		var kept bytes.Buffer
		w, err := split.NewWriter(&kept)
		if err != nil {
			t.Fatal(err)
		}
		a, err := Apply(context.Background(), openTree(t, root), tarstream.FromReader(bytes.NewReader(archive)), ApplyOptions{Whiteouts: Overlay, Record: w, Shadows: openTree(t, shadows)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err = split.Rebuild(context.Background(), &kept, Opener(openTree(t, root), openTree(t, shadows), a.Shadows), &out)
		if err != nil {
			t.Errorf("%s: %v (shadows %+v)", name, err, a.Shadows)
			continue
		}
		if !bytes.Equal(out.Bytes(), archive) {
			t.Errorf("%s: rebuilt archive differs (%d bytes, want %d)", name, out.Len(), len(archive))
		}
	}
}

// A link in the parent path that is swapped while an archive is unpacked must never lead outside.
func TestRacingLinks(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	os.Mkdir(filepath.Join(root, "real"), 0o755)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		p := filepath.Join(root, "p")
		for {
			select {
			case <-stop:
				return
			default:
			}
			os.Symlink(outside, p)
			os.Remove(p)
			os.Mkdir(p, 0o755)
			os.RemoveAll(p)
			os.Symlink("real", p)
			os.Remove(p)
		}
	}()
	var items []item
	for i := range 200 {
		items = append(items, file(fmt.Sprintf("p/f%d", i), "x"), dirOf(fmt.Sprintf("p/d%d/", i)), symlink(fmt.Sprintf("p/l%d", i), "x"))
	}
	archive := pack(t, items...)
	for range 20 {
		d := openTree(t, root)
		Apply(context.Background(), d, tarstream.FromReader(bytes.NewReader(archive)), ApplyOptions{}) // errors are expected: the ground moves
	}
	close(stop)
	<-done
	if left, _ := os.ReadDir(outside); len(left) != 0 {
		t.Fatalf("escaped: %v", left)
	}
}

// Archives of a few names in all combinations, which replace, link and delete each other: nothing may leave the root, the size must
// be that of the tree, and the archive must be put together again to the last bit.
func TestRandomArchives(t *testing.T) {
	needRoot(t)
	names := []string{"a", "b", "a/b", "a/c", "b/a", "a/b/c", "l", "l/a", "l/l/b", "./a", "/b", "a/../b", "..", "../x"}
	marks := []string{".wh.a", "a/.wh.b", "a/.wh..wh..opq", ".wh..wh..opq", "l/.wh.a", "b/.wh..wh.plnk"}
	targets := []string{"a", "b", "..", "/", "a/b", "../../..", "/b", "l", ".", "nowhere", "/etc/passwd", "../victim"}
	accepted := 0
	for seed := range int64(400) {
		r := rand.New(rand.NewSource(seed))
		pick := func(list []string) string { return list[r.Intn(len(list))] }
		var items []item
		for range 2 + r.Intn(12) {
			name := pick(names)
			switch r.Intn(9) {
			case 0, 1, 2:
				items = append(items, file(name, strings.Repeat("x", r.Intn(700))))
			case 3, 4:
				items = append(items, dirOf(strings.TrimSuffix(name, "/")+"/"))
			case 5:
				items = append(items, symlink(name, pick(targets)))
			case 6:
				items = append(items, link(name, pick(names)))
			case 7:
				items = append(items, file(pick(marks), strings.Repeat("m", r.Intn(20))))
			case 8:
				items = append(items, item{name: name, h: tar.Header{Typeflag: tar.TypeFifo}})
			}
		}
		archive := pack(t, items...)
		outer := t.TempDir()
		root, shadows := filepath.Join(outer, "root"), filepath.Join(outer, "shadows")
		os.Mkdir(root, 0o755)
		os.Mkdir(shadows, 0o755)
		os.WriteFile(filepath.Join(outer, "victim"), []byte("safe"), 0o600)
		var kept bytes.Buffer
		w, _ := split.NewWriter(&kept)
		a, err := Apply(context.Background(), openTree(t, root), tarstream.FromReader(bytes.NewReader(archive)), ApplyOptions{Whiteouts: Overlay, Record: w, Shadows: openTree(t, shadows)})
		w.Close()
		if left, _ := os.ReadDir(outer); len(left) != 3 {
			t.Fatalf("seed %d: escaped: %v", seed, left)
		}
		if b, _ := os.ReadFile(filepath.Join(outer, "victim")); string(b) != "safe" {
			t.Fatalf("seed %d: the victim was written to", seed)
		}
		if err != nil {
			if fault.KindOf(err) != fault.Invalid {
				t.Fatalf("seed %d: kind %v: %v", seed, fault.KindOf(err), err)
			}
			continue
		}
		accepted++
		var out bytes.Buffer
		if err := split.Rebuild(context.Background(), &kept, Opener(openTree(t, root), openTree(t, shadows), a.Shadows), &out); err != nil || !bytes.Equal(out.Bytes(), archive) {
			t.Errorf("seed %d: %v: %d bytes, want %d (shadows %+v)", seed, err, out.Len(), len(archive), a.Shadows)
		}
		if size := treeSize(t, root); size != a.Size {
			t.Errorf("seed %d: size %d, the tree has %d", seed, a.Size, size)
		}
	}
	if accepted < 50 {
		t.Errorf("only %d archives were accepted: the generator is too wild to test anything", accepted)
	}
}

// treeSize is what du --apparent-size counts, without directories.
func treeSize(t *testing.T, root string) (total int64) {
	seen := map[uint64]bool{}
	filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		var st syscall.Stat_t
		if err := syscall.Lstat(p, &st); err != nil || st.Mode&syscall.S_IFMT == syscall.S_IFDIR || seen[st.Ino] {
			return err
		}
		seen[st.Ino] = true
		total += st.Size
		return nil
	})
	return total
}

// Whatever is accepted must be put together again to the last bit.
func FuzzRebuild(f *testing.F) {
	for _, items := range [][]item{
		{dirOf("d/"), file("d/a", "A"), link("h", "d/a"), symlink("l", "d"), file("l/x", "1"), file("l/x", "22")},
		{file("a", "1"), dirOf("a/"), file("a/b", "3"), symlink("a", "."), file("a/b", "2"), file("b", "x")},
		{file(".wh.d", ""), file("d/x", "1"), file("d/.wh.x", "pay"), file("d/.wh..wh..opq", "load")},
	} {
		f.Add(pack(f, items...))
	}
	base := f.TempDir()
	f.Fuzz(func(t *testing.T, archive []byte) {
		root, shadows := filepath.Join(base, "root"), filepath.Join(base, "shadows")
		for _, p := range []string{root, shadows} {
			os.RemoveAll(p)
			os.Mkdir(p, 0o755)
		}
		var kept bytes.Buffer
		w, _ := split.NewWriter(&kept)
		a, err := Apply(context.Background(), openTree(t, root), tarstream.FromReader(bytes.NewReader(archive)), ApplyOptions{Whiteouts: Overlay, Record: w, Shadows: openTree(t, shadows), Limits: Limits{Bytes: 1 << 20}})
		w.Close()
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := split.Rebuild(context.Background(), &kept, Opener(openTree(t, root), openTree(t, shadows), a.Shadows), &out); err != nil || !bytes.Equal(out.Bytes(), archive) {
			t.Fatalf("%v: %d bytes, want %d (shadows %+v)", err, out.Len(), len(archive), a.Shadows)
		}
	})
}

func FuzzApply(f *testing.F) {
	for _, items := range [][]item{
		{dirOf("d/"), file("d/a", "A"), link("h", "d/a"), symlink("l", "d"), file("l/x", "1")},
		{file("../x", "")}, {symlink("a", "/etc"), file("a/passwd", "x")}, {file(".wh..wh..opq", ""), file("d/.wh.x", "")},
		{file("a", "1"), dirOf("a/"), symlink("a", ".."), file("a/b", "2")},
	} {
		f.Add(pack(f, items...))
	}
	outer := f.TempDir()
	f.Fuzz(func(t *testing.T, archive []byte) {
		root := filepath.Join(outer, "root")
		os.RemoveAll(root)
		os.Mkdir(root, 0o755)
		d := openTree(t, root)
		_, err := Apply(context.Background(), d, tarstream.FromReader(bytes.NewReader(archive)), ApplyOptions{Whiteouts: Overlay, Limits: Limits{Bytes: 1 << 20}})
		if left, _ := os.ReadDir(outer); len(left) != 1 {
			t.Fatalf("escaped: %v", left)
		}
		if k := fault.KindOf(err); err != nil && k != fault.Invalid && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, fs.ErrPermission) {
			t.Fatalf("kind %v: %v", k, err)
		}
	})
}

func BenchmarkApply(b *testing.B) {
	needRoot(b)
	var items []item
	for i := range 60 {
		items = append(items, dirOf(fmt.Sprintf("usr/share/doc/p%d/", i)))
		for j := range 50 {
			items = append(items, file(fmt.Sprintf("usr/share/doc/p%d/file%d", i, j), strings.Repeat("content ", 100+j*20)))
		}
	}
	archive := pack(b, items...)
	b.SetBytes(int64(len(archive)))
	for b.Loop() {
		root := b.TempDir()
		s, err := compress.NewStream(bytes.NewReader(archive), "")
		if err != nil {
			b.Fatal(err)
		}
		w, _ := split.NewWriter(io.Discard)
		if _, err := Apply(context.Background(), openTree(b, root), s, ApplyOptions{Whiteouts: Overlay, Record: w}); err != nil {
			b.Fatal(err)
		}
		w.Close()
		s.Close()
	}
}

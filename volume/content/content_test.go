package content

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/tree"
)

// An ACL as the kernel keeps it: version 2, user::rw-, user:1000:r--, group::r--, mask::rw-, other::---.
const acl = "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" +
	"\x10\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"

// zoo makes a tree with one of everything.
func zoo(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs CAP_CHOWN and CAP_MKNOD: files of others and device nodes")
	}
	dir := t.TempDir()
	p := func(name string) string { return filepath.Join(dir, name) }
	long := strings.Repeat("long-name/", 25) + "f"
	must(t, os.MkdirAll(filepath.Dir(p(long)), 0o755))
	must(t, os.WriteFile(p(long), []byte("deep"), 0o600))
	must(t, os.WriteFile(p("plain"), []byte("text"), 0o4751))
	must(t, os.Chown(p("plain"), 3_000_000_000, 4_000_000))
	must(t, os.Chmod(p("plain"), 0o751|os.ModeSetuid))
	must(t, os.Link(p("plain"), p("hard")))
	must(t, os.Mkdir(p("sub"), 0o2770|os.ModeSticky))
	must(t, os.Link(p("plain"), p("sub/hard")))
	must(t, os.Symlink("../nowhere/"+strings.Repeat("x", 150), p("sub/link")))
	must(t, os.Lchown(p("sub/link"), 5, 6))
	must(t, os.WriteFile(p("ümläut\nrow"), nil, 0o600))
	must(t, unix.Mkfifo(p("fifo"), 0o640))
	must(t, unix.Mknod(p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(p("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))))

	sparse := func(name string, size int64, at ...int64) {
		f, err := os.Create(p(name))
		must(t, err)
		for _, a := range at {
			_, err := f.WriteAt([]byte(fmt.Sprintf("data at %d", a)), a)
			must(t, err)
		}
		must(t, f.Truncate(size))
		must(t, f.Close())
	}
	sparse("sparse-middle", 1<<30, 1<<20, 512<<20)
	sparse("sparse-end", 3<<20, 0, 3<<20-4096)
	sparse("all-hole", 100<<20)
	sparse("long-name/sparse", 1<<20+5, 1<<20)
	must(t, os.Truncate(p("long-name/sparse"), 1<<20+5))

	xattrs := map[string]string{"user.text": "value", "user.binary": "a\x00b\nc=d", "user.empty": "", "user.odd=name": "v", "trusted.own": "t", "system.posix_acl_access": acl}
	must(t, os.WriteFile(p("attributes"), []byte("x"), 0o640))
	for name, value := range xattrs {
		if err := unix.Setxattr(p("attributes"), name, []byte(value), 0); err != nil {
			t.Logf("needs extended attributes: %s: %v", name, err)
		}
	}
	must(t, os.WriteFile(p("capable"), []byte("x"), 0o755))
	if err := unix.Setxattr(p("capable"), "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0); err != nil {
		t.Logf("needs file capabilities: %v", err)
	}
	if err := unix.Setxattr(p("sub"), "system.posix_acl_default", []byte(acl), 0); err != nil {
		t.Logf("needs ACLs: %v", err)
	}
	for name, at := range map[string]time.Time{"attributes": time.Unix(1_000_000_000, 123_456_789), "capable": time.Unix(-5, 250_000_000), "hard": time.Unix(1<<33, 0), "sub": time.Unix(0, 0), "": time.Unix(1234567890, 5)} {
		must(t, os.Chtimes(p(name), at.Add(time.Second), at))
	}
	return dir
}

// picture describes everything about a tree that must not get lost.
func picture(t *testing.T, dir string) []string {
	t.Helper()
	var lines []string
	first := map[inode]string{}
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		rel, _ := filepath.Rel(dir, path)
		line := fmt.Sprintf("%q mode=%o owner=%d:%d mtime=%d.%09d dev=%d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, st.Rdev)
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			line += fmt.Sprintf(" size=%d nlink=%d", st.Size, st.Nlink)
			id := inode{st.Dev, st.Ino}
			if first[id] == "" {
				first[id] = rel
			}
			line += fmt.Sprintf(" same=%q", first[id])
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			must(t, err)
			line += fmt.Sprintf(" to=%q", target)
		case unix.S_IFREG:
			line += fmt.Sprintf(" data=%v", stretches(t, path))
			fallthrough
		default:
			d, err := tree.OpenDir(filepath.Dir(path))
			must(t, err)
			attrs, err := attributes(d, filepath.Base(path))
			d.Close()
			must(t, err)
			for _, a := range attrs {
				line += fmt.Sprintf(" %s=%q", a.name, a.value)
			}
		}
		lines = append(lines, line)
		return nil
	}))
	return lines
}

// stretches tells where a file has data, and what begins there.
func stretches(t *testing.T, path string) []string {
	t.Helper()
	dir, err := tree.OpenDir(filepath.Dir(path))
	must(t, err)
	defer dir.Close()
	f, err := dir.OpenFile(filepath.Base(path))
	must(t, err)
	defer f.Close()
	var list []string
	for at := int64(0); ; {
		start, end, ok, err := f.NextData(at)
		must(t, err)
		if !ok {
			return list
		}
		b := make([]byte, min(end-start, 20))
		f.ReadAt(b, start)
		list = append(list, fmt.Sprintf("%d-%d:%q", start, end, b))
		at = end
	}
}

func compare(t *testing.T, what string, want, got []string) {
	t.Helper()
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("%s: lost %s", what, line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("%s: has  %s", what, line)
		}
	}
}

func open(t *testing.T, dir string) *tree.Dir {
	t.Helper()
	d, err := tree.OpenDir(dir)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

func archive(t *testing.T, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, Write(context.Background(), open(t, dir), &b))
	return b.Bytes()
}

func TestArchiveLosesNothing(t *testing.T) {
	dir := zoo(t)
	want := picture(t, dir)
	whole := archive(t, dir)
	if len(whole) > 1<<20 {
		t.Errorf("the archive has %d bytes: holes were written", len(whole))
	}
	if again := archive(t, dir); !bytes.Equal(whole, again) {
		t.Error("two archives of one tree differ")
	}
	to := t.TempDir()
	must(t, Read(context.Background(), open(t, to), bytes.NewReader(whole)))
	if again := archive(t, to); !bytes.Equal(whole, again) { // asked first: looking at files changes when they were looked at
		t.Error("the archive of what was unpacked is another one")
	}
	compare(t, "unpacked", want, picture(t, to))

	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(whole)
	z.Close()
	to = t.TempDir()
	must(t, Read(context.Background(), open(t, to), &zipped))
	compare(t, "unpacked from gzip", want, picture(t, to))
}

func TestCopyLosesNothing(t *testing.T) {
	dir := zoo(t)
	to := t.TempDir()
	done, err := Copy(context.Background(), open(t, dir), open(t, to))
	must(t, err)
	compare(t, "copied", picture(t, dir), picture(t, to))
	if done.Bytes > 1<<20 {
		t.Errorf("%+v: holes were copied", done)
	}
}

// GNU tar reads our archives, and we read its.
func TestGNUTar(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("needs GNU tar")
	}
	dir := zoo(t)
	os.Remove(filepath.Join(dir, "disk"))
	unix.Lremovexattr(filepath.Join(dir, "attributes"), "user.empty")
	unix.Lremovexattr(filepath.Join(dir, "attributes"), "user.odd=name")
	want := picture(t, dir)
	flags := []string{"--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "-p"}

	to := t.TempDir()
	cmd := exec.Command("tar", append([]string{"-x", "-C", to}, flags...)...)
	cmd.Stdin = bytes.NewReader(archive(t, dir))
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "time stamp") { // it wonders about years that we chose
			t.Errorf("tar -x: %s", line)
		}
	}
	must(t, err)
	compare(t, "unpacked by tar", want, picture(t, to))

	theirs, err := exec.Command("tar", append([]string{"-c", "--format=posix", "-S", "-C", dir, "."}, flags[:2]...)...).Output()
	must(t, err)
	to = t.TempDir()
	must(t, Read(context.Background(), open(t, to), bytes.NewReader(theirs)))
	compare(t, "unpacked from tar", want, picture(t, to))
}

func TestDamage(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "f"), bytes.Repeat([]byte("text "), 1000), 0o600))
	whole := archive(t, dir)
	read := func(b []byte) error { return Read(context.Background(), open(t, t.TempDir()), bytes.NewReader(b)) }
	must(t, read(whole))
	for n := 0; n < len(whole)-2048; n += 512 { // the last header and what follows it may be missing: they say nothing new
		if err := read(whole[:n]); !fault.Is(err, fault.Invalid) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	at := bytes.Index(whole, []byte("text "))
	for _, at := range []int{at, at + 4000, bytes.Index(whole, []byte("mtime=")) + 8} {
		bad := bytes.Clone(whole)
		bad[at] ^= 1
		if err := read(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("byte %d changed: %v", at, err)
		}
	}
}

func TestHostileArchives(t *testing.T) {
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "victim"), []byte("safe"), 0o644))
	build := func(headers ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			h.Format = tar.FormatPAX
			must(t, w.WriteHeader(&h))
			w.Write([]byte(strings.Repeat("x", int(h.Size))))
		}
		w.Close()
		return b.Bytes()
	}
	for name, c := range map[string]struct {
		archive []byte
		ok      bool
	}{
		"dots":             {build(tar.Header{Name: "../victim", Size: 1, Mode: 0o600}), false},
		"dots inside":      {build(tar.Header{Name: "a/../../victim", Size: 1}), false},
		"absolute":         {build(tar.Header{Name: outside + "/victim", Size: 1}), true},
		"through a link":   {build(tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: outside}, tar.Header{Name: "l/victim", Size: 1}), false},
		"relative link":    {build(tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../../../../../../../.." + outside}, tar.Header{Name: "l/victim", Size: 1}), false},
		"over a link":      {build(tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: outside + "/victim"}, tar.Header{Name: "l", Size: 1}), true},
		"hard link out":    {build(tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: outside + "/victim"}), false},
		"hard link dots":   {build(tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "../victim"}), false},
		"directory link":   {build(tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: outside}, tar.Header{Name: "l/", Typeflag: tar.TypeDir, Mode: 0o777}), true},
		"root is a file":   {build(tar.Header{Name: ".", Typeflag: tar.TypeReg, Size: 1}), false},
		"owner -1":         {build(tar.Header{Name: "f", Uid: -1}), false},
		"owner 2^32-1":     {build(tar.Header{Name: "f", Uid: 1<<32 - 1}), false},
		"file then dir":    {build(tar.Header{Name: "a", Size: 1}, tar.Header{Name: "a/b", Size: 1}), false},
		"replaced":         {build(tar.Header{Name: "a", Size: 1}, tar.Header{Name: "a", Typeflag: tar.TypeDir}, tar.Header{Name: "a/b", Size: 1}), true},
		"implied":          {build(tar.Header{Name: "x/y/z/f", Size: 1}), true},
		"link without end": {build(tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "l"}, tar.Header{Name: "l/f", Size: 1}), false},
	} {
		t.Run(name, func(t *testing.T) {
			to := t.TempDir()
			err := Read(context.Background(), open(t, to), bytes.NewReader(c.archive))
			if c.ok && err != nil || !c.ok && !fault.Is(err, fault.Invalid) {
				t.Errorf("%v (%v)", err, fault.KindOf(err))
			}
			if b, err := os.ReadFile(filepath.Join(outside, "victim")); err != nil || string(b) != "safe" {
				t.Errorf("a file outside was changed: %q, %v", b, err)
			}
			if st, err := os.Stat(outside); err != nil || st.Mode().Perm() == 0o777 {
				t.Errorf("a directory outside was changed: %v, %v", st.Mode(), err)
			}
		})
	}
}

func TestSizeAndEmpty(t *testing.T) {
	dir := t.TempDir()
	if empty, err := Empty(open(t, dir)); err != nil || !empty {
		t.Error(empty, err)
	}
	must(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
	if empty, _ := Empty(open(t, dir)); !empty {
		t.Error("a fresh file system is not empty")
	}
	must(t, os.WriteFile(filepath.Join(dir, "lost+found/f"), make([]byte, 100), 0o600))
	if empty, _ := Empty(open(t, dir)); empty {
		t.Error("found things are nothing")
	}
	must(t, os.Link(filepath.Join(dir, "lost+found/f"), filepath.Join(dir, "again")))
	must(t, os.Truncate(filepath.Join(dir, "again"), 5000))
	if n, err := Size(context.Background(), open(t, dir)); err != nil || n != 5000 {
		t.Errorf("size %d, %v", n, err)
	}
	must(t, Clear(open(t, dir)))
	if names, _ := os.ReadDir(dir); len(names) > 0 {
		t.Errorf("left %v", names)
	}
}

func FuzzRead(f *testing.F) {
	dir := f.TempDir()
	os.WriteFile(filepath.Join(dir, "f"), []byte("text"), 0o600)
	os.Symlink("/", filepath.Join(dir, "l"))
	d, err := tree.OpenDir(dir)
	if err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(context.Background(), d, &b); err != nil {
		f.Fatal(err)
	}
	d.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, archive []byte) {
		if len(archive) > 1<<16 || bytes.Contains(archive, []byte("realsize=")) {
			return
		}
		above := t.TempDir()
		root := filepath.Join(above, "root")
		must(t, os.Mkdir(root, 0o755))
		Read(context.Background(), open(t, root), bytes.NewReader(archive))
		if names, _ := os.ReadDir(above); len(names) != 1 || names[0].Name() != "root" {
			t.Errorf("something was made outside: %v", names)
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A few bytes of zstd do not have us take half a gigabyte.
func TestHugeWindowIsRefused(t *testing.T) {
	for descriptor, fine := range map[byte]bool{(28 - 10) << 3: true, (29 - 10) << 3: false} { // RFC 8878, section 3.1.1.1.2: powers of two
		frame := "\x28\xb5\x2f\xfd\x00" + string([]byte{descriptor}) + "\x09\x00\x00a" // a last, raw block of one byte
		r, end, err := decompressed(strings.NewReader(frame))
		if err == nil {
			_, err = io.ReadAll(r)
			end()
		}
		if fine != (err == nil) {
			t.Errorf("%#x: %v", descriptor, err)
		}
	}
}

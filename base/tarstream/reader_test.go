package tarstream

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/base/fault"
)

// entry is what both readers must agree on.
type entry struct {
	Name, Linkname string
	Type           byte
	Size, Mode     int64
	UID, GID       int64
	Mtime          int64
	Content        string
	Xattrs         map[string]string
}

func (e entry) String() string { return fmt.Sprintf("%+v", entry2(e)) }

type entry2 entry

const maxContent = 1 << 20 // fuzzed sparse files claim huge sizes

// ours reads an archive with this package, in pieces of the given size, and checks that no byte is lost.
func ours(t testing.TB, archive []byte, piece int) (list []entry, err error) {
	rec := &recording{}
	r := NewReader(&pieces{archive, piece}, rec, Limits{Entries: 10000})
	payload := 0
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return list, err
		}
		e := entry{Name: h.Name, Linkname: h.Linkname, Type: h.Type, Size: h.Size, Mode: h.Mode, UID: h.UID, GID: h.GID, Mtime: h.ModTime.Std().UnixNano(), Xattrs: h.Xattrs}
		var stored []byte
		for {
			b, err := r.Payload(7 << 10)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return list, err
			}
			stored = append(stored, b...)
		}
		payload += len(stored)
		if int64(len(stored)) != h.Stored {
			t.Fatalf("%s: %d bytes stored, header says %d", h.Name, len(stored), h.Stored)
		}
		e.Content = string(stored)
		if h.IsSparse && h.Size <= maxContent {
			e.Content = expand(h, stored)
		}
		if h.Size > maxContent {
			e.Content = ""
		}
		list = append(list, e)
	}
	if err := r.Rest(); err != nil {
		return list, err
	}
	if len(rec.b)+payload != len(archive) {
		t.Fatalf("recorded %d + payload %d is not the archive's %d", len(rec.b), payload, len(archive))
	}
	return list, nil
}

func expand(h *Header, stored []byte) string {
	b := make([]byte, h.Size)
	for _, f := range h.Sparse {
		copy(b[f.Offset:], stored[:f.Length])
		stored = stored[f.Length:]
	}
	return string(b)
}

type recording struct{ b []byte }

func (r *recording) Bytes(b []byte) error { r.b = append(r.b, b...); return nil }

type pieces struct {
	b []byte
	n int
}

func (p *pieces) Next() ([]byte, error) {
	if len(p.b) == 0 {
		return nil, io.EOF
	}
	b := p.b[:min(p.n, len(p.b))]
	p.b = p.b[len(b):]
	return b, nil
}

// theirs reads with the standard library, as Docker does.
func theirs(archive []byte) (list []entry, err error) {
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		e := entry{Name: h.Name, Linkname: h.Linkname, Type: h.Typeflag, Size: h.Size, Mode: h.Mode, UID: int64(h.Uid), GID: int64(h.Gid), Mtime: h.ModTime.UnixNano(), Xattrs: h.Xattrs} //lint:ignore SA1019 the oracle's own view
		switch {
		case h.Typeflag == '7' || h.Typeflag == 'S':
			e.Type = Regular
		case headerOnly(h.Typeflag):
			e.Size = 0
		}
		if h.Size > maxContent {
			// Reading it would take for ever; the reader's own check of the map is what matters.
			list = append(list, e)
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return list, err
		}
		e.Content = string(b)
		list = append(list, e)
	}
}

func same(a, b []entry) string {
	if len(a) != len(b) {
		return fmt.Sprintf("%d entries, want %d", len(a), len(b))
	}
	for i := range a {
		x, y := a[i], b[i]
		if !maps.Equal(x.Xattrs, y.Xattrs) {
			return fmt.Sprintf("entry %d xattrs %v, want %v", i, x.Xattrs, y.Xattrs)
		}
		x.Xattrs, y.Xattrs = nil, nil
		if fmt.Sprint(x) != fmt.Sprint(y) {
			return fmt.Sprintf("entry %d\n got %v\nwant %v", i, x, y)
		}
	}
	return ""
}

func build(t testing.TB, headers ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := strings.Repeat("x", int(h.Size))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func samples(t testing.TB) map[string][]byte {
	long := strings.Repeat("long/", 60)
	now := time.Unix(1700000000, 123456789)
	all := map[string][]byte{
		"empty":    {},
		"nothing":  build(t),
		"plain":    build(t, &tar.Header{Name: "a", Size: 3, Mode: 0o644}, &tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, &tar.Header{Name: "d/b", Size: 1024}),
		"links":    build(t, &tar.Header{Name: "a", Size: 1}, &tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "a"}, &tar.Header{Name: "s", Typeflag: tar.TypeSymlink, Linkname: "../a"}),
		"nodes":    build(t, &tar.Header{Name: "c", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, &tar.Header{Name: "b", Typeflag: tar.TypeBlock, Devmajor: 8}, &tar.Header{Name: "f", Typeflag: tar.TypeFifo}),
		"pax":      build(t, &tar.Header{Name: long + "a", Size: 5, ModTime: now, Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr.user.k": "v\x00w"}}, &tar.Header{Name: "z", Size: 1}),
		"gnu":      build(t, &tar.Header{Name: long + "a", Linkname: long, Typeflag: tar.TypeSymlink, Format: tar.FormatGNU}, &tar.Header{Name: "big", Uid: 1 << 30, Gid: 1 << 31, Format: tar.FormatGNU}),
		"negative": build(t, &tar.Header{Name: "old", ModTime: time.Unix(-5, 250), Format: tar.FormatPAX, Size: 2}),
		"global":   build(t, &tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "g", PAXRecords: map[string]string{"comment": "hi", "path": "evil"}}, &tar.Header{Name: "a", Size: 1}),
	}
	all["junk after"] = append(bytes.Clone(all["plain"]), "and more"...)
	all["cut padding"] = all["plain"][:512+3]
	for _, f := range []string{"gnu", "pax0.0", "pax0.1", "pax1.0"} {
		if b := sparseByTar(t, f); b != nil {
			all["sparse "+f] = b
		}
	}
	return all
}

// sparseByTar has GNU tar make a sparse archive.
func sparseByTar(t testing.TB, kind string) []byte {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range 9 { // more than the four pairs that fit into the old header
		f.WriteAt([]byte(strings.Repeat("data", 1024)), int64(i)*64<<10)
	}
	f.Truncate(900 << 10)
	args := []string{"-C", dir, "-S", "-cf", "-"}
	if kind == "gnu" {
		args = append(args, "--format=gnu")
	} else {
		args = append(args, "--format=posix", "--sparse-version="+strings.TrimPrefix(kind, "pax"))
	}
	out, err := exec.Command("tar", append(args, "s")...).Output()
	if err != nil {
		return nil // no GNU tar here: the other samples remain
	}
	return out
}

func TestSameAsStandardLibrary(t *testing.T) {
	for name, archive := range samples(t) {
		want, err := theirs(archive)
		if err != nil {
			t.Fatalf("%s: oracle: %v", name, err)
		}
		for _, piece := range []int{1, 100, 512, 4096, 1 << 20} {
			got, err := ours(t, archive, piece)
			if err != nil {
				t.Errorf("%s in pieces of %d: %v", name, piece, err)
				continue
			}
			if d := same(got, want); d != "" {
				t.Errorf("%s in pieces of %d: %s", name, piece, d)
			}
		}
	}
}

func TestSparseMapIsKept(t *testing.T) {
	for _, kind := range []string{"gnu", "pax0.0", "pax0.1", "pax1.0"} {
		b := sparseByTar(t, kind)
		if b == nil {
			t.Skip("needs GNU tar")
		}
		h, err := NewReader(FromReader(bytes.NewReader(b)), nil, Limits{}).Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Name != "s" || !h.IsSparse || h.Size != 900<<10 || h.Stored != 9*4096 || len(h.Sparse) < 9 {
			t.Errorf("%s: %+v", kind, h)
		}
	}
}

func TestBroken(t *testing.T) {
	plain := samples(t)["plain"]
	bad := bytes.Clone(plain)
	bad[0] ^= 1
	oneZero := append(make([]byte, 512), plain...)
	for name, c := range map[string]struct {
		archive []byte
		want    error
	}{
		"checksum":         {bad, ErrHeader},
		"one zero block":   {oneZero, ErrHeader},
		"cut in header":    {plain[:100], io.ErrUnexpectedEOF},
		"cut in payload":   {plain[:512+1], io.ErrUnexpectedEOF},
		"cut in last file": {plain[:512*4+10], io.ErrUnexpectedEOF},
	} {
		_, err := ours(t, c.archive, 4096)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if errors.Is(err, ErrHeader) && fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: kind %v", name, fault.KindOf(err))
		}
	}
}

func TestLimits(t *testing.T) {
	long := build(t, &tar.Header{Name: "a", Format: tar.FormatPAX, PAXRecords: map[string]string{"X.y": strings.Repeat("v", 5000)}})
	two := build(t, &tar.Header{Name: "a"}, &tar.Header{Name: "b"})
	for name, c := range map[string]struct {
		archive []byte
		limits  Limits
		want    string
	}{
		"special": {long, Limits{SpecialSize: 4096}, "more than the limit of 4096"},
		"entries": {two, Limits{Entries: 1}, "tar has more than 1 entries"},
	} {
		r := NewReader(FromReader(bytes.NewReader(c.archive)), nil, c.limits)
		var err error
		for err == nil {
			_, err = r.Next()
		}
		if !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// repair puts right the checksum of every block that looks like a header, or a mutation would never get further.
func repair(archive []byte) {
	for at := 0; at+blockSize <= len(archive); at += blockSize {
		b := (*[blockSize]byte)(archive[at:])
		if !bytes.HasPrefix(b[257:], []byte("ustar")) {
			continue
		}
		copy(fChecksum.of(b), "        ")
		sum := 0
		for _, c := range b {
			sum += int(c)
		}
		copy(fChecksum.of(b), fmt.Sprintf("%06o\x00 ", sum))
	}
}

func FuzzReader(f *testing.F) {
	for _, b := range samples(f) {
		if len(b) < 64<<10 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		archive = bytes.Clone(archive)
		repair(archive)
		got, err := ours(t, archive, 333)
		if fault.KindOf(err) == fault.Invalid && !errors.Is(err, ErrHeader) {
			return // a limit, which the oracle does not have
		}
		want, werr := theirs(archive)
		if werr != nil && err == nil {
			t.Fatalf("accepted what archive/tar refuses: %v", werr)
		}
		if err != nil {
			if werr == nil && !strings.Contains(err.Error(), "sparse") {
				t.Fatalf("refused what archive/tar accepts: %v", err)
			}
			return
		}
		if d := same(got, want); d != "" {
			t.Fatal(d)
		}
	})
}

func BenchmarkReader(b *testing.B) {
	var hs []*tar.Header
	for i := range 1000 {
		hs = append(hs, &tar.Header{Name: fmt.Sprintf("usr/share/doc/package-%d/copyright", i), Size: 3000, Mode: 0o644, ModTime: time.Unix(1700000000, 0)})
	}
	archive := build(b, hs...)
	b.SetBytes(int64(len(archive)))
	for b.Loop() {
		r := NewReader(&pieces{archive, 256 << 10}, nil, Limits{})
		for {
			if _, err := r.Next(); err != nil {
				break
			}
			for {
				if _, err := r.Payload(1 << 20); err != nil {
					break
				}
			}
		}
	}
}

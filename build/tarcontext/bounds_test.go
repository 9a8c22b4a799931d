package tarcontext

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"

	"berth/base/fault"
)

// A sparse file in the POSIX form has a plain file's type; what lies in the tar is a map and what is between the holes.
func TestSparseIsRefused(t *testing.T) {
	// The writer refuses these records, so they are put in under names of the same length.
	const major, minor, size, name = "XXX.sparse.major", "XXX.sparse.minor", "XXX.sparse.realsize", "XXX.sparse.name"
	data := "1\n4096\n4\n"
	data += strings.Repeat("\x00", 512-len(data)) + "data"
	raw := tarOf(t, entry{tar.Header{Name: "GNUSparseFile.0/big", Mode: 0o644, Size: int64(len(data)), Format: tar.FormatPAX,
		PAXRecords: map[string]string{major: "1", minor: "0", size: "8192", name: "big"}}, data}, file("next", "of somebody else"))
	raw = bytes.ReplaceAll(raw, []byte("XXX.sparse."), []byte("GNU.sparse."))
	c, err := Read(context.Background(), bytes.NewReader(raw), t.TempDir())
	if err == nil {
		t.Errorf("accepted:\n%s", list(t, c.FS(), ""))
		c.Close()
	} else if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "sparse") {
		t.Error(err)
	}
}

// Directories that only names imply take memory, too: a small archive may name millions.
func TestImpliedDirectoriesCount(t *testing.T) {
	c := &Context{root: newDir(0o755), left: 1000, text: maxNames}
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		err = c.add(&tar.Header{Name: fmt.Sprintf("%d/", n) + strings.Repeat("d/", 100) + "x", Typeflag: tar.TypeReg}, 0)
	}
	if n > 10 || fault.KindOf(err) != fault.Invalid {
		t.Errorf("%d entries: %v", n, err)
	}
}

// zipped is a compressed tar of one file, whose content repeats a block.
func zipped(t *testing.T, block []byte, times int) []byte {
	t.Helper()
	var b bytes.Buffer
	zw, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(zw)
	if err := tw.WriteHeader(&tar.Header{Name: "big", Mode: 0o644, Size: int64(len(block) * times)}); err != nil {
		t.Fatal(err)
	}
	for range times {
		if _, err := tw.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A small body does not become a large file on the disk, unless it is one that compresses as well as what people have.
func TestExpansionIsBounded(t *testing.T) {
	most := expansion{ratio: 400, from: 1 << 20}
	dir := t.TempDir()
	bomb := zipped(t, bytes.Repeat([]byte("a"), 1<<20), 16)
	c, err := read(t.Context(), bytes.NewReader(bomb), dir, most)
	if err == nil {
		c.Close()
	}
	if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "times as much") {
		t.Errorf("%d bytes that stand for 16 MB: %v", len(bomb), err)
	}
	if c, err = read(t.Context(), bytes.NewReader(bomb), dir, usual); err != nil {
		t.Errorf("what is not much anyway: %v", err)
	} else {
		c.Close()
	}
	text := make([]byte, 1<<20)
	for i := range text {
		text[i] = "0123456789abcdef"[rand.IntN(16)]
	}
	if c, err = read(t.Context(), bytes.NewReader(zipped(t, text, 4)), dir, most); err != nil {
		t.Errorf("text: %v", err)
	} else {
		c.Close()
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// An empty disk image takes no room, and is as it was.
func TestHoles(t *testing.T) {
	const size = 64 << 20
	c, err := read(t.Context(), bytes.NewReader(zipped(t, make([]byte, 1<<20), size>>20)), t.TempDir(), expansion{ratio: 400, from: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(c.file.Fd()), &st); err != nil || st.Blocks*512 > size/8 {
		t.Errorf("it takes %d bytes, %v", st.Blocks*512, err)
	}
	r, err := c.FS().Open("big")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := 0
	buf := make([]byte, 1<<20)
	for {
		m, err := r.Read(buf)
		if bytes.Count(buf[:m], zero) != m {
			t.Fatal("it is not empty")
		}
		if n += m; err == io.EOF {
			break
		}
	}
	if n != size {
		t.Errorf("%d bytes", n)
	}
}

func TestNamesAreBounded(t *testing.T) {
	c := &Context{root: newDir(0o755), left: maxEntries, text: maxNames}
	long := strings.Repeat("x", 1<<20)
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		err = c.add(&tar.Header{Name: fmt.Sprint(n), Linkname: long, Typeflag: tar.TypeSymlink}, 0)
	}
	if n > 256 || fault.KindOf(err) != fault.Invalid {
		t.Errorf("%d links: %v", n, err)
	}
}

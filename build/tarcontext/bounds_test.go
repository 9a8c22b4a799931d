package tarcontext

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"strings"
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
	c := &Context{root: newDir(0o755), left: 1000}
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		err = c.add(&tar.Header{Name: fmt.Sprintf("%d/", n) + strings.Repeat("d/", 100) + "x", Typeflag: tar.TypeReg}, 0)
	}
	if n > 10 || fault.KindOf(err) != fault.Invalid {
		t.Errorf("%d entries: %v", n, err)
	}
}

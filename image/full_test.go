package image

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// On a full disk a load fails as a whole and leaves nothing; what is there can be used, checked and removed.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: a small file system to fill")
	}
	root := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=8m"); err != nil {
		t.Skip("needs mount(2): ", err)
	}
	t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
	h := &harness{t: t, root: filepath.Join(root, "image"), uses: map[string][]Use{}}
	h.reopen()
	t.Cleanup(func() { h.Close() })
	noise := make([]byte, 5<<20)
	rand.NewChaCha8([32]byte{}).Read(noise)
	big := makeSample(t, nil, tarOf(t, "a", string(noise)), tarOf(t, "b", string(noise)))
	_, err := h.Load(ctx, bytes.NewReader(big.dockerArchive(t, "big:1")), LoadOptions{})
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v", err)
	}
	h.empty("too big")
	fits := makeSample(t, nil, tarOf(t, "a", string(noise)))
	h.load(fits.dockerArchive(t, "fits:1"))
	c, err := h.Fsck(ctx, nil)
	if err != nil || !c.OK() || c.Partly != 1 {
		t.Errorf("%+v %v", c, err)
	}
	// To the last byte: names cannot be given, nor taken, but nothing is lost by trying.
	f, err := os.Create(filepath.Join(root, "rest"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(noise[:4096])
	}
	f.Close()
	if _, err := h.Load(ctx, bytes.NewReader(small(t, "x", nil).dockerArchive(t, "x:1")), LoadOptions{}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v", err)
	}
	if img, err := h.Resolve("fits:1"); err != nil || img.ID != fits.id() {
		t.Errorf("%v", err)
	}
	if err := h.Save(ctx, new(bytes.Buffer), []string{"fits:1"}, nil); err != nil {
		t.Error(err)
	}
	os.Remove(f.Name())
	if _, err := h.Remove(ctx, "fits:1", RemoveOptions{}); err != nil {
		t.Error(err)
	}
	h.empty("in the end")
	h.exactHolds()
}

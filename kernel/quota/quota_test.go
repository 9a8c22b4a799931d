package quota

import (
	"path/filepath"
	"testing"
	"unsafe"

	"berth/base/fault"
)

// The limits themselves are tested by volume/local, on an ext4 of its own where the kernel has quotas.
func TestOpenSaysWhyNot(t *testing.T) {
	dir := t.TempDir()
	c, err := Open(dir)
	if err != nil {
		if !fault.Is(err, fault.NotImplemented) {
			t.Errorf("%v (%v)", err, fault.KindOf(err))
		}
		t.Skip("needs a file system with project quotas: ", err)
	}
	defer c.Close()
	if p, err := c.Free(1<<31, func(p uint32) bool { return p == 1<<31 }); err != nil || p == 1<<31 {
		t.Errorf("%d, %v", p, err)
	}
}

func TestProject(t *testing.T) {
	p, err := Project(t.TempDir())
	if fault.Is(err, fault.NotImplemented) {
		t.Skip("needs a file system with projects: ", err)
	}
	if err != nil || p != 0 {
		t.Errorf("%d, %v", p, err)
	}
	if _, err := Project(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a directory that is not there has a project")
	}
}

// The kernel's structures have these sizes (linux/fs.h, linux/quota.h); the ioctls' numbers hold the first.
func TestLayout(t *testing.T) {
	if n := unsafe.Sizeof(fsxattr{}); n != 28 {
		t.Errorf("struct fsxattr has %d bytes", n)
	}
	if n := unsafe.Sizeof(dqblk{}); n != 72 {
		t.Errorf("struct if_dqblk has %d bytes", n)
	}
}

package engine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"berth/kernel/mount"
	"berth/kernel/quota"
)

// The kernel itself: a container gets as much as was asked for and sees it, whatever it is that it writes, and no other is affected.
func TestLayerIsLimited(t *testing.T) {
	w := newWorld(t)
	at := quotaDisk(t)
	w.cfg.DataRoot, w.images.root = filepath.Join(at, "data"), filepath.Join(at, "layers")
	w.reopen()
	defer func() { w.cfg.DataRoot = filepath.Join(t.TempDir(), "data"); w.reopen() }() // the disk goes before the world does
	if w.quotas.control == nil {
		t.Fatal(w.quotas.why)
	}
	s := spec("dd if=/dev/zero of=/big bs=1M count=20 2>&1; wc -c </big; rm /big; mkdir -p /etc/new/deep && echo x >/etc/text && echo y >>/etc/passwd && ln /etc/passwd /etc/new/deep/ && echo linked; dd if=/dev/zero of=/etc/new/deep/big bs=1M count=5 2>&1 && echo again")
	s.StorageOpt = map[string]string{"size": "10m"}
	out, _ := w.output(s)
	if !strings.Contains(out, "quota exceeded") && !strings.Contains(out, "No space left") {
		t.Errorf("20 MB were written into 10: %s", out)
	}
	// What a directory has of the image is copied up by a rename from the work directory, which must belong to the same project.
	if !strings.Contains(out, "linked") || !strings.Contains(out, "again") {
		t.Errorf("what was removed is not given back, or files cannot be moved about: %s", out)
	}
	free := spec("dd if=/dev/zero of=/big bs=1M count=20 2>&1 && echo written")
	if out, _ := w.output(free); !strings.Contains(out, "written") {
		t.Errorf("a container without a limit: %s", out)
	}
	s = spec("exec sleep 100")
	s.StorageOpt = map[string]string{"size": "10m"}
	id := w.run("", s)
	i, err := w.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t // what df asks for
	if err := unix.Statfs(fmt.Sprintf("/proc/%d/root", i.State.Pid), &st); err != nil || int64(st.Blocks)*st.Bsize != 10<<20 {
		t.Errorf("the container's file system has %d bytes, %v", int64(st.Blocks)*st.Bsize, err)
	}
	if err := w.Remove(t.Context(), id, RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
}

// The limit of a layer that a crash has left goes with it.
func TestLimitOfASweptLayerGoes(t *testing.T) {
	w := newWorld(t)
	at := quotaDisk(t)
	w.cfg.DataRoot, w.images.root = filepath.Join(at, "data"), filepath.Join(at, "layers")
	w.reopen()
	defer func() { w.cfg.DataRoot = filepath.Join(t.TempDir(), "data"); w.reopen() }() // the disk goes before the world does
	s := spec("true")
	s.StorageOpt = map[string]string{"size": "10m"}
	id := w.create("", s)
	project := w.index.get(id).record().LayerProject
	limit := func() uint64 {
		c, err := quota.Open(at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		u, err := c.Usage(project)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			t.Fatal(err)
		}
		return u.Limit
	}
	if n := limit(); project == 0 || n != 10<<20 {
		t.Fatalf("project %d is limited to %d", project, n)
	}
	if err := os.RemoveAll(filepath.Join(w.cfg.DataRoot, "containers", id)); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	if n := limit(); n != 0 || len(w.images.Layers()) != 0 {
		t.Errorf("project %d is limited to %d, layers %v", project, n, w.images.Layers())
	}
}

// quotaDisk mounts a small file system that counts projects.
func quotaDisk(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"mkfs.ext4", "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs " + tool)
		}
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 128<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota", image).CombinedOutput(); err != nil {
		t.Skipf("needs mkfs.ext4 with project quotas: %v %s", err, out)
	}
	out, err := exec.Command("losetup", "-f", "--show", image).CombinedOutput()
	if err != nil {
		t.Skipf("needs loop devices: %v %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "-d", device).Run() })
	fd, err := mount.Make(mount.Mount{Source: device, Type: "ext4", Options: []string{"prjquota"}})
	if err != nil {
		t.Skip("needs ext4 with project quotas: ", err)
	}
	at, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := mount.Attach(fd, at); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mount.UnmountBelow(at); err != nil {
			t.Error(err)
		}
	})
	return at
}

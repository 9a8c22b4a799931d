package local_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/base/fault"
	"berth/kernel/mount"
	"berth/volume"
	"berth/volume/local"
	"berth/volume/volumetest"
)

// rig is volumes in directories of their own, where nothing may stay mounted.
type rig struct {
	*volume.Volumes
	t         *testing.T
	root, run string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	volumetest.NeedMounts(t)
	base, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	r := &rig{t: t, root: filepath.Join(base, "root"), run: filepath.Join(base, "run")}
	r.open()
	t.Cleanup(func() {
		r.Close()
		if left := volumetest.Left(t, base); len(left) > 0 {
			t.Errorf("left mounted: %v", left)
		}
	})
	return r
}

func (r *rig) open() {
	r.t.Helper()
	v, err := volume.Open(context.Background(), volume.Config{Root: r.root, RunRoot: r.run, PluginDirs: []string{r.t.TempDir()}, CSIDirs: []string{}, MountTimeout: time.Second})
	must(r.t, err)
	r.Volumes = v
}

func (r *rig) create(name string, options ...string) error {
	o := map[string]string{}
	for _, w := range options {
		k, v, _ := strings.Cut(w, "=")
		o[k] = v
	}
	_, err := r.Create(context.Background(), volume.CreateRequest{Name: name, Options: o})
	return err
}

func TestMountedVolumes(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	source := t.TempDir()
	must(t, os.WriteFile(filepath.Join(source, "f"), []byte("x"), 0o600))
	for _, c := range []struct {
		name    string
		options []string
		fs      string
		persist bool
		ro      bool
	}{
		{"tmpfs", []string{"type=tmpfs", "device=tmpfs", "o=size=1m,uid=7,mode=750"}, "tmpfs", false, false},
		{"bind", []string{"type=none", "o=bind", "device=" + source}, "", true, false},
		{"readonly", []string{"type=none", "o=bind,ro", "device=" + source}, "", true, true},
		{"tmpfs-ro", []string{"type=tmpfs", "device=tmpfs", "o=ro"}, "tmpfs", false, true},
	} {
		must(t, r.create(c.name, c.options...))
		v, err := r.Get(ctx, c.name)
		must(t, err)
		if left := volumetest.Mounted(t, v.Mountpoint); len(left) > 0 {
			t.Errorf("%s: mounted before its first use: %v", c.name, left)
		}
		at, err := r.Mount(ctx, c.name, "", "c1")
		must(t, err)
		if at != v.Mountpoint {
			t.Errorf("%s: mounted at %s, told %s", c.name, at, v.Mountpoint)
		}
		if got := volumetest.Mounted(t, at); len(got) != 1 || !strings.HasPrefix(got[0], c.fs) {
			t.Errorf("%s: %v", c.name, got)
		}
		err = os.WriteFile(filepath.Join(at, "new"), nil, 0o600)
		if c.ro != errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: write: %v", c.name, err)
		}
		if c.name == "tmpfs" {
			st, err := os.Stat(at)
			must(t, err)
			if st.Sys().(*syscall.Stat_t).Uid != 7 || st.Mode().Perm() != 0o750 {
				t.Errorf("%s: %v", c.name, st.Mode())
			}
		}
		_, err = r.Mount(ctx, c.name, "", "c2")
		must(t, err)
		must(t, r.Unmount(ctx, c.name, "c1"))
		if got := volumetest.Mounted(t, at); len(got) != 1 {
			t.Errorf("%s: with one user left: %v", c.name, got)
		}
		// The engine dies, and so does the second user.
		r.Close()
		r.open()
		if got := volumetest.Mounted(t, at); len(got) != 1 {
			t.Errorf("%s: after a restart: %v", c.name, got)
		}
		r.Recovered(func(string) bool { return false })
		if got := volumetest.Left(t, at); len(got) != 0 {
			t.Errorf("%s: without users: %v", c.name, got)
		}
		must(t, r.Remove(ctx, c.name, false))
	}
	if _, err := os.Stat(filepath.Join(source, "f")); err != nil {
		t.Errorf("removing a volume removed what it showed: %v", err)
	}
}

// Removing a volume that is somehow still mounted removes nothing of what is mounted.
func TestRemoveNeverEmptiesWhatIsMounted(t *testing.T) {
	r := newRig(t)
	source := t.TempDir()
	must(t, os.WriteFile(filepath.Join(source, "precious"), []byte("x"), 0o600))
	must(t, r.create("plain"))
	v, err := r.Get(t.Context(), "plain")
	must(t, err)
	must(t, os.Mkdir(filepath.Join(v.Mountpoint, "sub"), 0o755))
	fd, err := mount.Make(mount.Mount{Source: source, Type: "bind"})
	must(t, err)
	must(t, mount.Attach(fd, filepath.Join(v.Mountpoint, "sub")))
	must(t, r.Remove(t.Context(), "plain", false))
	if _, err := os.Stat(filepath.Join(source, "precious")); err != nil {
		t.Error(err)
	}
}

func TestFailedMounts(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		options []string
		text    string
	}{
		{[]string{"type=nope", "device=x"}, "failed to mount local volume: mount x:"},
		{[]string{"type=nope", "device=x"}, "no such device"},
		{[]string{"type=none", "o=bind", "device=/nonexistent"}, "failed to mount local volume: mount /nonexistent:" + r.root + "/bad/_data, flags: 0x1000: "},
		{[]string{"type=none", "o=bind", "device=/nonexistent"}, "no such file or directory"},
		{[]string{"type=tmpfs", "device=tmpfs", "o=size=zz,ro"}, "_data, flags: 0x1, data: size=zz: "},
		{[]string{"type=tmpfs", "device=tmpfs", "o=size=zz"}, "invalid argument"},
		{[]string{"type=ext4", "device=/dev/nonexistent"}, "no such file or directory"},
		{[]string{"type=nfs", "device=:/x", "o=addr=host.invalid"}, "error resolving passed in network volume address"},
		{[]string{"type=cifs", "device=//127.0.0.1/x", "o=username=u,password=secret"}, "password=********"},
		{[]string{"type=tmpfs", "device=tmpfs", "o=mpol=" + strings.Repeat("x", 300)}, "the kernel takes at most 255"},
	} {
		must(t, r.create("bad", c.options...))
		_, err := r.Mount(t.Context(), "bad", "", "c1")
		if err == nil || !strings.Contains(err.Error(), c.text) || !strings.HasPrefix(err.Error(), "error while mounting volume '"+r.root+"/bad/_data': ") ||
			strings.Contains(err.Error(), "secret") || fault.Is(err, fault.NotFound) {
			t.Errorf("%v: %v (%v)", c.options, err, fault.KindOf(err))
		}
		if left := volumetest.Left(t, r.root, r.run); len(left) > 0 {
			t.Errorf("%v: left mounted: %v", c.options, left)
		}
		if users, _ := os.ReadDir(filepath.Join(r.run, "users")); len(users) > 0 {
			t.Errorf("%v: left users: %v", c.options, users)
		}
		must(t, r.Remove(t.Context(), "bad", false))
	}
}

// A server that does not answer is given up, and what it answers later is dropped.
func TestServerThatHangs(t *testing.T) {
	volumetest.NeedMounts(t)
	base, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	answer := make(chan struct{})
	tries := 0
	d, err := local.Open(local.Config{Root: filepath.Join(base, "root"), RunRoot: filepath.Join(base, "run"), MountTimeout: 50 * time.Millisecond,
		Make: func(mount.Mount) (int, error) {
			tries++
			if tries == 1 {
				<-answer
			}
			return mount.Make(mount.Mount{Type: "tmpfs", Source: "server"})
		}})
	must(t, err)
	defer d.Close()
	options := map[string]string{"type": "nfs", "device": ":/x", "o": "addr=10.255.255.1"}
	at := filepath.Join(base, "root", "data", "_data")
	must(t, os.MkdirAll(at, 0o755))
	must(t, d.Create(t.Context(), "data", options))
	begin := time.Now()
	_, err = d.Mount(t.Context(), "data", "c1")
	if !fault.Is(err, fault.Deadline) || !strings.Contains(err.Error(), "the nfs server 10.255.255.1 did not answer within 50ms") || time.Since(begin) > 5*time.Second {
		t.Errorf("%v (%v) after %s", err, fault.KindOf(err), time.Since(begin))
	}
	if _, err = d.Mount(t.Context(), "data", "c1"); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "is still waiting for the nfs server") {
		t.Errorf("%v", err)
	}
	close(answer)
	for range 6000 {
		if _, err = d.Mount(t.Context(), "data", "c1"); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	must(t, err)
	if got := volumetest.Mounted(t, base); len(got) != 1 {
		t.Errorf("mounted: %v", got)
	}
	must(t, d.Unmount(t.Context(), "data", "c1"))
	if got := volumetest.Mounted(t, base); len(got) != 0 {
		t.Errorf("left mounted: %v", got)
	}
}

// A file system that is mounted and then no longer answers does not hold the engine: FUSE without anybody who serves it.
func TestFileSystemThatHangs(t *testing.T) {
	r := newRig(t)
	fuse, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("needs /dev/fuse: ", err)
	}
	closed := false
	end := func() {
		if !closed {
			closed = true
			syscall.Close(fuse)
		}
	}
	defer end()
	must(t, r.create("data", "type=fuse", "device=dead", "o=fd="+itoa(fuse)+",rootmode=40000,user_id=0,group_id=0"))
	begin := time.Now()
	_, err = r.Mount(t.Context(), "data", "sub", "c1")
	if !fault.Is(err, fault.Deadline) || !strings.Contains(err.Error(), "no answer within 1s") || time.Since(begin) > 20*time.Second {
		t.Errorf("%v (%v) after %s", err, fault.KindOf(err), time.Since(begin))
	}
	if left := volumetest.Left(t, r.root, r.run); len(left) > 0 {
		t.Errorf("left mounted: %v", left)
	}
	image, err := os.Open(t.TempDir())
	must(t, err)
	defer image.Close()
	if err := r.Fill(t.Context(), "data", "", image); !fault.Is(err, fault.Deadline) {
		t.Errorf("fill: %v (%v)", err, fault.KindOf(err))
	}
	if err := r.Export(t.Context(), "data", io.Discard); !fault.Is(err, fault.Deadline) {
		t.Errorf("export: %v (%v)", err, fault.KindOf(err))
	}
	end() // whoever waits is let go
	must(t, r.Remove(t.Context(), "data", true))
}

func itoa(n int) string { return strconv.Itoa(n) }

// loop makes an ext4 file system in a file and gives its device.
func loop(t *testing.T, mkfs ...string) string {
	t.Helper()
	volumetest.NeedMounts(t)
	for _, tool := range []string{"mkfs.ext4", "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs " + tool)
		}
	}
	image := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 64<<20))
	if out, err := exec.Command("mkfs.ext4", append(append([]string{"-q"}, mkfs...), image)...).CombinedOutput(); err != nil {
		t.Skipf("needs mkfs.ext4 %v: %v %s", mkfs, err, out)
	}
	out, err := exec.Command("losetup", "-f", "--show", image).CombinedOutput()
	if err != nil {
		t.Skipf("needs loop devices: %v %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "-d", device).Run() })
	return device
}

func TestBlockDevice(t *testing.T) {
	device := loop(t)
	r := newRig(t)
	ctx := t.Context()
	must(t, r.create("disk", "type=ext4", "device="+device, "o=noatime"))
	image := t.TempDir()
	must(t, os.WriteFile(filepath.Join(image, "f"), []byte("of the image"), 0o600))
	from, err := os.Open(image)
	must(t, err)
	defer from.Close()
	must(t, r.Fill(ctx, "disk", "", from)) // its lost+found is nothing
	at, err := r.Mount(ctx, "disk", "", "c1")
	must(t, err)
	if b, err := os.ReadFile(filepath.Join(at, "f")); err != nil || string(b) != "of the image" {
		t.Errorf("%q, %v", b, err)
	}
	must(t, r.Unmount(ctx, "disk", "c1"))
	must(t, r.Clone(ctx, "disk", "plain"))
	v, err := r.Get(ctx, "plain")
	must(t, err)
	if b, err := os.ReadFile(filepath.Join(v.Mountpoint, "f")); err != nil || string(b) != "of the image" || len(v.Options) > 0 {
		t.Errorf("clone: %q, %v, %v", b, v.Options, err)
	}
	must(t, r.Remove(ctx, "disk", false))
}

func TestSizeIsALimit(t *testing.T) {
	device := loop(t, "-O", "quota,project", "-E", "quotatype=prjquota")
	base, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	fd, err := mount.Make(mount.Mount{Source: device, Type: "ext4", Options: []string{"prjquota"}})
	if err != nil {
		t.Skip("needs ext4 with project quotas: ", err)
	}
	must(t, mount.Attach(fd, base))
	t.Cleanup(func() { must(t, mount.UnmountBelow(base)) })
	r := &rig{t: t, root: filepath.Join(base, "root"), run: filepath.Join(t.TempDir(), "run")}
	r.open()
	defer func() { r.Close() }()
	ctx := t.Context()
	must(t, r.create("small", "size=2m"))
	must(t, r.create("other", "size=2m"))
	v, err := r.Get(ctx, "small")
	must(t, err)
	// A process without CAP_SYS_RESOURCE is stopped; this one may have it, so somebody else writes.
	write := func(file string, mb int) error {
		f, err := os.Create(filepath.Join(v.Mountpoint, file))
		must(t, err)
		defer f.Close()
		var said strings.Builder
		cmd := exec.Command("dd", "if=/dev/zero", "bs=1M", "count="+itoa(mb))
		cmd.Stdout, cmd.Stderr = f, &said
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if err := cmd.Run(); err != nil {
			return errors.New(said.String())
		}
		return nil
	}
	must(t, write("one", 1))
	if err := write("three", 3); err == nil || !strings.Contains(err.Error(), "quota exceeded") && !strings.Contains(err.Error(), "No space left") {
		t.Errorf("%v", err)
	}
	os.Remove(filepath.Join(v.Mountpoint, "three"))
	must(t, r.Resize(ctx, "small", 8<<20))
	must(t, write("three", 3))
	r.Close()
	r.open()
	if v, err := r.Get(ctx, "small"); err != nil || v.Options["size"] != "8388608" {
		t.Errorf("%+v, %v", v, err)
	}
	if err := write("ten", 10); err == nil {
		t.Error("a resized volume has no limit")
	}
	must(t, r.Remove(ctx, "small", false))
	must(t, r.Remove(ctx, "other", false))
}

func TestSizeWithoutQuotas(t *testing.T) {
	r := newRig(t)
	must(t, os.MkdirAll(r.root, 0o755))
	err := r.create("small", "size=2m")
	if err == nil {
		t.Skip("needs a file system without project quotas")
	}
	if !fault.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), "create small: quota size requested but no quota support") {
		t.Errorf("%v", err)
	}
	if list, _, _ := r.List(t.Context()); len(list) > 0 {
		t.Errorf("half made: %v", list)
	}
	must(t, r.create("plain"))
	if err := r.Resize(t.Context(), "plain", 1<<20); !fault.Is(err, fault.NotImplemented) {
		t.Errorf("%v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// On a file system with reflinks a clone takes no space.
func TestClonesShareBlocks(t *testing.T) {
	volumetest.NeedMounts(t)
	if _, err := exec.LookPath("mkfs.btrfs"); err != nil {
		t.Skip("needs mkfs.btrfs")
	}
	device := loop(t)
	if out, err := exec.Command("wipefs", "-a", device).CombinedOutput(); err != nil {
		t.Skipf("needs wipefs: %s", out)
	}
	if out, err := exec.Command("mkfs.btrfs", "-q", "-f", "--mixed", device).CombinedOutput(); err != nil {
		t.Skipf("needs mkfs.btrfs: %v %s", err, out)
	}
	base, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	fd, err := mount.Make(mount.Mount{Source: device, Type: "btrfs"})
	if err != nil {
		t.Skip("needs btrfs: ", err)
	}
	must(t, mount.Attach(fd, base))
	t.Cleanup(func() { must(t, mount.UnmountBelow(base)) })
	r := &rig{t: t, root: filepath.Join(base, "root"), run: filepath.Join(t.TempDir(), "run")}
	r.open()
	defer func() { r.Close() }()
	must(t, r.create("data"))
	must(t, os.WriteFile(filepath.Join(r.root, "data/_data/f"), make([]byte, 20<<20), 0o600))
	used := func() uint64 {
		syscall.Sync()
		var st syscall.Statfs_t
		must(t, syscall.Statfs(base, &st))
		return (st.Blocks - st.Bfree) * uint64(st.Bsize)
	}
	before := used()
	must(t, r.Clone(t.Context(), "data", "clone"))
	if grown := int64(used() - before); grown > 5<<20 {
		t.Errorf("a clone of 20 MiB takes %d bytes", grown)
	}
	if st, err := os.Stat(filepath.Join(r.root, "clone/_data/f")); err != nil || st.Size() != 20<<20 {
		t.Error(err)
	}
}

// An NFS server that takes the connection and never says anything, as one behind a broken firewall.
func TestSilentNFSServer(t *testing.T) {
	r := newRig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	must(t, r.create("data", "type=nfs", "device=:/x", "o=addr=127.0.0.1,port="+port+",mountport="+port+",nfsvers=4"))
	begin := time.Now()
	_, err = r.Mount(t.Context(), "data", "", "c1")
	if errors.Is(err, syscall.ENODEV) {
		t.Skip("needs NFS in the kernel: ", err)
	}
	if !fault.Is(err, fault.Deadline) || !strings.Contains(err.Error(), "the nfs server 127.0.0.1 did not answer within 1s") || time.Since(begin) > 10*time.Second {
		t.Errorf("%v (%v) after %s", err, fault.KindOf(err), time.Since(begin))
	}
	if left := volumetest.Left(t, r.root, r.run); len(left) > 0 {
		t.Errorf("left mounted: %v", left)
	}
	must(t, r.Remove(t.Context(), "data", false))
}

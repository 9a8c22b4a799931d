package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/process"
	"berth/runtime/checkpoint"
	"berth/runtime/launch"
)

// checkpoint saves a running container's processes to image files, and deletes the container unless it
// is to run on.
func (t *tool) checkpoint(f *flagSet) (int, error) {
	c, err := t.loadLocked(f.arg(0))
	if err != nil {
		return 1, err
	}
	if s := c.status(); s == created || s == stopped {
		return 1, fault.New(fault.Conflict, "Container cannot be checkpointed in %s state", s)
	}
	cfg, err := c.config()
	if err != nil {
		return 1, err
	}
	options, err := t.criuOptions(f, cfg.Spec)
	if err != nil {
		return 1, err
	}
	d := &checkpoint.Dump{
		Options: *options, PID: c.rec.PID, Parent: f.text("parent-path"), LeaveRunning: f.bool("leave-running"), PreDump: f.bool("pre-dump"),
		LinkRemap: f.bool("link-remap"), SkipInFlight: f.bool("tcp-skip-in-flight"), PageServer: f.text("page-server"), StatusFD: int(f.int("status-fd")),
	}
	d.Root = c.rec.Rootfs
	if err := checkParent(d.Images, d.Parent); err != nil {
		return 1, err
	}
	cg, err := c.cgroup()
	if err != nil {
		return 1, err
	}
	if cg != nil {
		if d.Freezer = cg.Dir("freezer"); d.Freezer == "" {
			d.Freezer = cg.V2Dir()
		}
	}
	if err := d.Run(); err != nil {
		return 1, err
	}
	if d.LeaveRunning || d.PreDump {
		return 0, nil
	}
	if err := c.kill(); err != nil { // criu has ended them; wait for the last to be gone
		return 1, err
	}
	if err := c.destroy(cg); err != nil {
		return 1, err
	}
	t.runPoststop(c.rec, cfg.Spec)
	return 0, nil
}

// checkParent wants earlier images to be found from the new ones, wherever both are moved to.
func checkParent(images, parent string) error {
	if parent == "" {
		return nil
	}
	if filepath.IsAbs(parent) {
		return fault.New(fault.Invalid, "--parent-path must be relative")
	}
	st, err := os.Stat(filepath.Join(images, parent))
	if err == nil && !st.IsDir() {
		err = &os.PathError{Op: "stat", Path: parent, Err: unix.ENOTDIR}
	}
	return fault.Wrap(fault.Invalid, err, "invalid --parent-path")
}

// criuOptions reads what checkpoint and restore have in common.
func (t *tool) criuOptions(f *flagSet, s *specs.Spec) (*checkpoint.Options, error) {
	images := f.text("image-path")
	if images == "" {
		images = "checkpoint"
	}
	images, err := filepath.Abs(images)
	if err != nil {
		return nil, err
	}
	work, err := absolute(f.text("work-path"))
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{images, work} {
		if dir != "" {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return nil, err
			}
		}
	}
	for _, ns := range f.list("empty-ns") {
		if ns != string(specs.NetworkNamespace) {
			return nil, fault.New(fault.Invalid, "namespace %q is not supported", ns)
		}
	}
	o := &checkpoint.Options{
		Binary: t.criu, Images: images, Work: work, CgroupsMode: f.text("manage-cgroups-mode"), TCP: f.bool("tcp-established"),
		UnixSockets: f.bool("ext-unix-sk"), ShellJob: f.bool("shell-job"), FileLocks: f.bool("file-locks"), AutoDedup: f.bool("auto-dedup"),
		LazyPages: f.bool("lazy-pages"), EmptyNetwork: ownNamespace(s, specs.NetworkNamespace), ExternalFiles: externalMounts(s),
	}
	if n := namespaceOf(s, specs.NetworkNamespace); n != nil {
		o.ExternalNet = n.Path
	}
	return o, nil
}

// externalMounts lists the mount points whose content is the host's: criu does not save it.
func externalMounts(s *specs.Spec) []string {
	var all []string
	for _, m := range s.Mounts {
		if m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			all = append(all, filepath.Clean("/"+m.Destination))
		}
	}
	return append(all, s.Linux.MaskedPaths...)
}

// restore makes a container from image files.
func (t *tool) restore(f *flagSet) (int, error) {
	b := &birth{t: t, f: f, detach: f.bool("detach")}
	code, err := b.restore()
	if err != nil {
		return 1, fmt.Errorf("%s restore failed: %w", t.name, err)
	}
	return code, nil
}

func (b *birth) restore() (code int, err error) {
	if done, code, err := b.read(); done || err != nil {
		return code, err
	}
	if !b.detach {
		if b.fg, err = newForeground(b.t, !b.f.bool("no-subreaper")); err != nil {
			return 1, err
		}
		defer b.fg.close()
	}
	if err := b.prepare(); err != nil {
		return 1, err
	}
	if err := b.revive(); err != nil {
		b.undo()
		return 1, err
	}
	if path := b.f.text("pid-file"); path != "" {
		if err := writePIDFile(path, b.proc.PID); err != nil {
			b.undo()
			return 1, err
		}
	}
	if b.detach {
		return 0, nil
	}
	if err := b.fg.attach(b.proc); err != nil {
		b.undo()
		return 1, err
	}
	b.c.release()
	if code, err = b.fg.wait(); err != nil {
		return 1, err
	}
	return code, b.end()
}

// revive makes the cgroup and has criu make the processes in it.
func (b *birth) revive() error {
	s := b.cfg.Spec
	if s.Process.Terminal {
		return fault.New(fault.NotImplemented, "this runtime does not restore containers with a terminal: set process.terminal to false")
	}
	options, err := b.t.criuOptions(b.f, s)
	if err != nil {
		return err
	}
	r := &checkpoint.Restore{
		Options: *options, PIDFile: b.c.dir + "/criu.pid", HostPaths: map[string]string{}, CgroupRoots: map[string]string{},
		LSMProfile: b.f.text("lsm-profile"), LSMMount: b.f.text("lsm-mount-context"), NetNSFD: -1,
	}
	if r.Descriptors, err = checkpoint.Descriptors(r.Images); err != nil {
		return err
	}
	if err := b.cgroups(); err != nil {
		return err
	}
	if b.cg != nil {
		for _, h := range b.cg.Layout().Hierarchies {
			for _, name := range append([]string{""}, h.Controllers...) {
				dir := b.cg.Dir(name)
				if h.V2 != (name == "") || dir == "" && !h.V2 {
					continue
				}
				if h.V2 {
					dir = b.cg.V2Dir()
				}
				r.CgroupRoots[strings.TrimPrefix(name, "name=")] = strings.TrimPrefix(dir, h.Dir)
			}
		}
	}
	for _, m := range s.Mounts {
		r.HostPaths[filepath.Clean("/"+m.Destination)] = m.Source
	}
	for _, path := range s.Linux.MaskedPaths {
		r.HostPaths[path] = "/dev/null"
	}
	// criu wants the root to be a mount point.
	r.Root = b.c.dir + "/criu-root"
	if err := os.Mkdir(r.Root, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(b.c.rec.Rootfs, r.Root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s for criu: %w", b.c.rec.Rootfs, err)
	}
	defer func() {
		_ = unix.Unmount(r.Root, unix.MNT_DETACH)
		_ = os.Remove(r.Root)
	}()
	pid, err := r.Run([3]*os.File{os.Stdin, os.Stdout, os.Stderr}, b.netNamespace(r)...)
	if err != nil {
		return err
	}
	return b.adopt(pid)
}

// netNamespace opens the network namespace that the container joins, for criu's descriptor 3.
func (b *birth) netNamespace(r *checkpoint.Restore) []*os.File {
	if r.ExternalNet == "" {
		return nil
	}
	f, err := os.Open(r.ExternalNet)
	if err != nil {
		return nil // criu says what it misses
	}
	r.NetNSFD = 3
	return []*os.File{f}
}

// adopt takes on a process that criu made.
func (b *birth) adopt(pid int) error {
	fd, err := process.Open(pid)
	if err != nil {
		return errors.Join(errors.New("the restored process is gone"), err)
	}
	b.proc = &launch.Process{PID: pid, PidFD: fd, Console: -1, Listener: -1}
	return b.remember(pid)
}

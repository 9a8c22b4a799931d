package engine

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/engine/container"
	"berth/image/archive"
	"berth/image/archive/compress"
	"berth/image/layer"
	"berth/kernel/mount"
	"berth/kernel/overlay"
	"berth/kernel/tree"
)

// PathStat describes a file or directory of a container.
type PathStat struct {
	Name       string // last part of the path as it was asked for
	Size       int64
	Mode       fs.FileMode
	Modified   time.Time
	LinkTarget string // of a symbolic link: what it leads to, absolute in the container
}

// view is a container's file tree as its processes see it, open for a while.
type view struct {
	root *tree.Dir
	live bool // through the mounts of a container that runs
	done func()
}

func (v *view) close() {
	v.root.Close()
	v.done()
}

// view opens a container's files: those of a running one through its own mounts, those of one that does not run by mounting them where
// nobody else sees it. Whatever is looked up below is looked up with the container's root as the root.
func (e *Engine) view(ctx context.Context, c *entry) (*view, error) {
	for range 3 {
		if s := c.snapshot().State; s.Running && s.Pid > 0 {
			root, err := tree.OpenDir("/proc/" + strconv.Itoa(s.Pid) + "/root")
			if now := c.snapshot().State; err == nil && now.Running && now.Pid == s.Pid && e.keeper.Holds(c.id, s.Pid) {
				return &view{root, true, func() {}}, nil
			}
			if err == nil {
				root.Close()
			}
			// It ended just now, and is about to be known as ended.
			select {
			case <-c.endedChan():
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		return e.stoppedView(ctx, c)
	}
	return nil, fault.New(fault.Conflict, "container %s starts and ends too fast to look into it", c.id)
}

// stoppedView holds the container's verbs off until the view is closed: a start would mount the same upper directory.
func (e *Engine) stoppedView(ctx context.Context, c *entry) (_ *view, err error) {
	end, err := c.begin(ctx, "copy")
	if err != nil {
		return nil, err
	}
	undo := []func(){end}
	release := func() {
		for _, f := range slices.Backward(undo) {
			f()
		}
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	if c.snapshot().State.Running {
		return nil, fault.New(fault.Conflict, "container %s has just been started: try again", c.id)
	}
	r := c.record()
	l, err := e.images.Layer(c.id)
	if err != nil {
		return nil, err
	}
	paths, err := e.mountVolumes(ctx, r)
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() {
		if err := e.unmountVolumes(r); err != nil {
			e.log.Warn("volumes of a copy", "container", c.id, "error", err)
		}
	})
	scratch, err := os.MkdirTemp(e.cfg.ExecRoot, "copy-")
	if err != nil {
		return nil, fault.In(err, "copy")
	}
	undo = append(undo, func() { os.Remove(scratch) })
	var root *tree.Dir
	leave, err := mount.Private(func() (err error) {
		fd, err := overlay.Stack{Lower: l.Lower, Upper: l.Upper, Work: l.Work}.Mount(e.facts, scratch)
		if err != nil {
			return err
		}
		if err := mount.Attach(fd, scratch); err != nil {
			return err
		}
		if root, err = tree.OpenDir(scratch); err != nil {
			return err
		}
		return e.attachAll(root, r, paths)
	})
	if err != nil {
		if root != nil {
			root.Close()
		}
		return nil, err
	}
	undo = append(undo, leave)
	return &view{root, false, release}, nil
}

// attachAll puts a container's binds and volumes in their places below root. A place that is not there yet, as the container never
// ran, is made, as its start would; where that cannot be, it stays out of view.
func (e *Engine) attachAll(root *tree.Dir, r *container.Record, paths sources) error {
	all := slices.Clone(r.AllMounts())
	slices.SortFunc(all, func(a, b container.Mount) int { return strings.Compare(a.Target, b.Target) })
	for _, m := range all {
		from := m.Source
		if m.Type != "bind" {
			from = paths[m.Target]
		}
		if from == "" {
			continue
		}
		at, err := mount.OpenInRoot(e.facts, root.FD(), m.Target, unix.O_PATH, 0)
		if fault.Is(err, fault.NotFound) && makePlace(root, m.Target, from) == nil {
			at, err = mount.OpenInRoot(e.facts, root.FD(), m.Target, unix.O_PATH, 0)
		}
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		err = attachOne(from, at, m.ReadOnly)
		unix.Close(at)
		if err != nil && !fault.Is(err, fault.NotFound) { // a bind's source may be gone
			return err
		}
	}
	return nil
}

// makePlace makes what something is to be mounted on: a directory, or an empty file for a file.
func makePlace(root *tree.Dir, target, source string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	to, err := root.Follow(strings.Trim(path.Clean("/"+target), "/"))
	if err != nil {
		return err
	}
	if info.IsDir() {
		return makeDirs(root, to)
	}
	parent, name := path.Split(strings.Trim(to, "/"))
	if err := makeDirs(root, parent); err != nil {
		return err
	}
	dir, _, err := root.Open(strings.Trim(parent, "/"))
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := dir.Create(name, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func attachOne(from string, at int, readOnly bool) error {
	fd, err := mount.OpenTree(unix.AT_FDCWD, from, true, true)
	if err != nil {
		return err
	}
	defer mount.Drop(fd)
	if readOnly {
		if err := mount.ReadOnly(fd); err != nil && !fault.Is(err, fault.NotImplemented) {
			return err
		}
	}
	return mount.Move(fd, at, "")
}

// spot is where a path leads in a view.
type spot struct {
	dir  *tree.Dir // holds it
	base string    // its name there; "" is dir itself
	name string    // as it was asked for
	stat tree.Stat
}

// find looks a path up as docker cp means it: a link at its end is not followed, unless a slash or "/." behind it says that a directory
// is meant.
func (v *view) find(ref, text string) (*spot, error) {
	missing := func(err error) error {
		if tree.Missing(err) || tree.NotDir(err) {
			return fault.New(fault.NotFound, "Could not find the file %s in container %s", text, ref)
		}
		return fault.In(err, "look for %s in container %s", text, ref)
	}
	clean := path.Clean("/" + text)
	s := &spot{name: path.Base(clean)}
	directory := strings.HasSuffix(text, "/") || strings.HasSuffix(text, "/.") || text == "." || text == ""
	if text != "" && path.Base(text) == "." { // "./" too
		s.name = "."
	}
	parent, base := path.Split(clean)
	if directory || base == "" {
		parent, base = clean, ""
	}
	var err error
	if s.dir, _, err = v.root.Open(strings.Trim(parent, "/")); err != nil {
		return nil, missing(err)
	}
	s.base = base
	if s.stat, err = s.dir.Stat(base); err != nil {
		s.dir.Close()
		return nil, missing(err)
	}
	return s, nil
}

// describe gives what clients are told of a spot.
func (v *view) describe(s *spot) PathStat {
	p := PathStat{Name: s.name, Size: s.stat.Size, Mode: tree.FileMode(s.stat.Mode), Modified: time.Unix(s.stat.Mtime.Sec, s.stat.Mtime.Nsec)}
	if s.stat.Type() != tree.TypeSymlink {
		return p
	}
	target, err := s.dir.Readlink(s.base)
	if err != nil {
		return p
	}
	if !path.IsAbs(target) {
		if here, err := s.dir.Real(v.root); err == nil {
			target = path.Join("/", here, target)
		}
	}
	p.LinkTarget = path.Clean("/" + target)
	// Where it leads to a directory, the way is followed to its end.
	if d, _, err := v.root.Open(strings.Trim(target, "/")); err == nil {
		if real, err := d.Real(v.root); err == nil {
			p.LinkTarget = path.Join("/", real)
		}
		d.Close()
	}
	return p
}

// StatPath describes a file of a container.
func (e *Engine) StatPath(ctx context.Context, ref, name string) (PathStat, error) {
	c, err := e.index.find(ref)
	if err != nil {
		return PathStat{}, err
	}
	v, err := e.view(ctx, c)
	if err != nil {
		return PathStat{}, err
	}
	defer v.close()
	s, err := v.find(ref, name)
	if err != nil {
		return PathStat{}, err
	}
	defer s.dir.Close()
	return v.describe(s), nil
}

// CopyFrom writes a file or directory of a container as a tar to what begin gives, once it is known that it is there.
func (e *Engine) CopyFrom(ctx context.Context, ref, name string, begin func(PathStat) (io.Writer, error)) error {
	c, err := e.index.find(ref)
	if err != nil {
		return err
	}
	v, err := e.view(ctx, c)
	if err != nil {
		return err
	}
	defer v.close()
	s, err := v.find(ref, name)
	if err != nil {
		return err
	}
	defer s.dir.Close()
	w, err := begin(v.describe(s))
	if err != nil {
		return err
	}
	e.tell(c, "archive-path", nil)
	o := archive.WriteOptions{Nanoseconds: true}
	owners, err := e.ownersAt(c.record(), v, s.dir)
	if err != nil {
		return err
	}
	if owners != nil {
		o.Owner = inside(owners)
		o.CapRoot, _, _ = owners.Root()
	}
	return archive.Tree(ctx, s.dir, s.base, s.name, w, o)
}

// CopyOptions say how an archive is unpacked into a container.
type CopyOptions struct {
	KeepKinds bool // a directory is not replaced by a file, nor the other way round
	Owned     bool // everything becomes the container's user's, if it has one
}

// CopyTo unpacks a tar into a directory of a container.
func (e *Engine) CopyTo(ctx context.Context, ref, dir string, r io.Reader, o CopyOptions) error {
	c, err := e.index.find(ref)
	if err != nil {
		return err
	}
	v, err := e.view(ctx, c)
	if err != nil {
		return err
	}
	defer v.close()
	at, _, err := v.root.Open(strings.Trim(path.Clean("/"+dir), "/"))
	switch {
	case tree.Missing(err):
		return fault.New(fault.NotFound, "Could not find the file %s in container %s", dir, ref)
	case tree.NotDir(err):
		return fault.New(fault.Invalid, "extraction point is not a directory")
	case err != nil:
		return fault.In(err, "copy to container %s", c.id)
	}
	defer at.Close()
	if err := mayWrite(c.record(), v, at); err != nil {
		return err
	}
	// As in Docker, "./" is the place where things go to: docker cp DIR/. C:/tmp does not make /tmp look like DIR.
	apply := archive.ApplyOptions{KeepKinds: o.KeepKinds, KeepRoot: true}
	if o.Owned && c.record().Spec.Process.User != "" { // as in Docker: without a user of its own, who owns it in the archive
		owner, err := e.ownerOf(c.record())
		if err != nil {
			return err
		}
		apply.Owner = owner
	}
	stream, err := compress.NewStream(r, "")
	if err != nil {
		return err
	}
	defer stream.Close()
	if err := e.applyAs(ctx, c.record(), v, at, stream, apply); err != nil {
		return err
	}
	e.tell(c, "extract-to-dir", nil)
	return nil
}

// mayWrite refuses what the container itself could not write: its root or the volume that the directory lies in may be read-only.
func mayWrite(r *container.Record, v *view, at *tree.Dir) error {
	real, err := at.Real(v.root)
	if err != nil {
		return fault.In(err, "copy to container %s", r.ID)
	}
	real = path.Join("/", real)
	in := mountAt(r, real)
	switch {
	case in != nil && in.ReadOnly:
		return fault.New(fault.Forbidden, "mounted volume is marked read-only")
	case in == nil && r.Spec.Security.ReadonlyRootfs:
		return fault.New(fault.Forbidden, "container rootfs is marked read-only")
	}
	return nil
}

// ownerOf makes everything the container's user's.
func (e *Engine) ownerOf(r *container.Record) (archive.OwnerFunc, error) {
	l, err := e.images.Layer(r.ID)
	if err != nil {
		return nil, err
	}
	u, err := e.lookupIn(l, r.ImageID, r.Spec.Process.User, nil)
	if err != nil {
		return nil, err
	}
	return func(_, _ uint32) (uint32, uint32) { return u.UID, u.GID }, nil
}

// Changes lists what differs between a container's files and its image.
func (e *Engine) Changes(ctx context.Context, ref string) ([]layer.Change, error) {
	c, err := e.index.find(ref)
	if err != nil {
		return nil, err
	}
	return e.images.Changes(ctx, c.id)
}

// Export writes a container's files, without its volumes, as a tar.
func (e *Engine) Export(ctx context.Context, ref string, w io.Writer) error {
	c, err := e.index.find(ref)
	if err != nil {
		return err
	}
	l, err := e.images.Layer(c.id)
	if err != nil {
		return err
	}
	// The container's own layer counts as one of the read-only ones here: a running container has it mounted for writing already.
	lower := slices.Concat([]string{l.Upper}, l.Lower)
	scratch, err := os.MkdirTemp(e.cfg.ExecRoot, "export-")
	if err != nil {
		return fault.In(err, "export")
	}
	defer os.Remove(scratch)
	fd, err := overlay.Stack{Lower: lower}.Mount(e.facts, scratch)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	root, err := tree.OpenFD(fd)
	if err != nil {
		return fault.In(err, "export")
	}
	defer root.Close()
	if err := archive.Tree(ctx, root, "", "", w, archive.WriteOptions{Nanoseconds: true}); err != nil {
		return err
	}
	e.tell(c, "export", nil)
	return nil
}

// clearCopies removes places of copies, and of working directories that were being made, that a killed engine left. What was mounted there went with it.
func (e *Engine) clearCopies() error {
	var errs []error
	for _, pattern := range []string{"copy-*", "export-*", "workdir-*"} {
		left, err := filepath.Glob(filepath.Join(e.cfg.ExecRoot, pattern))
		errs = append(errs, err)
		for _, dir := range left {
			errs = append(errs, os.Remove(dir))
		}
	}
	return errors.Join(errs...)
}

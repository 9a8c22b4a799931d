package layer

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/id"
	"berth/image/archive"
	"berth/kernel/overlay"
	"berth/kernel/tree"
)

// Mount is a container's root file system as overlayfs wants it.
type Mount struct {
	Lower       []string // directories, the topmost first; their names are short, but 125 of them fill most of a page
	Upper, Work string
	UserXattr   bool // mount with the userxattr option
}

// CreateOptions say how a container layer is made.
type CreateOptions struct {
	ImageID digest.Digest     // kept for whoever reads the directory
	Owner   archive.OwnerFunc // maps the root directory's owner, for containers in a user namespace
}

// container is a container layer.
type container struct {
	record containerRecord
	mount  Mount
}

// containerRecord is ROOT/c/ID/layer.json.
type containerRecord struct {
	Version  int             `json:"version"`
	ImageID  digest.Digest   `json:"imageID,omitempty"`
	Chain    []digest.Digest `json:"chain"`
	Skeleton string          `json:"skeleton"`
}

// Create makes a container's writable layer on top of a chain (diff ids, the lowest first) and holds the chain's
// diffs for it. On an id that exists it gives the same layer again, whatever was written to it. A missing diff is
// NotFound, a chain of more than MaxDepth Invalid.
func (s *Store) Create(ctx context.Context, containerID string, chain []digest.Digest, o CreateOptions) (Mount, error) {
	if !validContainerID(containerID) {
		return Mount{}, fault.New(fault.Invalid, "invalid container id %q", containerID)
	}
	if len(chain) > MaxDepth {
		return Mount{}, fault.New(fault.Invalid, "max depth exceeded")
	}
	s.mu.Lock()
	if c := s.containers[containerID]; c != nil {
		s.mu.Unlock()
		return c.mount, nil
	}
	err := s.shown(chain)
	if err == nil {
		err = s.retain(chain)
	}
	s.mu.Unlock()
	if err != nil {
		return Mount{}, err
	}
	c, err := s.makeContainer(containerID, chain, o)
	if err != nil {
		s.Release(chain...)
		s.trash.take(s.path("c", containerID))
		return Mount{}, fault.In(err, "create container layer")
	}
	s.mu.Lock()
	other := s.containers[containerID]
	if other == nil {
		s.containers[containerID] = c
	}
	s.mu.Unlock()
	if other != nil { // made by a second caller at the same time: the directory is the same, one hold is enough
		s.Release(chain...)
		return other.mount, nil
	}
	return c.mount, nil
}

func (s *Store) makeContainer(containerID string, chain []digest.Digest, o CreateOptions) (*container, error) {
	facts, err := s.facts(chain)
	if err != nil {
		return nil, err
	}
	dir := s.path("c", containerID)
	// A directory that is there without a container is one whose record was lost in a power cut: keep what was written.
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	d, err := tree.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	for _, name := range []string{"fs", "work"} {
		if err := d.Mkdir(name, 0o700); err != nil && !tree.Exists(err) {
			return nil, err
		}
	}
	a := facts.root
	if o.Owner != nil {
		a.UID, a.GID = o.Owner(a.UID, a.GID)
	}
	if a.UID != 0 || a.GID != 0 {
		if err := d.Chown("fs", int(a.UID), int(a.GID)); err != nil {
			return nil, err
		}
	}
	if err := d.Chmod("fs", a.Mode); err != nil {
		return nil, err
	}
	if err := failpoint.Hit("layer/before-record"); err != nil {
		return nil, err
	}
	r := containerRecord{Version: formatVersion, ImageID: o.ImageID, Chain: chain, Skeleton: facts.skeleton}
	if err := writeJSON(s.path("c", containerID, "layer.json"), &r); err != nil {
		return nil, err
	}
	return &container{record: r, mount: s.mountOf(containerID, facts)}, nil
}

func (s *Store) mountOf(containerID string, f *chainFacts) Mount {
	lower := make([]string, 0, len(f.lower)+1)
	lower = append(lower, s.path("s", f.skeleton, "fs"))
	return Mount{
		Lower: append(lower, f.lower...), Upper: s.path("c", containerID, "fs"), Work: s.path("c", containerID, "work"),
		UserXattr: s.cfg.UserXattr,
	}
}

// Get gives a container's layer. NotFound means that there is none, or none that is whole: Create makes it.
func (s *Store) Get(containerID string) (Mount, error) {
	c, err := s.container(containerID)
	if err != nil {
		return Mount{}, err
	}
	return c.mount, s.visible(c.record.Chain)
}

func (s *Store) container(containerID string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[containerID]; c != nil {
		return c, nil
	}
	return nil, fault.New(fault.NotFound, "no layer of container %s", containerID)
}

// Chain gives the diff ids a container was made on, the lowest first, and its image's id.
func (s *Store) Chain(containerID string) (chain []digest.Digest, imageID digest.Digest, err error) {
	c, err := s.container(containerID)
	if err != nil {
		return nil, "", err
	}
	return c.record.Chain, c.record.ImageID, nil
}

// Containers lists the ids that have a layer, so that the engine can remove those it does not know.
func (s *Store) Containers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]string, 0, len(s.containers))
	for id := range s.containers {
		list = append(list, id)
	}
	return list
}

// Remove takes a container's layer away at once; its files are deleted in the background. One that is not there is
// fine. Nothing may be mounted on it any more.
func (s *Store) Remove(containerID string) error {
	if !validContainerID(containerID) {
		return fault.New(fault.Invalid, "invalid container id %q", containerID)
	}
	if err := s.trash.take(s.path("c", containerID)); err != nil {
		return fault.In(err, "remove container layer")
	}
	s.mu.Lock()
	c := s.containers[containerID]
	delete(s.containers, containerID)
	s.mu.Unlock()
	if c != nil {
		s.Release(c.record.Chain...)
	}
	return nil
}

// recoverContainers reads all container layers. One without a readable record is no container; its directory
// stays until Create or Remove is called for it, as its files may be worth something.
func (s *Store) recoverContainers() error {
	names, err := os.ReadDir(s.path("c"))
	if err != nil {
		return err
	}
	for _, n := range names {
		var r containerRecord
		err := readJSON(s.path("c", n.Name(), "layer.json"), &r)
		if err == nil && (r.Version != formatVersion || !s.skeletons[r.Skeleton]) {
			err = errors.New("unknown version or skeleton")
		}
		if err == nil {
			err = s.retain(r.Chain)
		}
		if err != nil {
			s.log.Warn("container layer has no usable record", "container", n.Name(), "err", err)
			continue
		}
		f := &chainFacts{skeleton: r.Skeleton}
		shown, _ := s.stacked(r.Chain) // all are here: they are held
		for _, l := range shown {
			f.lower = append(f.lower, s.path("d", l.short, "fs"))
		}
		s.containers[n.Name()] = &container{record: r, mount: s.mountOf(n.Name(), f)}
	}
	return nil
}

// Usage tells how many bytes a container has written: the size of the files in its layer, each counted once.
func (s *Store) Usage(ctx context.Context, containerID string) (int64, error) {
	c, err := s.container(containerID)
	if err != nil {
		return 0, err
	}
	d, err := tree.OpenDir(c.mount.Upper)
	if err != nil {
		return 0, fault.In(err, "measure container layer")
	}
	defer d.Close()
	return diskUsage(ctx, d, map[[2]uint64]bool{})
}

func diskUsage(ctx context.Context, d *tree.Dir, seen map[[2]uint64]bool) (total int64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	names, err := d.Names()
	if err != nil {
		return 0, err
	}
	for _, n := range names {
		st, err := d.Stat(n)
		if tree.Missing(err) {
			continue
		}
		if err != nil {
			return total, err
		}
		if st.IsDir() {
			sub, err := d.Sub(n)
			if tree.Missing(err) {
				continue
			}
			if err != nil {
				return total, err
			}
			size, err := diskUsage(ctx, sub, seen)
			sub.Close()
			total += size
			if err != nil {
				return total, err
			}
			continue
		}
		if st.Nlink > 1 {
			key := [2]uint64{st.Dev, st.Ino}
			if seen[key] {
				continue
			}
			seen[key] = true
		}
		total += st.Size
	}
	return total, nil
}

// WithMount mounts a container's root, gives it to f and unmounts. The mount appears nowhere: f has it by
// descriptor. A read-only mount may be made while the container runs; a writable one only when it does not, because
// overlayfs does not allow two mounts with one upper directory.
func (s *Store) WithMount(ctx context.Context, containerID string, readOnly bool, f func(root *tree.Dir) error) error {
	c, err := s.container(containerID)
	if err != nil {
		return err
	}
	if err := s.visible(c.record.Chain); err != nil {
		return err
	}
	stack := overlay.Stack{Lower: c.mount.Lower, Upper: c.mount.Upper, Work: c.mount.Work, UserXattr: c.mount.UserXattr}
	if readOnly {
		stack = overlay.Stack{Lower: append([]string{c.mount.Upper}, c.mount.Lower...), UserXattr: c.mount.UserXattr}
	}
	return s.withStack(ctx, stack, f)
}

func (s *Store) withStack(ctx context.Context, stack overlay.Stack, f func(root *tree.Dir) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	root, err := s.attach(stack)
	if err != nil {
		return err
	}
	defer root.Close()
	return f(root)
}

// attach mounts a stack and gives its root, which holds the mount.
func (s *Store) attach(stack overlay.Stack) (*tree.Dir, error) {
	scratch := s.path("tmp", newName())
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return nil, fault.In(err, "mount layers")
	}
	defer os.Remove(scratch)
	fd, err := stack.Mount(s.cfg.Facts, scratch)
	if err != nil {
		return nil, fault.In(err, "mount layers")
	}
	root, err := tree.OpenFD(fd)
	tree.CloseFD(fd)
	return root, fault.In(err, "mount layers")
}

// Lower gives the directories of a chain, topmost first. They stay for as long as the chain is retained.
func (s *Store) Lower(chain []digest.Digest) ([]string, error) {
	if err := s.visible(chain); err != nil {
		return nil, err
	}
	facts, err := s.facts(chain)
	if err != nil {
		return nil, err
	}
	return facts.lower, nil
}

// WithChain mounts the diffs of a chain read-only and gives the root to f.
func (s *Store) WithChain(ctx context.Context, chain []digest.Digest, f func(root *tree.Dir) error) error {
	if err := s.Retain(chain...); err != nil {
		return err
	}
	defer s.Release(chain...)
	if err := s.visible(chain); err != nil {
		return err
	}
	facts, err := s.facts(chain)
	if err != nil {
		return err
	}
	switch len(facts.lower) {
	case 0:
		return fault.New(fault.Invalid, "no layers to mount")
	case 1: // overlayfs wants two; one is itself the tree
		root, err := tree.OpenDir(facts.lower[0])
		if err != nil {
			return fault.In(err, "open layer")
		}
		defer root.Close()
		return f(root)
	}
	return s.withStack(ctx, overlay.Stack{Lower: facts.lower, UserXattr: s.cfg.UserXattr}, f)
}

// Diff writes what a container has changed as a layer's tar.
func (s *Store) Diff(ctx context.Context, containerID string, w io.Writer, o archive.WriteOptions) error {
	c, err := s.container(containerID)
	if err != nil {
		return err
	}
	d, err := tree.OpenDir(c.mount.Upper)
	if err != nil {
		return fault.In(err, "read container layer")
	}
	defer d.Close()
	o.Whiteouts = s.whiteouts()
	return archive.Diff(ctx, d, w, o)
}

// Export writes a container's whole root as a tar.
func (s *Store) Export(ctx context.Context, containerID string, w io.Writer, o archive.WriteOptions) error {
	o.Whiteouts = archive.NoWhiteouts
	return s.WithMount(ctx, containerID, true, func(root *tree.Dir) error {
		return archive.Tree(ctx, root, "", "", w, o)
	})
}

// validContainerID accepts what can be a directory's name: ids, and the names that tests and builds give.
func validContainerID(s string) bool {
	if id.Valid(s) {
		return true
	}
	if s == "" || len(s) > 128 || s[0] == '.' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c != '-' && c != '_' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

package layer

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/tree"
)

// Space is room on the disk.
type Space struct {
	Count int   // of the things that it is the sum of
	Size  int64 // bytes as people count: the contents of files, each file once
	Disk  int64 // bytes of real blocks, with directories and bookkeeping: what du says
}

// Add adds another space.
func (s *Space) Add(o Space) { s.Count, s.Size, s.Disk = s.Count+o.Count, s.Size+o.Size, s.Disk+o.Disk }

// Usage is the room that a store takes. All of it together is what du says of the store's directory.
type Usage struct {
	Layers     map[digest.Digest]Space // each with its bookkeeping
	Containers map[string]Space        // writable layers by container
	Other      Space                   // skeletons, what is being unpacked or deleted, the store's own directories
}

// DiskUsage measures the store. Layers never change, so each is looked at once in the life of a Store; containers are looked at
// every time.
func (s *Store) DiskUsage(ctx context.Context) (*Usage, error) {
	u := &Usage{Layers: map[digest.Digest]Space{}, Containers: map[string]Space{}}
	s.mu.Lock()
	diffs := map[digest.Digest]*diff{}
	known := map[string]bool{"d": true, "c": true, "v": true}
	for name := range s.retired {
		known["v/"+name] = true
	}
	for d, l := range s.diffs {
		diffs[d] = l
		known["d/"+l.short] = true
	}
	for id := range s.containers {
		u.Containers[id] = Space{}
		known["c/"+id] = true
	}
	s.mu.Unlock()
	for d, l := range diffs {
		sp, err := s.layerSpace(ctx, l)
		if err != nil {
			return nil, err
		}
		u.Layers[d] = sp
	}
	for id := range u.Containers {
		sp, err := Measure(ctx, s.path("c", id))
		if err != nil {
			return nil, err
		}
		u.Containers[id] = sp
	}
	// What is left: the directories themselves and what stands in them besides.
	for _, dir := range []string{"", "d", "c", "v"} {
		if err := s.measureRest(ctx, dir, known, &u.Other); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// layerSpace measures a layer, or remembers what it measured.
func (s *Store) layerSpace(ctx context.Context, l *diff) (Space, error) {
	s.mu.Lock()
	disk, lazy, size := l.disk, l.info.Lazy, l.info.Size
	s.mu.Unlock()
	if lazy { // what is here of it lies with package lazy
		return Space{Count: 1, Size: size}, nil
	}
	if disk == 0 {
		sp, err := Measure(ctx, s.path("d", l.short))
		if err != nil {
			return Space{}, err
		}
		disk = sp.Disk
		s.mu.Lock()
		l.disk = disk
		s.mu.Unlock()
	}
	return Space{Count: 1, Size: l.info.Size, Disk: disk}, nil
}

// measureRest adds a directory of the store without those of its entries that are counted elsewhere.
func (s *Store) measureRest(ctx context.Context, dir string, known map[string]bool, sum *Space) error {
	d, err := tree.OpenDir(s.path(dir))
	if err != nil {
		return fault.In(err, "measure layers")
	}
	defer d.Close()
	st, err := d.Stat("")
	if err != nil {
		return fault.In(err, "measure layers")
	}
	sum.Disk += st.Blocks * 512
	names, err := d.Names()
	if err != nil {
		return fault.In(err, "measure layers")
	}
	for _, n := range names {
		if known[filepath.Join(dir, n)] {
			continue
		}
		sp, err := Measure(ctx, s.path(dir, n))
		if err != nil {
			return err
		}
		sum.Disk += sp.Disk
	}
	return nil
}

// Measure tells the room that a file or a directory with all that is in it takes; files with several links count once. What
// vanishes meanwhile is not counted. Count is 1.
func Measure(ctx context.Context, path string) (Space, error) {
	dir, err := tree.OpenDir(filepath.Dir(path))
	if err != nil {
		return Space{Count: 1}, fault.In(err, "measure %s", path)
	}
	defer dir.Close()
	for left := measureTries; ; left-- {
		sum := Space{Count: 1}
		m := &measure{ctx: ctx, sum: &sum, seen: map[uint64]bool{}}
		err := m.entry(dir, filepath.Base(path))
		if errors.Is(err, unix.ESTALE) && left > 1 {
			continue // a container that runs has moved a directory that we were deep in
		}
		return sum, fault.In(err, "measure %s", path)
	}
}

// measureTries is how often a tree is walked at most in which directories are moved meanwhile.
const measureTries = 3

type measure struct {
	ctx  context.Context // of one Measure
	sum  *Space
	seen map[uint64]bool // inodes with several links
	down tree.Descent
}

func (m *measure) entry(dir *tree.Dir, name string) error {
	st, err := dir.Stat(name)
	if tree.Missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !st.IsDir() {
		if st.Nlink > 1 {
			if m.seen[st.Ino] {
				return nil
			}
			m.seen[st.Ino] = true
		}
		m.sum.Disk += st.Blocks * 512
		m.sum.Size += st.Size
		return nil
	}
	if err := m.ctx.Err(); err != nil {
		return err
	}
	m.sum.Disk += st.Blocks * 512
	sub, err := m.down.Enter(dir, name)
	if tree.Missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer sub.Close()
	names, err := sub.Names()
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, n := range names {
		if err := m.entry(sub, n); err != nil {
			return err
		}
	}
	return m.down.Leave(sub)
}

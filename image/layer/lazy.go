package layer

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/kernel/mount"
	"berth/kernel/tree"
)

// A lazy diff stands in d like any other, but its fs is empty and something is mounted on it that shows the tree: a view. Package
// lazy makes and serves views; this file is the seam. Complete puts the unpacked diff into the lazy one's place: names
// are exchanged at once, so that whoever mounts the chain finds one or the other. Containers that run keep the view, which
// overlayfs holds by itself.
//
//	ROOT/d/SHORT/layer.json  with "lazy": true
//	ROOT/d/SHORT/fs          the view's mount point
//	ROOT/v/NAME/fs           the same of a diff that has been completed, for a moment: see retire

// Lazy is who shows diffs that are not unpacked.
type Lazy interface {
	// Whole waits until the diff is an ordinary one, and has it made one soon.
	Whole(ctx context.Context, d digest.Digest) error
	// Dropped says that the diff has left the store and its view the mount table.
	Dropped(d digest.Digest)
}

// ServeLazy plugs in who shows lazy diffs. It is called once, before containers are made. Until then, and for a diff that is not
// shown, Create and Get answer Unavailable.
func (s *Store) ServeLazy(l Lazy) {
	s.mu.Lock()
	s.lazy = l
	s.mu.Unlock()
}

// LazyDiffs lists the diffs that are not unpacked.
func (s *Store) LazyDiffs() []digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []digest.Digest
	for d, l := range s.diffs {
		if l.info.Lazy {
			list = append(list, d)
		}
	}
	return list
}

// HasWhole reports whether the diff is there and unpacked: its content was compared with its id, which nobody can say of a lazy one.
func (s *Store) HasWhole(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.diffs[d]
	return l != nil && !l.info.Lazy
}

// FSPath is where a diff's tree is, or would be.
func (s *Store) FSPath(d digest.Digest) string { return s.path("d", shortName(d), "fs") }

// AdmitLazy puts a lazy diff into the store, durably, with a hold for the caller. show mounts its view at a path that
// does not have the diff's name yet. A diff that the store has already is held, and added tells that it was not.
func (s *Store) AdmitLazy(info Info, show func(path string) error) (added bool, err error) {
	if err := info.DiffID.Validate(); err != nil {
		return false, fault.Wrap(fault.Invalid, err, "diff id %q", info.DiffID)
	}
	if held, err := s.retainDurable(info.DiffID); held || err != nil {
		return false, err
	}
	info.Version, info.Lazy = formatVersion, true
	dir := s.path("tmp", newName())
	if err := s.makeLazy(dir, &info, show); err != nil {
		s.dropLazy(dir)
		return false, fault.In(err, "admit lazy layer %s", info.DiffID)
	}
	added, err = s.admitLazy(dir, info)
	if !added || err != nil {
		s.dropLazy(dir)
	}
	if !added && err == nil { // sealed here meanwhile
		err = s.Durable(context.Background(), info.DiffID)
	}
	return added, fault.In(err, "admit lazy layer %s", info.DiffID)
}

// retainDurable takes a hold on a diff that the store has, and waits until it is durable.
func (s *Store) retainDurable(d digest.Digest) (held bool, err error) {
	if s.Retain(d) != nil {
		return false, nil
	}
	if err := s.Durable(context.Background(), d); err != nil {
		s.Release(d)
		return false, err
	}
	return true, nil
}

func (s *Store) makeLazy(dir string, info *Info, show func(path string) error) error {
	fs, err := makeDir(dir, "fs")
	if err != nil {
		return err
	}
	fs.Close()
	text, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(dir, "layer.json"), append(text, '\n'), 0o600); err != nil {
		return err
	}
	return show(filepath.Join(dir, "fs"))
}

// dropLazy takes away a lazy diff's directory that has no name in d.
func (s *Store) dropLazy(dir string) {
	err := mount.Unmount(filepath.Join(dir, "fs"))
	if err == nil {
		err = s.trash.take(dir)
	}
	if err != nil {
		s.log.Warn("delete lazy layer; tried again at the next start", "err", err)
	}
}

func (s *Store) admitLazy(dir string, info Info) (bool, error) {
	short := shortName(info.DiffID)
	s.naming.Lock()
	defer s.naming.Unlock()
	if s.Retain(info.DiffID) == nil {
		return false, nil
	}
	if err := s.clearName(info.DiffID, short); err != nil {
		return false, err
	}
	if err := os.Rename(dir, s.path("d", short)); err != nil {
		return false, err
	}
	s.mu.Lock()
	s.diffs[info.DiffID] = &diff{info: info, short: short, holds: 1, shown: true}
	s.mu.Unlock()
	return true, atomicfile.SyncDir(s.path("d"))
}

// Shown says that a lazy diff of an earlier process is shown again, or no longer.
func (s *Store) Shown(d digest.Digest, shown bool) {
	s.mu.Lock()
	if l := s.diffs[d]; l != nil {
		l.shown = shown
	}
	s.mu.Unlock()
}

// Complete puts a staged diff into the place of the lazy one of its id, durably, and takes the view from the mount table. A
// diff that has left the store meanwhile, or is not lazy any more, is no error: the staged one is dropped.
func (s *Store) Complete(st *Staged) error {
	if err := failpoint.Hit("layer/before-complete"); err != nil {
		return err
	}
	if err := s.disk.sync(st.since); err != nil {
		return fault.In(err, "complete layer %s", st.DiffID)
	}
	s.naming.Lock()
	defer s.naming.Unlock()
	return fault.In(s.complete(st), "complete layer %s", st.DiffID)
}

// complete is Complete; naming is held and the staged diff is durable.
func (s *Store) complete(st *Staged) error {
	s.mu.Lock()
	l := s.diffs[st.DiffID]
	s.mu.Unlock()
	if l == nil || !l.info.Lazy {
		st.Drop()
		return nil
	}
	place := s.path("d", l.short)
	err := tree.Exchange(st.dir, place)
	if tree.Unsupported(err) { // then there is a moment without the name
		aside := s.path("tmp", newName())
		if err = os.Rename(place, aside); err == nil {
			if err = os.Rename(st.dir, place); err != nil {
				os.Rename(aside, place)
			} else {
				st.dir = aside
			}
		}
	}
	if err != nil {
		return err
	}
	old := st.dir
	st.dir = ""
	s.mu.Lock()
	l.info, l.disk, l.shown = st.info, 0, false
	clear(s.chains)
	s.mu.Unlock()
	s.retire(old)
	if err := failpoint.Hit("layer/after-complete"); err != nil {
		return err
	}
	return atomicfile.SyncDir(s.path("d"))
}

// retireAfter is how long a view stays mounted after its diff was completed. Who mounts an overlay has looked the directory up
// a moment before he makes the file system, which fails (EINVAL) when the view was unmounted in between.
const retireAfter = 2 * time.Second

// retire takes a directory that was exchanged away later: a view is mounted in it.
func (s *Store) retire(dir string) {
	name := newName()
	if err := os.Rename(dir, s.path("v", name)); err != nil {
		s.log.Warn("put lazy layer aside", "err", err)
		s.dropLazy(dir)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retired == nil { // closed
		return
	}
	s.retired[name] = time.AfterFunc(retireAfter, func() { s.dropRetired(name) })
}

func (s *Store) dropRetired(name string) {
	s.mu.Lock()
	_, ours := s.retired[name]
	if ours {
		delete(s.retired, name)
		s.retiring.Add(1)
	}
	s.mu.Unlock()
	if ours {
		defer s.retiring.Done()
		s.dropLazy(s.path("v", name))
	}
}

// closeRetired unmounts at once what was to be unmounted later: nobody mounts anything any more.
func (s *Store) closeRetired() {
	s.mu.Lock()
	retired := s.retired
	s.retired = nil
	s.mu.Unlock()
	for name, timer := range retired {
		timer.Stop()
		s.dropLazy(s.path("v", name))
	}
	s.retiring.Wait()
}

// Whole waits until diffs are unpacked, which lazy ones are not; only then is the size of their tars known. The caller holds them.
func (s *Store) Whole(ctx context.Context, chain ...digest.Digest) error {
	for _, d := range chain {
		if err := s.whole(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// whole waits for a diff to be unpacked. The caller holds it.
func (s *Store) whole(ctx context.Context, d digest.Digest) error {
	s.mu.Lock()
	l, lazy := s.diffs[d], s.lazy
	wait := l != nil && l.info.Lazy
	s.mu.Unlock()
	switch {
	case !wait:
		return nil
	case lazy == nil:
		return notShown(d)
	}
	return lazy.Whole(ctx, d)
}

// visible is shown for who does not hold mu.
func (s *Store) visible(chain []digest.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown(chain)
}

// shown checks that all diffs of a chain can be seen. mu is held.
func (s *Store) shown(chain []digest.Digest) error {
	for _, d := range chain {
		if l := s.diffs[d]; l != nil && l.info.Lazy && !l.shown {
			return notShown(d)
		}
	}
	return nil
}

func notShown(d digest.Digest) error {
	return fault.New(fault.Unavailable, "layer %s was not fetched to its end and cannot be served as it is: pull its image again", d)
}

// dropView takes the view of a diff that leaves the store from the mount table.
func (s *Store) dropView(l *diff) {
	if err := mount.Unmount(s.path("d", l.short, "fs")); err != nil {
		s.log.Warn("unmount lazy layer", "layer", l.info.DiffID, "err", err)
	}
}

// clearMounts takes away what a process that was killed left mounted where nothing is to be. It goes by name, as the mount table
// has other paths where links lead to the store.
func (s *Store) clearMounts() error {
	for _, dir := range []string{"tmp", "trash", "v"} {
		names, err := os.ReadDir(s.path(dir))
		if err != nil {
			return err
		}
		for _, n := range names {
			err := mount.Unmount(s.path(dir, n.Name(), "fs"))
			if err != nil && !fault.Is(err, fault.Forbidden) { // whoever may not unmount has not mounted
				return err
			}
		}
	}
	return nil
}

// OpaqueAttr is the extended attribute that marks opaque directories in this store.
func (s *Store) OpaqueAttr() string { return s.whiteouts().OpaqueAttr() }

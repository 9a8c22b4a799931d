package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/kernel/tree"
)

// Verified is what Verify found out.
type Verified struct {
	Bytes   int64 // of the tar that was built anew
	Rebuilt bool  // the tar is as it was: what differs can be made from the layer itself, see Restage
	Partly  error // why only the contents of files were compared; nil: everything was
}

// Verify builds a layer's tar anew and compares its digest, which tells that the contents of all files are whole; then it
// unpacks that tar beside the layer and compares the trees, which tells the rest: names, owners, modes, times, attributes,
// links. Damage is Internal. It changes nothing.
func (s *Store) Verify(ctx context.Context, d digest.Digest) (Verified, error) {
	v := Verified{}
	if info, err := s.Stat(d); err != nil || info.Lazy {
		return v, err // there is nothing here yet that could be damaged
	}
	st, err := s.restage(ctx, d, &v.Bytes)
	var e *environment
	if errors.As(err, &e) && ctx.Err() == nil {
		// No verdict on the layer, as it is on what it was unpacked to: a disk that is full.
		w := &counting{w: io.Discard}
		err := s.Tar(ctx, d, w)
		v.Bytes, v.Rebuilt, v.Partly = w.n, err == nil, e.error
		return v, err
	}
	if err != nil {
		return v, err
	}
	defer st.Drop()
	v.Rebuilt = true
	s.mu.Lock()
	l := s.diffs[d]
	s.mu.Unlock()
	if l == nil {
		return v, missing(d)
	}
	if diff, err := s.compare(ctx, s.path("d", l.short), st.dir); err != nil {
		return v, err
	} else if diff != "" {
		return v, fault.New(fault.Internal, "layer %s is damaged on disk: %s", d, diff)
	}
	if !sameInfo(l.info, st.info) {
		return v, fault.New(fault.Internal, "layer %s is damaged on disk: layer.json does not describe it", d)
	}
	return v, nil
}

func sameInfo(a, b Info) bool {
	return a.Size == b.Size && a.TarSize == b.TarSize && a.OpaqueRoot == b.OpaqueRoot && slices.Equal(a.Implied, b.Implied) && slices.Equal(a.Shadows, b.Shadows) &&
		(a.Root == nil) == (b.Root == nil) && (a.Root == nil || *a.Root == *b.Root)
}

// Restage stages a layer from its own files: the same with its attributes as they were. It fails when the files are damaged.
func (s *Store) Restage(ctx context.Context, d digest.Digest) (*Staged, error) {
	return s.restage(ctx, d, nil)
}

func (s *Store) restage(ctx context.Context, d digest.Digest, count *int64) (*Staged, error) {
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		w := &counting{w: pw}
		err := s.Tar(ctx, d, w)
		if count != nil {
			*count = w.n
		}
		done <- err
		pw.CloseWithError(err)
	}()
	st, err := s.Stage(ctx, pr, d)
	pr.CloseWithError(context.Canceled)
	terr := <-done
	switch {
	case err == nil:
		return st, nil
	case terr == nil || errors.Is(terr, context.Canceled) && ctx.Err() == nil:
		return nil, &environment{err}
	}
	return nil, terr // what is wrong, rather than what followed from it
}

// environment is an error of unpacking what was built from a layer, rather than of building it.
type environment struct{ error }

func (e *environment) Unwrap() error { return e.error }

type counting struct {
	w io.Writer
	n int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// Replace puts a staged layer in the place of the damaged one with its id, or where that is lost, durably. Holds stay as they
// are; the caller knows that nobody has the layer mounted.
func (s *Store) Replace(st *Staged) error {
	if err := s.disk.sync(st.since); err != nil {
		return fault.In(err, "replace layer")
	}
	short := shortName(st.DiffID)
	s.naming.Lock()
	defer s.naming.Unlock()
	s.mu.Lock()
	l := s.diffs[st.DiffID]
	s.mu.Unlock()
	place := s.path("d", short)
	if l == nil {
		if err := s.clearName(st.DiffID, short); err != nil {
			return err
		}
		if err := os.Rename(st.dir, place); err != nil {
			return fault.In(err, "replace layer")
		}
	} else if err := s.swap(st.dir, place); err != nil {
		return fault.In(err, "replace layer")
	}
	st.dir = ""
	s.mu.Lock()
	if l == nil {
		l = &diff{short: short}
		s.diffs[st.DiffID] = l
	}
	l.info, l.disk, l.since = st.info, 0, st.since
	clear(s.chains)
	s.mu.Unlock()
	return fault.In(atomicfile.SyncDir(s.path("d")), "replace layer")
}

// swap puts a directory in another's place, at once where the file system can: whoever dies here leaves the one or the other, and a
// damaged layer may still be whole enough to be repaired from itself. The other one goes to the trash.
func (s *Store) swap(dir, place string) error {
	err := tree.Exchange(dir, place)
	if err == nil {
		return s.trash.take(dir)
	}
	if !tree.Unsupported(err) && !tree.Missing(err) {
		return err
	}
	if err := s.trash.take(place); err != nil {
		return err
	}
	return os.Rename(dir, place)
}

// Holds tells how often a layer is held.
func (s *Store) Holds(d digest.Digest) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.diffs[d]; l != nil {
		return l.holds
	}
	return 0
}

// Place is where a layer stands, or would: a path below the store.
func (s *Store) Place(d digest.Digest) string { return "d/" + shortName(d) }

// Unknown lists what lies where layers and containers do and is none: paths below the store.
func (s *Store) Unknown() ([]string, error) {
	s.naming.Lock()
	defer s.naming.Unlock()
	s.mu.Lock()
	known := map[string]bool{}
	for _, l := range s.diffs {
		known[l.short] = true
	}
	s.mu.Unlock()
	names, err := os.ReadDir(s.path("d"))
	if err != nil {
		return nil, fault.In(err, "list layers")
	}
	var list []string
	for _, n := range names {
		if !known[n.Name()] {
			list = append(list, "d/"+n.Name())
		}
	}
	return list, nil
}

// RemoveUnknown deletes what Unknown told.
func (s *Store) RemoveUnknown(path string) error {
	list, err := s.Unknown()
	if err != nil {
		return err
	}
	if !slices.Contains(list, path) || !filepath.IsLocal(path) {
		return nil
	}
	return s.trash.take(s.path(path))
}

// compare tells the first difference of two unpacked layers, "" when there is none. The contents of files are not compared.
func (s *Store) compare(ctx context.Context, have, want string) (string, error) {
	c := &treeComparison{ctx: ctx}
	for _, dir := range []string{"fs", "shadow"} {
		a, err := tree.OpenDir(filepath.Join(have, dir))
		b, berr := tree.OpenDir(filepath.Join(want, dir))
		diff := ""
		switch {
		case err == nil && berr == nil:
			diff, err = c.dir("", a, b)
		case tree.Missing(err) && tree.Missing(berr):
			err = nil
		case tree.Missing(err) || tree.Missing(berr):
			diff, err = dir+" is missing, or there is one too many", nil
		default:
			err = fault.In(err, "compare layers")
		}
		if a != nil {
			a.Close()
		}
		if b != nil {
			b.Close()
		}
		if diff != "" || err != nil {
			return diff, err
		}
	}
	return "", nil
}

type treeComparison struct{ ctx context.Context }

func (c *treeComparison) dir(path string, have, want *tree.Dir) (string, error) {
	if err := c.ctx.Err(); err != nil {
		return "", err
	}
	if diff, err := c.attributes(path, "", have, want); diff != "" || err != nil {
		return diff, err
	}
	a, err := have.Names()
	if err != nil {
		return "", err
	}
	b, err := want.Names()
	if err != nil {
		return "", err
	}
	slices.Sort(a)
	slices.Sort(b)
	for _, n := range b {
		if _, ok := slices.BinarySearch(a, n); !ok {
			return fmt.Sprintf("%s is missing", path+"/"+n), nil
		}
	}
	for _, n := range a {
		if _, ok := slices.BinarySearch(b, n); !ok {
			return fmt.Sprintf("%s does not belong to it", path+"/"+n), nil
		}
		if diff, err := c.entry(path+"/"+n, n, have, want); diff != "" || err != nil {
			return diff, err
		}
	}
	return "", nil
}

func (c *treeComparison) entry(path, name string, have, want *tree.Dir) (string, error) {
	st, err := want.Stat(name)
	if err != nil {
		return "", err
	}
	if !st.IsDir() {
		return c.attributes(path, name, have, want)
	}
	if now, err := have.Stat(name); err != nil || !now.IsDir() {
		return path + " is no directory", err
	}
	a, err := have.Sub(name)
	if err != nil {
		return "", err
	}
	defer a.Close()
	b, err := want.Sub(name)
	if err != nil {
		return "", err
	}
	defer b.Close()
	return c.dir(path, a, b)
}

func (c *treeComparison) attributes(path, name string, have, want *tree.Dir) (string, error) {
	if path == "" {
		path = "/"
	}
	a, err := have.Stat(name)
	if err != nil {
		return "", err
	}
	b, err := want.Stat(name)
	if err != nil {
		return "", err
	}
	switch {
	case a.Mode != b.Mode:
		return fmt.Sprintf("%s has the mode %o, not %o", path, a.Mode, b.Mode), nil
	case a.UID != b.UID || a.GID != b.GID:
		return fmt.Sprintf("%s belongs to %d:%d, not %d:%d", path, a.UID, a.GID, b.UID, b.GID), nil
	case a.Major != b.Major || a.Minor != b.Minor:
		return path + " is another device", nil
	case !a.IsDir() && !a.IsWhiteout() && (a.Size != b.Size || a.Nlink != b.Nlink): // overlayfs links its whiteouts to each other
		return fmt.Sprintf("%s has %d bytes and %d links, not %d and %d", path, a.Size, a.Nlink, b.Size, b.Nlink), nil
	case !a.IsWhiteout() && path != "/" && a.Mtime != b.Mtime && !implied(a, b):
		return path + " has another time", nil
	}
	if a.Type() == tree.TypeSymlink {
		x, err := have.Readlink(name)
		if err != nil {
			return "", err
		}
		y, err := want.Readlink(name)
		if err != nil || x != y {
			return path + " leads elsewhere", err
		}
		return "", nil
	}
	return c.xattrs(path, name, have, want)
}

// implied reports directories whose time nobody has set: made for an entry below, or by a whiteout, both times are those of the
// unpacking.
func implied(a, b tree.Stat) bool { return a.IsDir() && a.Mtime.Nsec != 0 && b.Mtime.Nsec != 0 }

func (c *treeComparison) xattrs(path, name string, have, want *tree.Dir) (string, error) {
	a, err := have.Xattrs(name)
	if err != nil {
		return "", err
	}
	b, err := want.Xattrs(name)
	if err != nil {
		return "", err
	}
	// A security module labels files as it likes; overlayfs's origin only tells it where deletions are, and layers of earlier versions have none.
	foreign := func(n string) bool {
		return strings.HasPrefix(n, "security.") && n != "security.capability" || n == "trusted.overlay.origin" || n == "user.overlay.origin"
	}
	a, b = slices.DeleteFunc(a, foreign), slices.DeleteFunc(b, foreign)
	slices.Sort(a)
	slices.Sort(b)
	if !slices.Equal(a, b) {
		return fmt.Sprintf("%s has the attributes %q, not %q", path, a, b), nil
	}
	for _, n := range a {
		x, _, err := have.Xattr(name, n)
		if err != nil {
			return "", err
		}
		y, _, err := want.Xattr(name, n)
		if err != nil {
			return "", err
		}
		if !bytes.Equal(x, y) {
			return fmt.Sprintf("%s has another %s", path, n), nil
		}
	}
	return "", nil
}

package archive

import (
	"bytes"
	"context"
	"io"
	"path"
	"slices"

	"berth/base/fault"
	"berth/kernel/tree"
)

// Between writes what makes upper out of lower, two trees of any origin, as a layer's archive: what upper has that lower has not or
// has otherwise, whiteouts for what it has not, and the directories on the way. Files that look alike, have one size and
// one time are compared byte by byte.
func Between(ctx context.Context, lower, upper *tree.Dir, w io.Writer, o WriteOptions) error {
	o.Whiteouts = NoWhiteouts // trees have no marks; those written here come from the comparison
	b := &between{treeWriter: newTreeWriter(ctx, w, o), other: make([]byte, 128<<10)}
	if err := b.dir(lower, upper, ""); err != nil {
		return err
	}
	return b.tw.Close()
}

type between struct {
	*treeWriter
	other   []byte
	pending []func() error // headers of the directories above that are alike, written with the first difference in them
}

// dir compares two directories of one name.
func (b *between) dir(lower, upper *tree.Dir, name string) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	was, err := lower.Names()
	if err != nil {
		return err
	}
	now, err := upper.Names()
	if err != nil {
		return err
	}
	names := append(was, now...)
	slices.Sort(names)
	for _, n := range slices.Compact(names) {
		if err := b.name(lower, upper, n, join(name, n)); err != nil {
			return fault.At(err, "compare %q", join(name, n))
		}
	}
	return nil
}

func (b *between) name(lower, upper *tree.Dir, base, name string) error {
	was, had, err := statOrNone(lower, base)
	if err != nil {
		return err
	}
	now, has, err := statOrNone(upper, base)
	switch {
	case err != nil || !had && !has:
		return err
	case !has:
		if err := b.flush(); err != nil {
			return err
		}
		return b.whiteout(&was, path.Join(path.Dir(name), whiteoutPrefix+base))
	case had && was.IsDir() && now.IsDir():
		return b.both(lower, upper, base, name, &was, &now)
	case had:
		same, err := b.same(lower, upper, base, &was, &now)
		if err != nil || same {
			return err
		}
	}
	if err := b.flush(); err != nil {
		return err
	}
	return b.entry(upper, base, name)
}

// statOrNone describes a name; names that only show because directories are not merged are none.
func statOrNone(d *tree.Dir, base string) (tree.Stat, bool, error) {
	st, err := d.Stat(base)
	if tree.Missing(err) {
		return st, false, nil
	}
	return st, err == nil && !st.IsWhiteout(), err
}

// both compares what is in two directories, after their looks.
func (b *between) both(lower, upper *tree.Dir, base, name string, was, now *tree.Stat) error {
	l, err := lower.Sub(base)
	if err != nil {
		return err
	}
	defer l.Close()
	u, err := upper.Sub(base)
	if err != nil {
		return err
	}
	defer u.Close()
	write := func() error { return b.header(u, "", name, now) }
	mark := len(b.pending)
	b.pending = append(b.pending, write)
	same := sameLooks(was, now)
	if same {
		if same, err = sameAttributes(own{l}, own{u}); err != nil {
			return err
		}
	}
	if !same {
		if err := b.flush(); err != nil {
			return err
		}
	}
	if err := b.dir(l, u, name); err != nil {
		return err
	}
	b.pending = b.pending[:min(mark, len(b.pending))]
	return nil
}

func (b *between) flush() error {
	for _, write := range b.pending {
		if err := write(); err != nil {
			return err
		}
	}
	b.pending = b.pending[:0]
	return nil
}

// same reports whether two names, not both directories, are the same in all that an archive tells.
func (b *between) same(lower, upper *tree.Dir, base string, was, now *tree.Stat) (bool, error) {
	if !sameLooks(was, now) || was.Mtime != now.Mtime || was.Size != now.Size {
		return false, nil
	}
	switch now.Type() {
	case tree.TypeSymlink:
		x, err := lower.Readlink(base)
		if err != nil {
			return false, err
		}
		y, err := upper.Readlink(base)
		return x == y, err
	case tree.TypeRegular:
		return b.sameFile(lower, upper, base)
	}
	return true, nil
}

func (b *between) sameFile(lower, upper *tree.Dir, base string) (bool, error) {
	x, st, err := lower.OpenEntry(base)
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, _, err := upper.OpenEntry(base)
	if err != nil {
		return false, err
	}
	defer y.Close()
	if same, err := sameAttributes(x, y); !same {
		return false, err
	}
	for at := int64(0); at < st.Size; {
		if err := b.ctx.Err(); err != nil {
			return false, err
		}
		n := min(st.Size-at, int64(len(b.other)))
		if _, err := x.ReadAt(b.buf[:n], at); err != nil {
			return false, err
		}
		if _, err := y.ReadAt(b.other[:n], at); err != nil {
			return false, err
		}
		if !bytes.Equal(b.buf[:n], b.other[:n]) {
			return false, nil
		}
		at += n
	}
	return true, nil
}

func sameAttributes(a, b withXattrs) (bool, error) {
	x, err := portableXattrs(a)
	if err != nil {
		return false, err
	}
	y, err := portableXattrs(b)
	return err == nil && equalRecords(x.pax, y.pax), err
}

package layer

import (
	"context"
	"errors"
	"slices"

	"berth/base/fault"
	"berth/kernel/tree"
)

// Kind is the kind of a change, in the numbers of Docker's API.
type Kind int

// The kinds.
const (
	Modified Kind = 0
	Added    Kind = 1
	Deleted  Kind = 2
)

// String gives the letter that people see: C, A or D.
func (k Kind) String() string { return string("CAD"[k]) }

// Change is one path that differs from the image.
type Change struct {
	Path string // absolute, as in the container
	Kind Kind
}

// Changes compares a container's layer with what lies below and lists the differences, sorted by path. A directory is
// Modified when something in it is, as docker diff has it.
func (s *Store) Changes(ctx context.Context, containerID string) ([]Change, error) {
	c, err := s.container(containerID)
	if err == nil {
		err = s.visible(c.record.Chain)
	}
	if err != nil {
		return nil, err
	}
	var dirs []*tree.Dir
	defer func() {
		for _, d := range dirs {
			d.Close()
		}
	}()
	for _, path := range append([]string{c.mount.Upper}, c.mount.Lower...) {
		d, err := tree.OpenDir(path)
		if err != nil {
			return nil, fault.In(err, "compare layers")
		}
		dirs = append(dirs, d)
	}
	cmp := &comparison{ctx: ctx, opaque: s.whiteouts().OpaqueAttr()}
	if err := cmp.dir("", dirs[0], dirs[1:]); err != nil {
		return nil, fault.In(err, "compare layers")
	}
	slices.SortFunc(cmp.list, func(a, b Change) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	return cmp.list, nil
}

type comparison struct {
	ctx    context.Context
	opaque string
	list   []Change
}

func (c *comparison) add(path string, k Kind) {
	c.list = append(c.list, Change{Path: path, Kind: k})
}

// dir compares one directory of the upper tree with the same directory in the lower trees that show there, the topmost first.
func (c *comparison) dir(path string, upper *tree.Dir, lower []*tree.Dir) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	names, err := upper.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := c.name(path+"/"+n, n, upper, lower); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) name(path, name string, upper *tree.Dir, lower []*tree.Dir) error {
	now, err := upper.Stat(name)
	if tree.Missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	was, at, err := below(lower, name)
	if err != nil {
		return err
	}
	existed := at >= 0
	switch {
	case now.IsWhiteout():
		if existed {
			c.add(path, Deleted)
		}
		return nil
	case !now.IsDir():
		if !existed {
			c.add(path, Added)
		} else if differs(&was, &now) || c.capabilityDiffers(upper, lower[at], name, &now) {
			c.add(path, Modified)
		}
		return nil
	}
	return c.subdir(path, name, upper, lower, &now, &was, at)
}

// subdir compares a directory that the upper tree has; at is the lower tree that has something of its name, or -1.
func (c *comparison) subdir(path, name string, upper *tree.Dir, lower []*tree.Dir, now, was *tree.Stat, at int) error {
	sub, err := upper.Sub(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	var shown []*tree.Dir
	defer func() {
		for _, d := range shown {
			d.Close()
		}
	}()
	existed := at >= 0
	if existed && was.IsDir() {
		if shown, err = c.descend(lower[at:], name); err != nil {
			return err
		}
	}
	mark := len(c.list)
	hidden, _, err := sub.Xattr("", c.opaque)
	if err != nil {
		return err
	}
	if string(hidden) == "y" && len(shown) > 0 {
		err = c.replaced(path, sub, shown)
	} else {
		err = c.dir(path, sub, shown)
	}
	if err != nil {
		return err
	}
	switch {
	case !existed:
		c.add(path, Added)
	case differs(was, now) || len(c.list) > mark:
		c.add(path, Modified)
	}
	return nil
}

// replaced compares a directory that hides the one below: what only the hidden one has is deleted.
func (c *comparison) replaced(path string, upper *tree.Dir, lower []*tree.Dir) error {
	if err := c.dir(path, upper, lower); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, l := range lower {
		names, err := l.Names()
		if err != nil {
			return err
		}
		for _, n := range names {
			if seen[n] {
				continue
			}
			seen[n] = true
			st, err := l.Stat(n)
			if err != nil || st.IsWhiteout() {
				continue
			}
			if _, err := upper.Stat(n); tree.Missing(err) {
				c.add(path+"/"+n, Deleted)
			}
		}
	}
	return nil
}

// below finds what shows of a name: in which of the lower trees, or -1.
func below(lower []*tree.Dir, name string) (st tree.Stat, at int, err error) {
	for i, d := range lower {
		st, err = d.Stat(name)
		if tree.Missing(err) {
			continue
		}
		if err != nil {
			return st, -1, err
		}
		if st.IsWhiteout() {
			return st, -1, nil
		}
		return st, i, nil
	}
	return tree.Stat{}, -1, nil
}

// descend opens the directory called name in those trees that show there together.
func (c *comparison) descend(lower []*tree.Dir, name string) (shown []*tree.Dir, err error) {
	for _, d := range lower {
		st, err := d.Stat(name)
		if tree.Missing(err) {
			continue
		}
		if err != nil {
			return shown, err
		}
		if !st.IsDir() {
			break // a whiteout or a file ends what is merged
		}
		sub, err := d.Sub(name)
		if err != nil {
			return shown, err
		}
		shown = append(shown, sub)
		v, _, err := sub.Xattr("", c.opaque)
		if err != nil {
			return shown, err
		}
		if string(v) == "y" {
			break
		}
	}
	return shown, nil
}

// differs compares what docker diff compares: for directories not the time, which changes with every name in it.
func differs(was, now *tree.Stat) bool {
	if was.Mode != now.Mode || was.UID != now.UID || was.GID != now.GID || was.Major != now.Major || was.Minor != now.Minor {
		return true
	}
	return !now.IsDir() && (was.Size != now.Size || was.Mtime != now.Mtime)
}

func (c *comparison) capabilityDiffers(upper, lower *tree.Dir, name string, st *tree.Stat) bool {
	if st.Type() != tree.TypeRegular {
		return false
	}
	now, _, err1 := upper.Xattr(name, "security.capability")
	was, _, err2 := lower.Xattr(name, "security.capability")
	return errors.Join(err1, err2) == nil && string(now) != string(was)
}

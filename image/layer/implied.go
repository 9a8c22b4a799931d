package layer

import (
	"strings"

	"berth/kernel/tree"
)

// A layer's tar may have an entry for usr/bin/x and none for usr and usr/bin: those directories are implied, and
// mean "whatever it is below". On disk they must look like something (root:root 0755), and overlayfs shows the topmost
// directory's looks, so /tmp would lose its sticky bit to any layer that only brings tmp/x. As a diff is shared by chains,
// it cannot be put right in the diff; it is in the skeleton, which is on top and made for the chain.

// addImplied adds the directories whose looks an implied directory hides, with the looks they should have. lower and
// implied speak of the chain's trees, the topmost first.
func (s *Store) addImplied(attributes map[string]Attributes, lower []string, implied [][]string) error {
	names := map[string]bool{}
	for _, list := range implied {
		for _, n := range list {
			names[n] = true
		}
	}
	if len(names) == 0 {
		return nil
	}
	c := &chainView{opaque: s.whiteouts().OpaqueAttr()}
	defer c.close()
	for i, path := range lower {
		d, err := tree.OpenDir(path)
		if err != nil {
			return err
		}
		l := viewedLayer{Dir: d, implied: map[string]bool{}}
		for _, n := range implied[i] {
			l.implied[n] = true
		}
		c.layers = append(c.layers, l)
	}
	for n := range names {
		if err := c.add(attributes, n); err != nil {
			return err
		}
	}
	return nil
}

// chainView looks through a chain's trees as overlayfs does.
type chainView struct {
	layers []viewedLayer // the topmost first
	opaque string
}

type viewedLayer struct {
	*tree.Dir
	implied map[string]bool
}

func (c *chainView) close() {
	for _, l := range c.layers {
		l.Close()
	}
}

// add adds a directory that does not look as it should, and its parents, which the skeleton then has to have too.
func (c *chainView) add(attributes map[string]Attributes, name string) error {
	a, shown, err := c.looks(name)
	if err != nil || !shown || a == plainDir {
		return err
	}
	for i := range len(name) {
		if name[i] != '/' {
			continue
		}
		parent := name[:i]
		if _, ok := attributes[parent]; ok {
			continue
		}
		if attributes[parent], _, err = c.looks(parent); err != nil {
			return err
		}
	}
	attributes[name] = a
	return nil
}

// looks finds how a directory should look: as the topmost layer says that has an entry for it, or like any implied one.
// shown is false when the container has no directory there.
func (c *chainView) looks(name string) (a Attributes, shown bool, err error) {
	a = plainDir
	for _, l := range c.layers {
		st, ok, ends, err := c.see(l.Dir, name)
		if err != nil {
			return a, false, err
		}
		if ok {
			shown = true
			if !l.implied[name] {
				return Attributes{Mode: st.Mode & tree.PermMask, UID: st.UID, GID: st.GID}, true, nil
			}
		}
		if ends {
			break
		}
	}
	return a, shown, nil
}

// see looks for a directory in one tree. ends tells that nothing of the trees below shows there: something on the
// way is opaque, or is no directory.
func (c *chainView) see(d *tree.Dir, name string) (st tree.Stat, ok, ends bool, err error) {
	for at := 0; at < len(name); {
		next := strings.IndexByte(name[at:], '/')
		if next < 0 {
			next = len(name) - at
		}
		part := name[:at+next]
		at += next + 1
		st, found, err := d.Lookup(part)
		if err != nil || !found {
			return st, false, ends, err
		}
		if !st.IsDir() {
			return st, false, true, nil
		}
		sub, _, err := d.Open(part)
		if err != nil {
			return st, false, false, err
		}
		v, _, err := sub.Xattr("", c.opaque)
		sub.Close()
		if err != nil {
			return st, false, false, err
		}
		ends = ends || string(v) == "y"
		if part == name {
			return st, true, ends, nil
		}
	}
	return st, false, ends, nil
}

package archive

import (
	"strings"

	"berth/base/fault"
	"berth/kernel/tree"
)

// whiteout turns a .wh. entry into overlayfs's mark. A whiteout speaks of the layers below only: what this archive
// itself has at that path stays.
func (a *applier) whiteout(dirPath, base string) error {
	if strings.HasPrefix(base, metaPrefix) && base != opaqueName {
		return nil // AUFS's bookkeeping
	}
	a.done.Marks = true
	dir, err := a.parent(dirPath)
	if err != nil {
		return err
	}
	if base == opaqueName {
		return a.makeOpaque(dir.Dir, dir.real)
	}
	name := base[len(whiteoutPrefix):]
	if name == "" || name == "." || name == ".." {
		return fault.New(fault.Invalid, "whiteout of %q", name)
	}
	real := join(dir.real, name)
	st, err := dir.Stat(name)
	switch {
	case err == nil && st.IsDir():
		return a.hideBelow(dir, name, real)
	case err == nil:
		return nil
	case !tree.Missing(err):
		return err
	}
	a.marks[real] |= marked
	if a.marks[dir.real]&opaque != 0 {
		return nil // hidden anyway, and readdir(3) of an unmerged directory would show the mark
	}
	if err := dir.Mknod(name, tree.TypeChar, 0, 0); err != nil {
		return err
	}
	if a.marks[dir.real]&holding != 0 {
		return nil
	}
	a.marks[dir.real] |= holding
	return a.o.Whiteouts.holdsMarks(dir.Dir)
}

func (a *applier) hideBelow(dir *openDir, name, real string) error {
	sub, err := dir.Sub(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	return a.makeOpaque(sub, real)
}

func (a *applier) makeOpaque(dir *tree.Dir, real string) error {
	if a.marks[real]&opaque != 0 {
		return nil
	}
	a.marks[real] |= opaque
	if real == "" {
		// overlayfs merges the roots of all layers whatever they say; whoever stacks the layers ends the stack here.
		a.done.OpaqueRoot = true
		return nil
	}
	return dir.SetXattr("", a.o.Whiteouts.OpaqueAttr(), []byte("y"))
}

// holdsMarks tells overlayfs that a directory has whiteouts in it, as it does itself in an upper directory. Where such a directory
// is merged with none below, its listing would show them else: names that nothing can be done with (ovl_get_inode() in
// fs/overlayfs/inode.c). The value says where the directory was copied from; an empty one says that nobody knows.
func (w Whiteouts) holdsMarks(d *tree.Dir) error {
	err := d.SetXattr("", w.OriginAttr(), nil)
	if tree.Unsupported(err) || tree.Denied(err) { // only a listing is less fine then
		return nil
	}
	return err
}

// OriginAttr is the extended attribute that a directory with whiteouts has on disk. It is no part of what a layer says.
func (w Whiteouts) OriginAttr() string {
	if w == OverlayUserNS {
		return "user.overlay.origin"
	}
	return "trusted.overlay.origin"
}

// OpaqueAttr is the extended attribute that marks an opaque directory on disk, with the value "y".
func (w Whiteouts) OpaqueAttr() string {
	if w == OverlayUserNS {
		return "user.overlay.opaque"
	}
	return "trusted.overlay.opaque"
}

// setXattrs sets the attributes of an entry that may come from outside.
func setXattrs(attrs map[string]string, set func(attr string, value []byte) error) error {
	for attr, v := range attrs {
		if !portable(attr) {
			continue
		}
		err := set(attr, []byte(v))
		if tree.Unsupported(err) || (tree.Denied(err) && attr != "security.capability") {
			continue // as other engines do: the file system, or an unprivileged engine, has no such attributes
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// portable tells which attributes belong to a file's meaning. Labels and measurements of a security module are
// this machine's, and overlayfs's own would let an archive forge the file system's structure.
func portable(attr string) bool {
	switch {
	case attr == "security.capability":
		return true
	case strings.HasPrefix(attr, "user.overlay."):
		return false
	}
	return strings.HasPrefix(attr, "user.") || strings.HasPrefix(attr, "system.posix_acl_")
}

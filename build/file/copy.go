package file

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/patternmatcher"
	symbolic "github.com/tonistiigi/dchapes-mode"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/tree"
)

// dirMode is that of directories which are made only because something goes below them.
const dirMode = 0o755

// copyTo copies what an action's source means in src to its destination in dst.
//
// A destination that ends in a slash, or is a directory already, is a place to copy into; else it is the name of the copy. A directory
// with DirCopyContents is what it contains.
func copyTo(ctx context.Context, src *tree.Dir, to place, a *pb.FileActionCopy, own *owner) error {
	dst := to.root
	source, dest := clean(a.Src), clean(a.Dest)
	if !a.CreateDestPath {
		p, err := resolve(dst, a.Dest, true)
		if err != nil {
			return err
		}
		parent, _ := parentOf(p)
		if _, found, err := dst.Lookup(parent); err != nil || !found {
			return fault.New(fault.NotFound, "failed to stat %s: no such file or directory", a.Dest)
		}
	}
	matches := []string{source}
	if a.AllowWildcard {
		var err error
		if matches, err = glob(src, source, a.FollowSymlink); err != nil {
			return err
		}
		if len(matches) == 0 {
			if a.AllowEmptyWildcard {
				return nil
			}
			return fault.New(fault.NotFound, "%s not found", source)
		}
	}
	if err := present(src, a.RequiredPaths); err != nil {
		return err
	}
	for _, m := range matches {
		if a.AttemptUnpackDockerCompatibility {
			done, err := unpack(ctx, src, m, dst, dest, own, whenOf(a.Timestamp))
			if err != nil {
				return err
			}
			if done {
				continue
			}
		}
		c, err := newCopier(ctx, src, to, a, own)
		if err != nil {
			return err
		}
		if err := c.match(m, dest, a.DirCopyContents, a.FollowSymlink); err != nil {
			return err
		}
	}
	return nil
}

// present refuses a copy whose patterns were to select paths that are not there.
func present(src *tree.Dir, paths []string) error {
	for _, p := range paths {
		at, err := resolve(src, p, false)
		if err != nil {
			return err
		}
		if _, found, err := src.Lookup(at); err != nil || !found {
			return fault.New(fault.NotFound, "%q: not found", p)
		}
	}
	return nil
}

// copier copies one match.
type copier struct {
	ctx      context.Context
	src, dst *tree.Dir // the roots
	upper    *tree.Dir // see place
	own      *owner
	t        when
	mode     *uint32       // of everything that is copied; nil: as it was
	change   *symbolic.Set // how to change it
	include  *patternmatcher.PatternMatcher
	exclude  *patternmatcher.PatternMatcher
	replace  bool            // what stands at the destination is replaced, whatever it is
	links    map[inode]first // first copies of files with several names
	hardlink func(to, from *tree.Dir, oldName, name string) error
	buf      []byte

	srcs, dsts tree.Descent // below the directory that was named
}

// place is where a copy goes.
type place struct {
	root  *tree.Dir
	upper *tree.Dir // the directory that holds what is written to root, an overlay; nil: root itself, or nobody knows
}

type inode struct{ dev, ino uint64 }

// first is the first copy of a file.
type first struct {
	path   string // in dst
	direct bool   // made in the upper directory
}

func newCopier(ctx context.Context, src *tree.Dir, to place, a *pb.FileActionCopy, own *owner) (*copier, error) {
	c := &copier{
		ctx: ctx, src: src, dst: to.root, upper: to.upper, own: own, t: whenOf(a.Timestamp), replace: a.AlwaysReplaceExistingDestPaths, hardlink: (*tree.Dir).Link,
	}
	if a.Mode != -1 {
		m := uint32(a.Mode) & tree.PermMask
		c.mode = &m
	}
	if a.ModeStr != "" {
		set, err := symbolic.ParseWithUmask(a.ModeStr, 0)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "mode %q", a.ModeStr)
		}
		c.change, c.mode = &set, nil
	}
	var err error
	if c.include, err = patterns(a.IncludePatterns); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "invalid includepatterns: %s", a.IncludePatterns)
	}
	if c.exclude, err = patterns(a.ExcludePatterns); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "invalid excludepatterns: %s", a.ExcludePatterns)
	}
	return c, nil
}

func patterns(list []string) (*patternmatcher.PatternMatcher, error) {
	if len(list) == 0 {
		return nil, nil
	}
	return patternmatcher.New(list)
}

// match copies what is at s in the source tree.
func (c *copier) match(s, dest string, contents, follow bool) (err error) {
	made := uint32(dirMode) // mode of directories made on the way
	if c.mode != nil {
		made = *c.mode
	}
	var ways []string
	defer func() {
		if err == nil {
			err = c.restamp(ways)
		}
	}()
	into := dest // the directory that dest asks for by its form
	if dir, name := path.Split(dest); name != "" && name != "." {
		into = dir
	}
	way, err := resolve(c.dst, into, true)
	if err != nil {
		return err
	}
	if ways, err = mkdirAll(c.dst, way, made, c.own, c.t); err != nil {
		return err
	}
	target, err := resolve(c.dst, dest, true)
	if err != nil {
		return err
	}

	from, err := resolve(c.src, s, follow)
	if err != nil {
		return err
	}
	st, found, err := c.src.Lookup(from)
	if err != nil {
		return err
	}
	if !found {
		return fault.Wrap(fault.NotFound, &fs.PathError{Op: "lstat", Path: "/" + from, Err: unix.ENOENT}, "copy %s", s)
	}
	there, exists, err := c.dst.Lookup(target)
	if err != nil {
		return err
	}
	isDir := st.IsDir()
	if (isDir && exists && !contents) || (!isDir && exists && there.IsDir()) {
		if base := path.Base(s); base != "/" {
			target = path.Join(target, base)
		}
		exists = false
	}
	parent, name := parentOf(target)
	if contents && isDir && !exists {
		parent, name = target, ""
	}
	more, err := mkdirAll(c.dst, parent, made, c.own, c.t)
	if err != nil {
		return err
	}
	ways = append(ways, more...)
	if name == "" {
		parent, name = parentOf(target)
	}
	return c.top(from, st, parent, name, slices.Contains(ways, target))
}

// restamp gives the directories made on the way their time again, which making things in them changed.
func (c *copier) restamp(paths []string) error {
	if !c.t.set {
		return nil
	}
	for i := len(paths) - 1; i >= 0; i-- {
		dir, _, err := c.dst.Open(paths[i])
		if err != nil {
			return err
		}
		err = dir.Chtimes("", c.t.at, c.t.at)
		dir.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// top copies the file or directory at from to name in the directory at parent; name "" is the destination's root itself. made: what is
// there is a directory that was made for it a moment ago.
func (c *copier) top(from string, st tree.Stat, parent, name string, made bool) error {
	dst, _, err := c.dst.Open(parent)
	if err != nil {
		return at(err, parent)
	}
	up := &level{dst: dst, at: parent, copied: true}
	defer up.close()
	fromDir, fromName := parentOf(from)
	src, _, err := c.src.Open(fromDir)
	if err != nil {
		return at(err, fromDir)
	}
	up.src = src
	if st.IsDir() {
		return c.topDir(up, fromName, st, name, made)
	}
	return c.file(up, fromName, name, st.Type())
}

// topDir copies a directory that was named. Where its copy is there already, it keeps its owner and mode and gets the times alone.
func (c *copier) topDir(up *level, fromName string, st tree.Stat, name string, made bool) error {
	l := &level{up: up, st: st, at: path.Join(up.at, name), name: name, top: true}
	var err error
	if fromName == "" {
		l.src, _, err = up.src.Open("")
	} else {
		l.src, err = up.src.Sub(fromName)
	}
	if err != nil {
		return err
	}
	defer l.close()
	if name == "" {
		if l.dst, _, err = up.dst.Open(""); err != nil {
			return err
		}
		l.copied = true
	} else if err := c.make(l); err != nil {
		return err
	}
	if made && !l.empty {
		l.empty = true
		c.goBelow(l)
	}
	if err := c.children(l, "", patternmatcher.MatchInfo{}, patternmatcher.MatchInfo{}); err != nil {
		return err
	}
	if l.fresh {
		return c.dress(l)
	}
	atime, mtime := c.times(st)
	return at(l.shown().Chtimes("", atime, mtime), l.at)
}

// level is a directory being copied.
type level struct {
	up       *level
	src, dst *tree.Dir // dst nil: not made yet
	st       tree.Stat // of src
	at       string    // the copy's path
	name     string    // its last name
	top      bool      // it was named
	copied   bool      // dst is there
	fresh    bool      // dst was made by this copy: it is dressed in the end
	empty    bool      // nothing is in dst that the copy did not make
	direct   bool      // dst is the directory in upper
	over     *tree.Dir // the topmost direct directory as the overlay shows it; else nil
}

func (l *level) close() {
	for _, d := range []*tree.Dir{l.src, l.dst, l.over} {
		if d != nil {
			d.Close()
		}
	}
}

// shown is the directory as the overlay has it, where the overlay knows it.
func (l *level) shown() *tree.Dir {
	if l.over != nil {
		return l.over
	}
	return l.dst
}

// goBelow has what is copied into an empty directory of the overlay made in the upper directory itself: making a file through
// an overlay takes the kernel nearly twice as long as making it. overlayfs looks for a name in such a directory, in the
// upper one alone, when it is first asked for it, and nobody asks while the copy is made, because nobody else has the mount; so it finds them
// there as if it had made them. What it knows already, the directory itself, is changed through it only (shown).
func (c *copier) goBelow(l *level) {
	if c.upper == nil || l.direct {
		return
	}
	d, linked, err := c.upper.Open(l.at)
	if err != nil {
		return // the overlay will do
	}
	if linked { // no copy goes through one
		d.Close()
		return
	}
	l.over, l.dst, l.direct = l.dst, d, true
}

// make makes the copy of a directory and of those above it that waited for something to be copied.
func (c *copier) make(l *level) error {
	if l.copied {
		return nil
	}
	if err := c.make(l.up); err != nil {
		return err
	}
	if !l.up.empty {
		there, err := l.up.dst.Stat(l.name)
		if err == nil && !there.IsDir() {
			if !c.replace {
				return fault.New(fault.Invalid, "cannot copy to non-directory: /%s", l.at)
			}
			if err = l.up.dst.Unlink(l.name); err != nil {
				return at(err, l.at)
			}
			err = unix.ENOENT
		}
		if err == nil {
			if l.dst, err = c.dsts.Enter(l.up.dst, l.name); err != nil {
				return at(err, l.at)
			}
			l.copied = true
			if l.top {
				return nil
			}
			return at(l.dst.Chmod("", l.st.Mode&tree.PermMask), l.at)
		}
		if !errors.Is(err, unix.ENOENT) {
			return at(err, l.at)
		}
	}
	if err := l.up.dst.Mkdir(l.name, 0o700); err != nil {
		return at(err, l.at)
	}
	var err error
	if l.dst, err = c.dsts.Enter(l.up.dst, l.name); err != nil {
		return at(err, l.at)
	}
	l.copied, l.fresh, l.empty, l.direct = true, true, true, l.up.direct
	c.goBelow(l)
	return nil
}

// dress gives a copied directory its looks, when nothing is made in it any more.
func (c *copier) dress(l *level) error {
	uid, gid, mode := c.looks(l.st)
	dst := l.shown()
	if err := dst.Chown("", uid, gid); err != nil {
		return at(err, l.at)
	}
	if err := dst.Chmod("", mode); err != nil {
		return at(err, l.at)
	}
	if err := dirXattrs(l.src, dst); err != nil {
		return at(err, l.at)
	}
	atime, mtime := c.times(l.st)
	return at(dst.Chtimes("", atime, mtime), l.at)
}

// children copies what is in a directory. rel is its path below the match, which the patterns are about.
func (c *copier) children(l *level, rel string, inc, exc patternmatcher.MatchInfo) error {
	entries, err := l.src.Entries()
	if err != nil {
		return at(err, l.at)
	}
	for _, e := range entries {
		if err := c.ctx.Err(); err != nil {
			return context.Cause(c.ctx)
		}
		p := e.Name
		if rel != "" {
			p = rel + "/" + e.Name
		}
		if len(p) > maxPath {
			return &fs.PathError{Op: "copy", Path: p, Err: unix.ENAMETOOLONG}
		}
		v, err := c.verdict(p, inc, exc)
		if err != nil {
			return err
		}
		if e.Type == 0 {
			st, err := l.src.Stat(e.Name)
			if err != nil {
				return at(err, p)
			}
			e.Type = st.Type()
		}
		switch {
		case e.Type == tree.TypeDir:
			if v.skip {
				continue
			}
			err = c.dir(l, e.Name, p, v)
		case v.copy:
			if err = c.make(l); err == nil {
				err = c.file(l, e.Name, e.Name, e.Type)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dir copies the directory called name in l, or what the patterns leave of it.
func (c *copier) dir(up *level, name, rel string, v verdict) error {
	src, err := c.srcs.Enter(up.src, name)
	if err != nil {
		return at(err, rel)
	}
	l := &level{up: up, src: src, at: path.Join(up.at, name), name: name}
	defer l.close()
	if l.st, err = src.Stat(""); err != nil {
		return at(err, rel)
	}
	if v.copy {
		if err := c.make(l); err != nil {
			return err
		}
	}
	if err := c.children(l, rel, v.inc, v.exc); err != nil {
		return err
	}
	if v.copy || l.fresh {
		if err := c.dress(l); err != nil {
			return err
		}
	}
	return c.leave(l)
}

// leave goes back to the directory above, on both sides.
func (c *copier) leave(l *level) error {
	if err := c.srcs.Leave(l.src); err != nil {
		return at(err, l.at)
	}
	if !l.copied {
		return nil
	}
	return at(c.dsts.Leave(l.shown()), l.at)
}

// verdict is what the patterns say about a path.
type verdict struct {
	copy     bool // it is copied
	skip     bool // nor can anything below it be
	inc, exc patternmatcher.MatchInfo
}

func (c *copier) verdict(p string, inc, exc patternmatcher.MatchInfo) (v verdict, err error) {
	v.copy = true
	if c.include != nil {
		if v.copy, v.inc, err = c.include.MatchesUsingParentResults(p, inc); err != nil {
			return v, fault.Wrap(fault.Invalid, err, "failed to match includepatterns")
		}
	}
	if c.exclude != nil {
		var out bool
		if out, v.exc, err = c.exclude.MatchesUsingParentResults(p, exc); err != nil {
			return v, fault.Wrap(fault.Invalid, err, "failed to match excludepatterns")
		}
		if out {
			v.copy, v.skip = false, !c.exclude.Exclusions()
		}
	}
	return v, nil
}

// clear makes room for name in the copy.
func (c *copier) clear(l *level, name string) error {
	if l.empty {
		return nil
	}
	there, err := l.dst.Stat(name)
	if tree.Missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !there.IsDir() {
		return l.dst.Unlink(name)
	}
	if !c.replace {
		return fault.New(fault.Invalid, "cannot replace to directory /%s with file", path.Join(l.at, name))
	}
	return l.dst.RemoveAll(name)
}

// looks gives what a copy gets for the owner and permissions of its original.
func (c *copier) looks(st tree.Stat) (uid, gid int, mode uint32) {
	uid, gid, mode = int(st.UID), int(st.GID), st.Mode&tree.PermMask
	if c.own != nil {
		uid, gid = c.own.uid, c.own.gid
	}
	switch {
	case c.change != nil:
		mode = permBits(c.change.Apply(tree.FileMode(st.Mode)))
	case c.mode != nil:
		mode = *c.mode
	}
	return uid, gid, mode
}

// times gives a copy's times. A layer has no fractions of seconds: whoever seals the copy need not take them away again.
func (c *copier) times(st tree.Stat) (atime, mtime tree.Time) {
	if c.t.set {
		return c.t.at, c.t.at
	}
	return st.Atime, tree.Time{Sec: st.Mtime.Sec}
}

// permBits is the inverse for permissions.
func permBits(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for bit, is := range specialBits {
		if m&is != 0 {
			mode |= bit
		}
	}
	return mode
}

var specialBits = map[uint32]fs.FileMode{
	unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky,
}

// ownMark reports attributes that say something about a layer, not about a file: they are never copied.
func ownMark(attr string) bool {
	return strings.HasPrefix(attr, "trusted.overlay.") || strings.HasPrefix(attr, "user.overlay.")
}

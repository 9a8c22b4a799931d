package content

import (
	"context"
	"hash"
	"path"
	"strings"

	"github.com/moby/patternmatcher"

	"berth/base/fault"
	"berth/build/snapshot"
	"berth/kernel/tree"
)

const linkMax = 40 // links followed for one path, as the kernel does

// selection hashes what one selector selects.
type selection struct {
	ctx  context.Context // of one digest
	src  source
	sel  Selector
	hash hash.Hash
	buf  []byte

	include, exclude *patternmatcher.PatternMatcher // nil: no patterns
	hit              map[string]bool                // beginnings of paths that are required, and whether one was selected
}

func (c *selection) compile() (err error) {
	if len(c.sel.Include) > 0 {
		if c.include, err = patternmatcher.New(c.sel.Include); err != nil {
			return fault.Wrap(fault.Invalid, err, "invalid includepatterns: %s", c.sel.Include)
		}
	}
	if len(c.sel.Exclude) > 0 {
		if c.exclude, err = patternmatcher.New(c.sel.Exclude); err != nil {
			return fault.Wrap(fault.Invalid, err, "invalid excludepatterns: %s", c.sel.Exclude)
		}
	}
	if c.sel.Wildcard {
		if _, err := path.Match(cleaned(c.sel.Path), ""); err != nil {
			return fault.Wrap(fault.Invalid, err, "pattern %q", c.sel.Path)
		}
	}
	c.hit = map[string]bool{}
	for _, r := range c.sel.Required {
		c.hit[cleaned(r)] = false
	}
	return nil
}

// required checks that what has to be there was selected.
func (c *selection) required() error {
	if !c.sel.Wildcard && !c.sel.filtered() {
		return nil
	}
	for name, hit := range c.hit {
		if !hit {
			return notFound(name)
		}
	}
	return nil
}

func (c *selection) run() error {
	name := cleaned(c.sel.Path)
	if c.sel.Wildcard {
		fixed, pattern := splitPattern(name)
		return c.wildcard(fixed, pattern)
	}
	e, found, err := c.resolve(name, c.sel.FollowLinks)
	if err != nil {
		return err
	}
	if !found {
		if c.sel.filtered() {
			return nil // then who copies says what is missing
		}
		return notFound(name)
	}
	return c.top(e, name, "")
}

// splitPattern splits a path before its first element with a wildcard.
func splitPattern(name string) (fixed string, pattern []string) {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		if hasWildcard(p) {
			return strings.Join(parts[:i], "/"), parts[i:]
		}
	}
	return name, nil
}

func hasWildcard(s string) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '*', '?', '[':
			return true
		case '\\':
			i++
		}
	}
	return false
}

// wildcard selects every path that matches. Names matter then: what is copied has them.
func (c *selection) wildcard(fixed string, pattern []string) error {
	e, found, err := c.resolve(unescape(fixed), len(pattern) > 0 || c.sel.FollowLinks)
	if err != nil || !found {
		return err // nothing matches
	}
	if len(pattern) == 0 {
		return c.top(e, fixed, path.Base(fixed))
	}
	return c.glob(e, fixed, "", pattern)
}

// glob goes through the directories that match, element by element. shown is the path as the selector has it, rel what of it matched.
func (c *selection) glob(dir snapshot.Entry, shown, rel string, pattern []string) error {
	if dir.Mode&tree.TypeMask != tree.TypeDir {
		return nil
	}
	names, err := c.src.names(dir.Path)
	if err != nil {
		return err
	}
	for _, n := range names {
		if ok, err := path.Match(pattern[0], n); err != nil || !ok {
			if err != nil {
				return fault.Wrap(fault.Invalid, err, "pattern %q", c.sel.Path)
			}
			continue
		}
		e, found, err := c.src.lookup(join(dir.Path, n))
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		if len(pattern) > 1 {
			err = c.glob(e, join(shown, n), join(rel, n), pattern[1:])
		} else {
			err = c.match(e, join(shown, n), join(rel, n))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *selection) match(e snapshot.Entry, shown, rel string) error {
	if c.sel.FollowLinks && e.Mode&tree.TypeMask == tree.TypeSymlink {
		to, found, err := c.resolve(e.Path, true)
		if err != nil {
			return err
		}
		if !found {
			return notFound(e.Path)
		}
		e = to
	}
	return c.top(e, shown, rel)
}

// unescape takes the backslashes of a pattern without wildcards away.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// resolve finds a path, following links on the way and, if so wished, at its end. ".." and absolute links stay inside the tree.
func (c *selection) resolve(name string, last bool) (snapshot.Entry, bool, error) {
	at, links := "", 0
	rest := strings.Split(name, "/")
	for len(rest) > 0 {
		next := rest[0]
		rest = rest[1:]
		switch next {
		case "", ".":
			continue
		case "..":
			at = parentOf(at)
			continue
		}
		e, found, err := c.src.lookup(join(at, next))
		if err != nil || !found {
			return e, false, err
		}
		if e.Mode&tree.TypeMask != tree.TypeSymlink || len(rest) == 0 && !last {
			at = join(at, next)
			continue
		}
		if links++; links > linkMax {
			return e, false, fault.New(fault.Invalid, "too many links in %q", "/"+name)
		}
		if strings.HasPrefix(e.Link, "/") {
			at = ""
		}
		rest = append(strings.Split(e.Link, "/"), rest...)
	}
	return c.src.lookup(at)
}

// level is a directory on the way to what is being looked at.
type level struct {
	entry            snapshot.Entry
	shown, rel       string
	written          bool
	include, exclude patternmatcher.MatchInfo
}

// top hashes a selected file, or a directory with all in it that the patterns let through. shown is its path as the selector has it, rel its
// name in the digest.
func (c *selection) top(e snapshot.Entry, shown, rel string) error {
	l := &level{entry: e, shown: shown, rel: rel}
	taken, err := c.takes("", l, nil)
	if err != nil {
		return err
	}
	if e.Mode&tree.TypeMask != tree.TypeDir {
		if !taken {
			return nil
		}
		return c.write(l)
	}
	// The directory's own looks count as far as anything of it does.
	if taken && !c.sel.filtered() {
		if err := c.write(l); err != nil {
			return err
		}
	}
	return c.dir(e.Path, "", []*level{l})
}

// dir hashes what is in a directory. below is its path from the selected one, above the directories down to itself.
func (c *selection) dir(name, below string, above []*level) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	names, err := c.src.names(name)
	if err != nil {
		return err
	}
	parent := above[len(above)-1]
	for _, n := range names {
		e, found, err := c.src.lookup(join(name, n))
		if err != nil {
			return err
		}
		if !found {
			e = snapshot.Entry{Path: join(name, n), Mode: tree.TypeDir | 0o755} // of an index that leaves directories out
			if _, ok := c.src.(indexed); !ok {
				continue // a mark that shows where directories are not merged
			}
		}
		l := &level{entry: e, shown: join(parent.shown, n), rel: join(parent.rel, n)}
		taken, err := c.takes(join(below, n), l, parent)
		if err != nil {
			return err
		}
		if taken {
			for _, a := range above {
				if err := c.write(a); err != nil {
					return err
				}
			}
			if err := c.write(l); err != nil {
				return err
			}
		}
		if e.Mode&tree.TypeMask != tree.TypeDir || !taken && c.shut() {
			continue
		}
		if err := c.dir(e.Path, join(below, n), append(above, l)); err != nil {
			return err
		}
	}
	return nil
}

// shut reports whether nothing can be taken in a directory that is not.
func (c *selection) shut() bool { return c.include == nil && !c.exclude.Exclusions() }

// takes asks the patterns.
func (c *selection) takes(below string, l, parent *level) (bool, error) {
	if below == "" || !c.sel.filtered() {
		return !c.sel.filtered() || l.entry.Mode&tree.TypeMask != tree.TypeDir, nil
	}
	var up level
	if parent != nil {
		up = *parent
	}
	if c.include != nil {
		ok, info, err := c.include.MatchesUsingParentResults(below, up.include)
		if err != nil {
			return false, fault.Wrap(fault.Invalid, err, "match includepatterns")
		}
		if l.include = info; !ok {
			return false, nil
		}
	}
	if c.exclude != nil {
		ok, info, err := c.exclude.MatchesUsingParentResults(below, up.exclude)
		if err != nil {
			return false, fault.Wrap(fault.Invalid, err, "match excludepatterns")
		}
		if l.exclude = info; ok {
			return false, nil
		}
	}
	return true, nil
}

// write hashes one file, once.
func (c *selection) write(l *level) error {
	if l.written {
		return nil
	}
	l.written = true
	if l.entry.Digest == "" {
		if err := c.src.content(&l.entry); err != nil {
			return fault.In(err, "read %q", "/"+l.entry.Path)
		}
	}
	for r := range c.hit {
		if strings.HasPrefix(l.shown, r) {
			c.hit[r] = true
		}
	}
	e := l.entry
	e.Path = l.rel
	c.buf = e.Append(c.buf[:0])
	_, err := c.hash.Write(c.buf)
	return err
}

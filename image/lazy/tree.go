package lazy

import (
	"context"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/image/archive"
	"berth/image/layer"
	"berth/kernel/fuse"
	ktree "berth/kernel/tree"
)

// numbering is the version of how nodes get their numbers: by the order of the TOC's entries, directories that have no entry
// when something in them comes. A view that outlives its engine relies on it: a change needs another number here, and views of
// the old one cannot be taken over.
const numbering = 1

// node is one file. The tree is what archive.Apply makes of the layer's tar: whiteouts are devices 0:0, opaque directories have
// overlayfs's attribute.
type node struct {
	attr         fuse.Attr
	name         string // its first name
	parent       fuse.Node
	target       string // of a symbolic link
	xattrs       map[string][]byte
	first, count int  // chunks
	isTOC        bool // the TOC itself, which eStargz has as a file
	kids         []kid
	byName       map[string]fuse.Node // while the tree is built
	marked       map[string]bool      // names for which this layer has a whiteout, while the tree is built
	opaque       bool
	holding      bool // it has whiteouts
}

type kid struct {
	name string
	node fuse.Node
}

// tree is a layer's tree. It does not change.
type tree struct {
	nodes  []node // by number, from 1; number 0 is not used
	chunks []chunk
	opaque string // the attribute
	info   layer.Info
	has    fuse.Features
	links  int // followed for the entry in work
}

// As archive.Apply has them; links are those of one path.
const (
	impliedMax = 1000
	linksMax   = 40
)

// buildTree makes the tree of a TOC. NotImplemented: the layer has something that only unpacking gets right, or is hostile.
func buildTree(ctx context.Context, t *toc, opaqueAttr string) (*tree, error) {
	b := &tree{nodes: make([]node, 1, len(t.entries)+2), opaque: opaqueAttr}
	b.make(node{attr: fuse.Attr{Mode: unix.S_IFDIR | 0o755, Nlink: 2}})
	chunks := newChunker(t)
	for i := 0; i < len(t.entries); i++ {
		if i%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		e := &t.entries[i]
		more := i + 1
		for more < len(t.entries) && t.entries[more].Type == "chunk" {
			more++
		}
		if e.Type != "reg" && more > i+1 || e.Type == "chunk" {
			return nil, refuse(e, "has chunks and is no file")
		}
		first, count := 0, 0
		if e.Type == "reg" {
			var err error
			if first, count, err = chunks.add(e, t.entries[i+1:more]); err != nil {
				return nil, err
			}
		}
		if err := b.entry(e, first, count); err != nil {
			return nil, err
		}
		i = more - 1
	}
	b.chunks = chunks.list
	if t.form == eStargz {
		if err := b.addTOC(t); err != nil {
			return nil, err
		}
	}
	b.freeze()
	return b, nil
}

func refuse(e *entry, why string) error {
	return fault.New(fault.NotImplemented, "%q %s", shorten(e.Name), why)
}

func (t *tree) make(n node) fuse.Node {
	if n.attr.Mode&unix.S_IFMT == unix.S_IFDIR {
		n.byName, n.marked = map[string]fuse.Node{}, map[string]bool{}
	}
	t.nodes = append(t.nodes, n)
	return fuse.Node(len(t.nodes) - 1)
}

func (t *tree) at(n fuse.Node) *node { return &t.nodes[n] }

func (n *node) isDir() bool { return n.attr.Mode&unix.S_IFMT == unix.S_IFDIR }

func (n *node) isWhiteout() bool {
	return n.attr.Mode&unix.S_IFMT == unix.S_IFCHR && n.attr.Major == 0 && n.attr.Minor == 0
}

// entry adds what one row speaks of, as archive.Apply does with one entry of the tar.
func (t *tree) entry(e *entry, first, count int) error {
	name, ok := cleanName(e.Name)
	if !ok {
		return refuse(e, "is no path below the root")
	}
	if name == "" {
		return t.rootEntry(e)
	}
	dirName, base := path.Split(name)
	if t.links = 0; len(t.nodes) > nodeMax {
		return refuse(e, "is one of too many")
	}
	dir, err := t.dir(strings.TrimSuffix(dirName, "/"), true)
	if err != nil {
		return refuse(e, err.Error())
	}
	if after, ok := strings.CutPrefix(base, ".wh."); ok {
		return t.whiteout(e, dir, base, after)
	}
	n, ok := e.node()
	if !ok {
		return refuse(e, "has attributes that cannot be served")
	}
	n.name, n.parent, n.first, n.count = base, dir, first, count
	if e.Type == "hardlink" {
		return t.hardlink(e, dir, base)
	}
	t.xattrsOf(&n, e)
	old, exists := t.at(dir).byName[base]
	if exists && n.isDir() && t.at(old).isDir() { // an entry for a directory that is there changes how it looks
		o := t.at(old)
		o.attr, o.xattrs = n.attr, n.xattrs
		if o.opaque {
			t.makeOpaque(old)
		}
		if o.holding {
			t.makeHolding(old)
		}
		if t.at(dir).marked[base] {
			t.makeOpaque(old)
		}
		return nil
	}
	if exists {
		t.unlink(dir, base, old)
	}
	made := t.make(n)
	t.at(dir).byName[base] = made
	if n.isDir() && t.at(dir).marked[base] {
		t.makeOpaque(made)
	}
	return nil
}

// unlink takes a name away that a later entry replaces.
func (t *tree) unlink(dir fuse.Node, base string, old fuse.Node) {
	o := t.at(old)
	if typ := o.attr.Mode & unix.S_IFMT; typ == unix.S_IFDIR || typ == unix.S_IFLNK {
		delete(t.at(dir).marked, base)
	} else {
		o.attr.Nlink--
	}
	delete(t.at(dir).byName, base)
}

func (t *tree) rootEntry(e *entry) error {
	n, ok := e.node()
	if !ok || !n.isDir() {
		return refuse(e, "is the root and no directory")
	}
	t.xattrsOf(&n, e)
	root := t.at(fuse.Root)
	root.attr, root.xattrs = n.attr, n.xattrs
	if root.opaque {
		t.makeOpaque(fuse.Root)
	}
	if root.holding {
		t.makeHolding(fuse.Root)
	}
	t.info.Root = &layer.Attributes{Mode: n.attr.Mode & ktree.PermMask, UID: n.attr.UID, GID: n.attr.GID}
	return nil
}

// whiteout is an entry called .wh.NAME: it speaks of the layers below only.
func (t *tree) whiteout(e *entry, dir fuse.Node, base, name string) error {
	if base == ".wh..wh..opq" {
		t.makeOpaque(dir)
		return nil
	}
	if strings.HasPrefix(base, ".wh..wh.") {
		return nil // AUFS's bookkeeping
	}
	if name == "" || name == "." || name == ".." {
		return refuse(e, "is a whiteout of nothing")
	}
	d := t.at(dir)
	if old, ok := d.byName[name]; ok {
		if t.at(old).isDir() {
			t.makeOpaque(old)
		}
		return nil
	}
	d.marked[name] = true
	if d.opaque {
		return nil
	}
	made := t.make(node{name: name, parent: dir, attr: fuse.Attr{Mode: unix.S_IFCHR, Nlink: 1}})
	t.at(dir).byName[name] = made
	t.makeHolding(dir)
	return nil
}

// makeHolding gives a directory with whiteouts the attribute that an unpacked one has.
func (t *tree) makeHolding(n fuse.Node) {
	t.at(n).holding = true
	t.setXattr(n, strings.TrimSuffix(t.opaque, "opaque")+"origin", nil)
}

// setXattr leaves the attributes that others may share as they are.
func (t *tree) setXattr(n fuse.Node, name string, value []byte) {
	d := t.at(n)
	x := map[string][]byte{name: value}
	for k, v := range d.xattrs {
		if k != name {
			x[k] = v
		}
	}
	d.xattrs = x
}

func (t *tree) makeOpaque(n fuse.Node) {
	d := t.at(n)
	d.opaque = true
	if n == fuse.Root {
		t.info.OpaqueRoot = true // overlayfs merges the roots of all layers; whoever stacks them ends the stack here
		return
	}
	t.setXattr(n, t.opaque, []byte("y"))
}

func (t *tree) hardlink(e *entry, dir fuse.Node, base string) error {
	name, ok := cleanName(e.LinkName)
	if !ok || name == "" {
		return refuse(e, "is a hard link to nothing")
	}
	fromName, fromBase := path.Split(name)
	from, err := t.dir(strings.TrimSuffix(fromName, "/"), false)
	if err != nil {
		return refuse(e, "is a hard link to nothing")
	}
	n, ok := t.at(from).byName[fromBase]
	if !ok || t.at(n).isDir() {
		return refuse(e, "is a hard link to nothing")
	}
	if from == dir && fromBase == base {
		return nil
	}
	if old, exists := t.at(dir).byName[base]; exists {
		if old == n {
			return nil
		}
		t.unlink(dir, base, old)
	}
	t.at(dir).byName[base] = n
	t.at(n).attr.Nlink++
	return nil
}

type pathError string

func (e pathError) Error() string { return string(e) }

const errNoDir = pathError("lies in something that is no directory")

// dir finds a directory by its path, through links, and makes what is missing.
func (t *tree) dir(name string, create bool) (fuse.Node, error) {
	at := fuse.Root
	for rest := name; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		next, ok := t.at(at).byName[part]
		switch {
		case !ok && !create:
			return 0, errNoDir
		case !ok:
			next = t.imply(at, part)
		case t.at(next).isDir():
		case t.at(next).attr.Mode&unix.S_IFMT == unix.S_IFLNK:
			target, ok := t.follow(at, t.at(next).target)
			if t.links++; !ok || t.links > linksMax {
				return 0, pathError("lies behind a link that leads too far")
			}
			var err error
			if next, err = t.dir(target, create); err != nil {
				return 0, err
			}
		case create && t.at(next).isWhiteout() && t.at(at).marked[part]:
			// Deleted below by this layer, and now something in it.
			t.unlink(at, part, next)
			next = t.imply(at, part)
		default:
			return 0, errNoDir
		}
		at = next
	}
	return at, nil
}

// follow gives the path that a link in a directory leads to. One with `..` after a name would need another walk: it is refused.
func (t *tree) follow(dir fuse.Node, target string) (string, bool) {
	clean := target
	if !strings.HasPrefix(target, "/") {
		clean = t.path(dir) + "/" + target
	}
	named := false
	for part := range strings.SplitSeq(target, "/") {
		if part == ".." && named {
			return "", false
		}
		named = named || part != "" && part != "." && part != ".."
	}
	return cleanName(path.Clean("/" + clean))
}

// imply makes a directory that has no entry of its own.
func (t *tree) imply(dir fuse.Node, name string) fuse.Node {
	made := t.make(node{name: name, parent: dir, attr: fuse.Attr{Mode: unix.S_IFDIR | 0o755, Nlink: 2}})
	t.at(dir).byName[name] = made
	if len(t.info.Implied) < impliedMax {
		t.info.Implied = append(t.info.Implied, t.path(made))
	}
	if t.at(dir).marked[name] {
		t.makeOpaque(made)
	}
	return made
}

// path is the path of a node from the root, by its first name.
func (t *tree) path(n fuse.Node) string {
	var parts []string
	for ; n > fuse.Root && len(parts) < 4096; n = t.nodes[n].parent {
		parts = append(parts, t.nodes[n].name)
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// node translates an entry's attributes.
func (e *entry) node() (n node, ok bool) {
	const top = 1<<32 - 2 // the last number means "leave it" to chown(2)
	if e.UID < 0 || e.UID > top || e.GID < 0 || e.GID > top || e.Size < 0 {
		return n, false
	}
	n.attr = fuse.Attr{Mode: uint32(e.Mode) & ktree.PermMask, UID: uint32(e.UID), GID: uint32(e.GID), Nlink: 1}
	if e.ModTime != "" {
		at, err := time.Parse(time.RFC3339Nano, e.ModTime)
		if err != nil {
			return n, false
		}
		n.attr.Mtime = ktree.Time{Sec: at.Unix(), Nsec: int64(at.Nanosecond())}
	}
	switch e.Type {
	case "dir":
		n.attr.Mode |= unix.S_IFDIR
		n.attr.Nlink = 2
	case "reg":
		n.attr.Mode |= unix.S_IFREG
		n.attr.Size = e.Size
	case "symlink":
		n.attr.Mode = unix.S_IFLNK | 0o777
		n.attr.Size = int64(len(e.LinkName))
		n.target = e.LinkName
		return n, e.LinkName != "" && len(e.LinkName) < 4096
	case "char", "block":
		n.attr.Mode |= unix.S_IFCHR
		if e.Type == "block" {
			n.attr.Mode ^= unix.S_IFCHR ^ unix.S_IFBLK
		}
		n.attr.Major, n.attr.Minor = uint32(e.DevMajor), uint32(e.DevMinor)
		return n, e.DevMajor >= 0 && e.DevMajor <= 0xfff && e.DevMinor >= 0 && e.DevMinor <= 0xfffff
	case "fifo":
		n.attr.Mode |= unix.S_IFIFO
	case "hardlink":
	default:
		return n, false
	}
	return n, true
}

// xattrsOf keeps the attributes that unpacking would set.
func (t *tree) xattrsOf(n *node, e *entry) {
	if e.Type == "symlink" {
		return
	}
	for k, v := range e.Xattrs {
		if !archive.Portable(k) || len(k) > 255 {
			continue
		}
		if n.xattrs == nil {
			n.xattrs = map[string][]byte{}
		}
		n.xattrs[k] = v
	}
}

// addTOC adds the file that eStargz has its TOC in, as it is there when the tar is unpacked.
func (t *tree) addTOC(c *toc) error {
	e := entry{Type: "reg", Name: estargz.TOCTarName, Size: int64(len(c.json))}
	if err := t.entry(&e, 0, 0); err != nil {
		return err
	}
	t.at(t.at(fuse.Root).byName[estargz.TOCTarName]).isTOC = true
	return nil
}

// freeze ends building: names are sorted, sums are made.
func (t *tree) freeze() {
	seen := make([]bool, len(t.nodes))
	stack := []fuse.Node{fuse.Root}
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		n := t.at(at)
		stack = stack[:len(stack)-1]
		for name, k := range n.byName {
			n.kids = append(n.kids, kid{name, k})
			child := t.at(k)
			if child.isDir() {
				n.attr.Nlink++
				stack = append(stack, k)
			}
			if seen[k] {
				continue
			}
			seen[k] = true
			child.name, child.parent = name, at // a name that is there in the end: the first may have been replaced
			t.info.Size += child.attr.Size
			t.has.Xattrs = t.has.Xattrs || len(child.xattrs) > 0
			for x := range child.xattrs {
				t.has.ACL = t.has.ACL || strings.HasPrefix(x, "system.posix_acl_")
			}
		}
		sort.Slice(n.kids, func(i, j int) bool { return n.kids[i].name < n.kids[j].name })
		n.byName, n.marked = nil, nil
	}
	t.has.Xattrs = t.has.Xattrs || len(t.at(fuse.Root).xattrs) > 0
}

// cleanName gives a path below the root, "" for the root itself.
func cleanName(name string) (string, bool) {
	if name == "" || len(name) > 4096 || strings.ContainsRune(name, 0) {
		return "", false
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	switch {
	case clean == "." || clean == "/":
		return "", true
	case clean == ".." || strings.HasPrefix(clean, "../"):
		return "", false
	}
	return clean, !slices.ContainsFunc(strings.Split(clean, "/"), func(p string) bool { return len(p) > 255 })
}

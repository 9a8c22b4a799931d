package export

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"

	"berth/build/session"
	"berth/kernel/tree"
)

// treeFS shows a snapshot's tree to the library that sends files to clients.
type treeFS struct {
	root  *tree.Dir
	epoch *time.Time // every file's time, or nil
}

// inode names a file by what all its hard links share.
type inode struct{ dev, ino uint64 }

// Walk tells all files below target, each directory before what is in it, names sorted.
func (t *treeFS) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) (err error) {
	defer session.Survive(&err) // it is walked on goroutines of the library's
	target = strings.Trim(path.Clean("/"+target), "/")
	dir, _, err := t.root.Open(target)
	if err != nil {
		return err
	}
	defer dir.Close()
	w := &treeWalk{treeFS: t, ctx: ctx, seen: map[inode]string{}, fn: fn}
	return w.walk(dir, target)
}

// treeWalk is one walk.
type treeWalk struct {
	*treeFS
	ctx  context.Context
	seen map[inode]string // files with several names, by the first
	fn   fs.WalkDirFunc
	down tree.Descent
}

func (t *treeWalk) walk(dir *tree.Dir, at string) error {
	names, err := dir.Names()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		st, err := t.stat(dir, name, path.Join(at, name), t.seen)
		if err != nil {
			return err
		}
		err = t.fn(st.Path, &fsutil.DirEntryInfo{Stat: st}, nil)
		if errors.Is(err, fs.SkipDir) {
			if st.IsDir() {
				continue
			}
			return nil
		}
		if err != nil {
			return err
		}
		if st.IsDir() {
			if err := t.below(dir, name, st.Path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *treeWalk) below(dir *tree.Dir, name, at string) error {
	sub, err := t.down.Enter(dir, name)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := t.walk(sub, at); err != nil {
		return err
	}
	return t.down.Leave(sub)
}

// stat describes a file as the wire has it. A file that was told under another name is a link to that.
func (t *treeFS) stat(dir *tree.Dir, name, at string, seen map[inode]string) (*fstypes.Stat, error) {
	st, err := dir.Stat(name)
	if err != nil {
		return nil, err
	}
	out := &fstypes.Stat{Path: at, Mode: uint32(tree.FileMode(st.Mode)), Uid: st.UID, Gid: st.GID, ModTime: st.Mtime.Sec*1e9 + st.Mtime.Nsec}
	if t.epoch != nil {
		out.ModTime = t.epoch.UnixNano()
	}
	if st.IsDir() {
		return out, t.xattrs(dir, name, out)
	}
	out.Size = st.Size
	switch st.Type() {
	case tree.TypeSymlink:
		if out.Linkname, err = dir.Readlink(name); err != nil {
			return nil, err
		}
		return out, nil
	case tree.TypeChar, tree.TypeBlock:
		out.Devmajor, out.Devminor = int64(st.Major), int64(st.Minor)
	}
	if st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := seen[id]; ok {
			out.Linkname, out.Size = first, 0
		} else {
			seen[id] = at
		}
	}
	return out, t.xattrs(dir, name, out)
}

func (t *treeFS) xattrs(dir *tree.Dir, name string, out *fstypes.Stat) error {
	list, err := dir.Xattrs(name)
	if err != nil {
		return err
	}
	for _, k := range list {
		v, ok, err := dir.Xattr(name, k)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if out.Xattrs == nil {
			out.Xattrs = map[string][]byte{}
		}
		out.Xattrs[k] = v
	}
	return nil
}

// Open opens a file. Links on the way lead nowhere outside.
func (t *treeFS) Open(name string) (io.ReadCloser, error) {
	return t.root.OpenFile(strings.Trim(path.Clean("/"+name), "/"))
}

// emptyFS has nothing in it: the tree of a result without a step.
type emptyFS struct{}

func (emptyFS) Walk(context.Context, string, fs.WalkDirFunc) error { return nil }

func (emptyFS) Open(name string) (io.ReadCloser, error) {
	return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
}

// plusFS is a tree with files beside it in its root: attestations. They replace what is called the same.
type plusFS struct {
	fsutil.FS
	more map[string]plusFile
}

type plusFile struct {
	stat    *fstypes.Stat
	content []byte
}

func (p *plusFS) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	var left []string
	if strings.Trim(target, "/.") == "" {
		for name := range p.more {
			left = append(left, name)
		}
		slices.Sort(left)
	}
	next := func(before string) error {
		for len(left) > 0 && (before == "" || left[0] < before) {
			st := p.more[left[0]].stat
			left = left[1:]
			if err := fn(st.Path, &fsutil.DirEntryInfo{Stat: st.Clone()}, nil); err != nil {
				return err
			}
		}
		return nil
	}
	err := p.FS.Walk(ctx, target, func(name string, e fs.DirEntry, err error) error {
		if top, _, below := strings.Cut(name, "/"); !below {
			if err := next(top); err != nil {
				return err
			}
		}
		if _, replaced := p.more[name]; replaced {
			if e != nil && e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		return fn(name, e, err)
	})
	if err != nil {
		return err
	}
	return next("")
}

func (p *plusFS) Open(name string) (io.ReadCloser, error) {
	if f, ok := p.more[strings.Trim(path.Clean("/"+name), "/")]; ok {
		return io.NopCloser(bytes.NewReader(f.content)), nil
	}
	return p.FS.Open(name)
}

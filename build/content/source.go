package content

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/build/snapshot"
	"berth/kernel/tree"
)

// source is a tree to select from. Paths are clean, without a leading slash; "" is the root.
type source interface {
	// lookup finds a file without following a link, neither on the way nor at the end.
	lookup(name string) (snapshot.Entry, bool, error)
	// names lists a directory, sorted.
	names(dir string) ([]string, error)
	// content completes an entry with what only reading the file tells.
	content(e *snapshot.Entry) error
	close()
}

func open(ctx context.Context, s *snapshot.Snapshot) (source, error) {
	if t := s.Local(); t != nil {
		if index := t.Index(); index != nil {
			return indexed{index}, nil
		}
	}
	root, err := s.Open(ctx)
	if err != nil {
		return nil, err
	}
	return &mounted{ctx: ctx, root: root, hash: sha256.New(), buf: make([]byte, 128<<10)}, nil
}

// indexed reads an index: the disk is not touched.
type indexed struct{ snapshot.Index }

func (x indexed) lookup(name string) (snapshot.Entry, bool, error) {
	if name == "" {
		return snapshot.Entry{Mode: tree.TypeDir | 0o755}, true, nil
	}
	i := x.Find(name)
	if i == x.Len() {
		return snapshot.Entry{}, false, nil
	}
	e := x.At(i)
	return e, e.Path == name, nil
}

func (x indexed) names(dir string) (list []string, err error) {
	prefix := dir + "/"
	i := 0
	if dir == "" {
		prefix = ""
	} else {
		i = x.Find(prefix)
	}
	for i < x.Len() {
		name, below := strings.CutPrefix(x.At(i).Path, prefix)
		if !below {
			break
		}
		if slash := strings.IndexByte(name, '/'); slash >= 0 {
			name = name[:slash] // a directory without an entry of its own
		}
		list = append(list, name)
		next := prefix + name
		if i++; i < x.Len() && strings.HasPrefix(x.At(i).Path, next+"/") {
			i = x.Find(next + "/\xff\xff\xff\xff")
			for i < x.Len() && strings.HasPrefix(x.At(i).Path, next+"/") {
				i++
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

func (x indexed) content(*snapshot.Entry) error { return nil }

func (x indexed) close() {}

// mounted reads a mounted tree, or a directory.
type mounted struct {
	ctx  context.Context // of one digest
	root *tree.Dir
	hash hash.Hash
	buf  []byte
}

func (m *mounted) lookup(name string) (snapshot.Entry, bool, error) {
	st, found, err := m.root.Lookup(name)
	if err != nil || !found || st.IsWhiteout() {
		return snapshot.Entry{}, false, err
	}
	e := snapshot.EntryOf(&st)
	e.Path = name
	if st.Type() == tree.TypeSymlink {
		dir, _, err := m.root.Open(parentOf(name))
		if err != nil {
			return e, false, err
		}
		defer dir.Close()
		e.Link, err = dir.Readlink(path.Base(name))
		return e, err == nil, err
	}
	return e, true, nil
}

func (m *mounted) names(dir string) ([]string, error) {
	d, _, err := m.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	list, err := d.Names()
	slices.Sort(list)
	return list, err
}

func (m *mounted) content(e *snapshot.Entry) error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	if e.Mode&tree.TypeMask != tree.TypeRegular {
		return nil
	}
	f, err := m.root.OpenFile(e.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := e.AddXattrs(f); err != nil {
		return err
	}
	m.hash.Reset()
	for {
		n, err := f.Read(m.buf)
		m.hash.Write(m.buf[:n])
		switch {
		case errors.Is(err, io.EOF):
			e.Digest = digest.NewDigest(digest.SHA256, m.hash)
			return nil
		case err != nil:
			return err
		case m.ctx.Err() != nil:
			return m.ctx.Err()
		}
	}
}

func (m *mounted) close() { m.root.Close() }

func parentOf(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return ""
}

func join(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}

// cleaned gives a path below the root; ".." stays inside.
func cleaned(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

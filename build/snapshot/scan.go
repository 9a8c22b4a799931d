package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/kernel/tree"
)

// Identified is an Index that knows the identity of its tree, for who keeps it between builds.
type Identified interface {
	Identity() digest.Digest // "": it does not
}

func treeIdentity(ctx context.Context, t Tree) (digest.Digest, error) {
	index := t.Index()
	if i, ok := index.(Identified); ok {
		if d := i.Identity(); d != "" {
			return d, nil
		}
	}
	if index == nil {
		entries, err := Scan(ctx, t.Dir())
		if err != nil {
			return "", err
		}
		index = entries
	}
	return IndexIdentity(index), nil
}

// IndexIdentity is the identity of a tree with this index.
func IndexIdentity(index Index) digest.Digest {
	h := sha256.New()
	h.Write([]byte("tree\n"))
	var buf []byte
	for i := range index.Len() {
		e := index.At(i)
		buf = e.Append(buf[:0])
		h.Write(buf)
	}
	return digest.NewDigest(digest.SHA256, h)
}

// Append writes all that an entry says, times it has none, so that no two different entries write the same.
func (e *Entry) Append(b []byte) []byte {
	b = appendText(b, e.Path)
	return e.AppendLooks(b)
}

// AppendLooks is Append without the path.
func (e *Entry) AppendLooks(b []byte) []byte {
	for _, n := range []uint32{e.Mode, e.UID, e.GID, e.Major, e.Minor} {
		b = strconv.AppendUint(b, uint64(n), 10)
		b = append(b, ' ')
	}
	b = appendText(b, e.Link)
	b = appendText(b, string(e.Digest))
	for _, x := range e.Xattrs {
		b = appendText(b, x.Name)
		b = appendText(b, x.Value)
	}
	return append(b, '\n')
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// Scan reads a whole tree: the index of one that comes without.
func Scan(ctx context.Context, dir string) (Entries, error) {
	root, err := tree.OpenDir(dir)
	if err != nil {
		return nil, fault.In(err, "scan tree")
	}
	defer root.Close()
	s := &scanner{ctx: ctx, hash: sha256.New(), buf: make([]byte, 128<<10)}
	if err := s.dir(root, ""); err != nil {
		return nil, fault.In(err, "scan tree")
	}
	s.list.Sort()
	return s.list, nil
}

type scanner struct {
	ctx  context.Context // of one Scan
	list Entries
	hash hash.Hash
	buf  []byte
	down tree.Descent
}

func (s *scanner) dir(d *tree.Dir, name string) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	names, err := d.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		st, err := d.Stat(n)
		if err != nil {
			return err
		}
		e, err := s.entry(d, n, &st)
		if err != nil {
			return err
		}
		e.Path = joinPath(name, n)
		s.list = append(s.list, e)
		if !st.IsDir() {
			continue
		}
		if err := s.below(d, n, e.Path); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) below(d *tree.Dir, base, name string) error {
	sub, err := s.down.Enter(d, base)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := s.dir(sub, name); err != nil {
		return err
	}
	return s.down.Leave(sub)
}

func (s *scanner) entry(d *tree.Dir, base string, st *tree.Stat) (Entry, error) {
	e := EntryOf(st)
	var err error
	switch st.Type() {
	case tree.TypeSymlink:
		e.Link, err = d.Readlink(base)
	case tree.TypeRegular:
		var f *tree.File
		if f, _, err = d.OpenEntry(base); err != nil {
			return e, err
		}
		defer f.Close()
		if err = e.AddXattrs(f); err == nil {
			e.Digest, err = s.content(f)
		}
	case tree.TypeDir:
		var attrs []string
		if attrs, err = d.Xattrs(base); err == nil && len(attrs) > 0 {
			err = e.addXattrs(attrs, func(a string) ([]byte, bool, error) { return d.Xattr(base, a) })
		}
	}
	return e, err
}

func (s *scanner) content(f *tree.File) (digest.Digest, error) {
	s.hash.Reset()
	for {
		n, err := f.Read(s.buf)
		s.hash.Write(s.buf[:n])
		switch {
		case errors.Is(err, io.EOF):
			return digest.NewDigest(digest.SHA256, s.hash), nil
		case err != nil:
			return "", err
		case s.ctx.Err() != nil:
			return "", s.ctx.Err()
		}
	}
}

// EntryOf makes an entry of what stat(2) tells. A link's permissions, which mean nothing, are left out.
func EntryOf(st *tree.Stat) Entry {
	e := Entry{Mode: st.Mode, UID: st.UID, GID: st.GID}
	switch st.Type() {
	case tree.TypeRegular:
		e.Size = st.Size
	case tree.TypeSymlink:
		e.Mode = tree.TypeSymlink | 0o777
	case tree.TypeChar, tree.TypeBlock:
		e.Major, e.Minor = st.Major, st.Minor
	}
	return e
}

// Counted is the extended attribute that belongs to a file's content: others are left out of digests, as BuildKit does.
const Counted = "security.capability"

// AddXattrs reads the attributes that count.
func (e *Entry) AddXattrs(f *tree.File) error {
	attrs, err := f.Xattrs()
	if err != nil || len(attrs) == 0 {
		return err
	}
	return e.addXattrs(attrs, f.Xattr)
}

func (e *Entry) addXattrs(attrs []string, get func(string) ([]byte, bool, error)) error {
	if !slices.Contains(attrs, Counted) {
		return nil
	}
	v, ok, err := get(Counted)
	if err == nil && ok {
		e.Xattrs = append(e.Xattrs, Xattr{Name: Counted, Value: string(v)})
	}
	return err
}

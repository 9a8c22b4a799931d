package blob

import (
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/kernel/tree"
)

// Measure tells of each blob on disk its size and the bytes of its real blocks, and the same of the store's directories. The
// directory of blobs being written is not among them.
func (s *Store) Measure(blob func(d digest.Digest, size, disk int64), dir func(path string, disk int64)) error {
	for _, name := range []string{"", string(digest.SHA256), string(digest.SHA512)} {
		if err := s.measureDir(name, blob, dir); err != nil {
			return fault.In(err, "measure blobs")
		}
	}
	return nil
}

func (s *Store) measureDir(name string, blob func(digest.Digest, int64, int64), dir func(string, int64)) error {
	d, err := tree.OpenDir(filepath.Join(s.root, name))
	if err != nil {
		return err
	}
	defer d.Close()
	st, err := d.Stat("")
	if err != nil {
		return err
	}
	dir(name, st.Blocks*512)
	if name == "" {
		return nil
	}
	names, err := d.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		st, err := d.Stat(n)
		if tree.Missing(err) {
			continue // deleted meanwhile
		}
		if err != nil {
			return err
		}
		blob(digest.NewDigestFromEncoded(digest.Algorithm(name), n), st.Size, st.Blocks*512)
	}
	return nil
}

// Size tells the size of a blob, 0 when it is not there.
func (s *Store) Size(d digest.Digest) int64 {
	b, err := s.Open(d)
	if err != nil {
		return 0
	}
	defer b.Close()
	return b.Size
}

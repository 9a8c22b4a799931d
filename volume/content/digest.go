package content

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"

	"berth/base/tarstream"
)

// digest is the sum of what an archive holds, whatever its encoding: of each entry, in order, its description and its stored bytes.
type digest struct {
	h       hash.Hash
	entries int64
}

func newDigest() *digest { return &digest{h: sha256.New()} }

// entry adds a description. Lengths come before texts, so that nothing can be moved from one field to the next.
func (d *digest) entry(h *tarstream.Header, attrs []attribute) {
	d.entries++
	fmt.Fprintf(d.h, "%c %o %d %d %d.%d %d.%d %d:%d %d %d:%s %d:%s\n", h.Type, h.Mode, h.UID, h.GID, h.ModTime.Sec, h.ModTime.Nsec,
		h.Access.Sec, h.Access.Nsec, h.Major, h.Minor, h.Size, len(h.Name), h.Name, len(h.Linkname), h.Linkname)
	for _, f := range h.Sparse {
		fmt.Fprintf(d.h, "s %d %d\n", f.Offset, f.Length)
	}
	attrs = slices.Clone(attrs)
	slices.SortFunc(attrs, func(a, b attribute) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	for _, a := range attrs {
		fmt.Fprintf(d.h, "x %d:%s %d:%s\n", len(a.name), a.name, len(a.value), a.value)
	}
}

// Write adds stored bytes.
func (d *digest) Write(b []byte) (int, error) { return d.h.Write(b) }

func (d *digest) sum() string { return hex.EncodeToString(d.h.Sum(nil)) }

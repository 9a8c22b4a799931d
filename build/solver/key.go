package solver

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	digest "github.com/opencontainers/go-digest"

	"berth/build/snapshot"
)

// keyVersion is part of each key: what a key is made of may change only together with it.
const keyVersion = "berth.build.key.v1"

// keyHash hashes strings so that no two lists of them give the same bytes.
type keyHash struct{ h hash.Hash }

func newKey(kind string) keyHash {
	k := keyHash{sha256.New()}
	k.add(keyVersion)
	k.add(kind)
	return k
}

func (k keyHash) add(s string) {
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(len(s)))
	k.h.Write(n[:])
	k.h.Write([]byte(s))
}

func (k keyHash) digest() digest.Digest { return digest.NewDigest(digest.SHA256, k.h) }

// quickKey is the key of an operation on inputs of these identities.
func quickKey(op digest.Digest, inputs []digest.Digest) digest.Digest {
	k := newKey("quick")
	k.add(string(op))
	for _, in := range inputs {
		k.add(string(in))
	}
	return k.digest()
}

// contentKey is the key of an operation that reads this of its inputs: of each either one identity, or the digests of
// what its selectors select.
func contentKey(op digest.Digest, inputs []reading) digest.Digest {
	k := newKey("content")
	k.add(string(op))
	for _, in := range inputs {
		if in.selected == nil {
			k.add("identity")
			k.add(string(in.identity))
			continue
		}
		k.add("selected")
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(in.selected)))
		k.add(string(n[:]))
		for _, d := range in.selected {
			k.add(string(d))
		}
	}
	return k.digest()
}

// reading is what an operation reads of one input.
type reading struct {
	identity digest.Digest
	selected []digest.Digest // nil: the whole
}

// ReadError says that what a step reads of an input cannot be known. The tree is that input's; it belongs to the build.
type ReadError struct {
	Input int // of the step, counted from 0
	Tree  *snapshot.Snapshot
	Err   error
}

// Error is the text of the cause.
func (e *ReadError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *ReadError) Unwrap() error { return e.Err }

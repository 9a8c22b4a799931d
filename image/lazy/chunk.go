package lazy

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"berth/base/fault"
)

// chunk is a stretch of a file.
type chunk struct {
	at, size int64 // in the file
	off, end int64 // in the blob: where its compressed stream begins, and where it ends at the latest
	inner    int64 // bytes of the stream before it
	sum      [sha256.Size]byte
	zero     bool // all zeros: nothing is fetched
}

// chunker gathers the chunks of all files of a TOC.
type chunker struct {
	list    []chunk
	offsets []int64 // at which streams begin, sorted, with the TOC's own at the end
}

func newChunker(t *toc) *chunker {
	c := &chunker{offsets: []int64{t.offset}}
	for i := range t.entries {
		if e := &t.entries[i]; (e.Type == "reg" && e.Size > 0 || e.Type == "chunk") && e.Offset >= 0 {
			c.offsets = append(c.offsets, e.Offset)
		}
	}
	slices.Sort(c.offsets)
	c.offsets = slices.Compact(c.offsets)
	return c
}

// add takes the chunks of one file: its own entry and those that follow it. They must cover it without gaps, each with a
// digest.
func (c *chunker) add(file *entry, more []entry) (first, count int, err error) {
	first = len(c.list)
	if file.Size == 0 {
		return first, 0, nil
	}
	at := int64(0)
	for i := -1; i < len(more); i++ {
		e := file
		if i >= 0 {
			e = &more[i]
		}
		k := chunk{at: e.ChunkOffset, size: e.ChunkSize, off: e.Offset, inner: e.InnerOffset, zero: e.ChunkType == "zeros"}
		if k.size == 0 {
			k.size = file.Size - k.at
		}
		sum := e.ChunkDigest
		if sum == "" && len(more) == 0 {
			sum = file.Digest
		}
		if k.at != at || k.size <= 0 || k.size > file.Size-at || k.inner < 0 || k.inner > chunkMax || k.size > chunkMax-k.inner && !k.zero {
			return 0, 0, fault.New(fault.NotImplemented, "%q has chunks that cannot be served", shorten(file.Name))
		}
		if at += k.size; !k.zero {
			if !k.parseSum(sum) {
				return 0, 0, fault.New(fault.NotImplemented, "%q has a chunk without a sha256 digest", shorten(file.Name))
			}
			if k.end = c.streamEnd(k.off); k.off < 0 || k.end <= k.off {
				return 0, 0, fault.New(fault.NotImplemented, "%q has a chunk outside of the layer", shorten(file.Name))
			}
			if last := i == len(more)-1; last && file.EndOffset > k.off {
				k.end = min(k.end, file.EndOffset)
			}
			// What follows in the stream is not ours; no compression makes its input much longer.
			n := k.inner + k.size
			k.end = min(k.end, k.off+n+n/64+64<<10)
		}
		c.list = append(c.list, k)
	}
	if at != file.Size {
		return 0, 0, fault.New(fault.NotImplemented, "the chunks of %q do not cover it", shorten(file.Name))
	}
	return first, len(c.list) - first, nil
}

// streamEnd is where the next stream begins.
func (c *chunker) streamEnd(off int64) int64 {
	i, found := slices.BinarySearch(c.offsets, off)
	if found {
		i++
	}
	if i == len(c.offsets) {
		return 0
	}
	return c.offsets[i]
}

func (k *chunk) parseSum(text string) bool {
	text, ok := strings.CutPrefix(text, "sha256:")
	if !ok || len(text) != 2*len(k.sum) {
		return false
	}
	_, err := hex.Decode(k.sum[:], []byte(text))
	return err == nil
}

package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
)

// bbolt trusts its pages: one that is not what it should be makes it panic, as early as in Open and in a goroutine of its own, where nobody can
// catch it. So the file is looked through before it is opened. A file (version 2 of the format; integers are the machine's, here little
// endian) is pages of one size, of which the first two are meta pages:
//
//	page    id u64, flags u16 (1 branch, 2 leaf, 4 meta), count u16, overflow u32 (further pages that belong to it), then
//	meta    magic u32, version u32, page size u32, flags u32, root bucket (page u64, sequence u64), free list u64, high water mark u64,
//	        transaction u64, FNV-1a of all before it in the meta u64
//	branch  count × (position u32, key size u32, page u64); positions count from the element
//	leaf    count × (flags u32 (1 the value is a bucket), position u32, key size u32, value size u32)
//	bucket  root page u64, sequence u64, and where the root is 0 a page of its own right behind
const (
	pageHeader   = 16
	pageBranch   = 1
	pageLeaf     = 2
	metaMagic    = 0xED0CDAED
	metaSize     = 64
	elementSize  = 16
	bucketHeader = 16
)

// checkPages reports what of a database's structure is damaged. A file that is not there, or empty, is a new database.
func checkPages(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(b) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	c := pageCheck{b: b, seen: map[uint64]bool{}}
	root, err := c.meta()
	if err != nil {
		return err
	}
	return c.tree(root, 0)
}

type pageCheck struct {
	b    []byte
	size uint64 // of a page
	high uint64 // pages from here on are not in use
	seen map[uint64]bool
}

var le = binary.LittleEndian

// meta finds the younger of the valid meta pages and gives the root bucket's page.
func (c *pageCheck) meta() (root uint64, err error) {
	var latest uint64
	for _, size := range []uint64{4096, uint64(os.Getpagesize()), 8192, 16384, 65536} {
		for n := range uint64(2) {
			at := n*size + pageHeader
			if at+metaSize > uint64(len(c.b)) {
				continue
			}
			m := c.b[at : at+metaSize]
			sum := fnv.New64a()
			sum.Write(m[:metaSize-8])
			if le.Uint32(m) != metaMagic || le.Uint32(m[4:]) != 2 || uint64(le.Uint32(m[8:])) != size || le.Uint64(m[56:]) != sum.Sum64() {
				continue
			}
			if tx := le.Uint64(m[48:]); root == 0 || tx > latest {
				latest, c.size, root, c.high = tx, size, le.Uint64(m[16:]), le.Uint64(m[40:])
			}
		}
	}
	if root == 0 {
		return 0, errors.New("no valid meta page")
	}
	return root, nil
}

// page gives a page's content with its overflow, once.
func (c *pageCheck) page(id uint64) ([]byte, error) {
	if id < 2 || id >= c.high || (id+1)*c.size > uint64(len(c.b)) {
		return nil, fmt.Errorf("page %d is beyond the end", id)
	}
	p := c.b[id*c.size:]
	if got := le.Uint64(p); got != id {
		return nil, fmt.Errorf("page %d says that it is %d", id, got)
	}
	pages := uint64(le.Uint32(p[12:])) + 1
	if pages > c.high-id || (id+pages)*c.size > uint64(len(c.b)) {
		return nil, fmt.Errorf("page %d has %d pages", id, pages)
	}
	for i := id; i < id+pages; i++ {
		if c.seen[i] {
			return nil, fmt.Errorf("page %d is in use twice", i)
		}
		c.seen[i] = true
	}
	return p[:pages*c.size], nil
}

const depthMax = 64 // of the tree; a real one has three levels

// tree checks the pages of one bucket.
func (c *pageCheck) tree(root uint64, depth int) error {
	_, err := c.subtree(root, nil, nil, depth)
	return err
}

// subtree checks a page and what is below it; all its keys are from least on and below limit. It gives the greatest.
func (c *pageCheck) subtree(id uint64, least, limit []byte, depth int) (greatest []byte, err error) {
	if depth > depthMax {
		return nil, fmt.Errorf("page %d is too deep", id)
	}
	p, err := c.page(id)
	if err != nil {
		return nil, err
	}
	if le.Uint16(p[8:]) == pageLeaf {
		return c.leaf(p, id, least, limit, depth)
	}
	if le.Uint16(p[8:]) != pageBranch {
		return nil, fmt.Errorf("page %d is of kind %#x", id, le.Uint16(p[8:]))
	}
	count := int(le.Uint16(p[10:]))
	type element struct {
		key []byte
		to  uint64
	}
	elements := make([]element, count)
	for i := range elements {
		e, rest, err := at(p, id, i)
		if err != nil {
			return nil, err
		}
		if elements[i].key, err = cut(rest, le.Uint32(e), le.Uint32(e[4:]), id); err != nil {
			return nil, err
		}
		elements[i].to = le.Uint64(e[8:])
	}
	if count == 0 {
		return nil, fmt.Errorf("page %d is empty", id)
	}
	greatest = least
	for i, e := range elements {
		if err := inOrder(id, i, e.key, greatest, limit); err != nil {
			return nil, err
		}
		below := limit
		if i+1 < count {
			below = elements[i+1].key
		}
		if greatest, err = c.subtree(e.to, e.key, below, depth+1); err != nil {
			return nil, err
		}
	}
	return greatest, nil
}

func (c *pageCheck) leaf(p []byte, id uint64, least, limit []byte, depth int) (greatest []byte, err error) {
	greatest = least
	for i := range int(le.Uint16(p[10:])) {
		e, rest, err := at(p, id, i)
		if err != nil {
			return nil, err
		}
		key, err := cut(rest, le.Uint32(e[4:]), le.Uint32(e[8:]), id)
		if err == nil {
			err = inOrder(id, i, key, greatest, limit)
		}
		if err != nil {
			return nil, err
		}
		value, err := cut(rest, le.Uint32(e[4:])+le.Uint32(e[8:]), le.Uint32(e[12:]), id)
		if err != nil {
			return nil, err
		}
		if le.Uint32(e)&1 != 0 {
			if err := c.bucket(value, id, depth); err != nil {
				return nil, err
			}
		}
		greatest = key
	}
	return greatest, nil
}

// bucket checks the value of a leaf's element that is a bucket.
func (c *pageCheck) bucket(value []byte, id uint64, depth int) error {
	if len(value) < bucketHeader {
		return fmt.Errorf("page %d: a bucket without a header", id)
	}
	if root := le.Uint64(value); root != 0 {
		return c.tree(root, depth+1)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || le.Uint16(inline[8:]) != pageLeaf {
		return fmt.Errorf("page %d: an inline bucket that is no leaf", id)
	}
	_, err := c.leaf(inline, id, nil, nil, depth+1)
	return err
}

// at gives a page's element and all of the page from there on.
func at(p []byte, id uint64, i int) (element, rest []byte, err error) {
	from := pageHeader + i*elementSize
	if from+elementSize > len(p) {
		return nil, nil, fmt.Errorf("page %d has no room for its element %d", id, i)
	}
	return p[from : from+elementSize], p[from:], nil
}

func cut(b []byte, from, size uint32, id uint64) ([]byte, error) {
	if uint64(from)+uint64(size) > uint64(len(b)) {
		return nil, fmt.Errorf("page %d: an element reaches beyond it", id)
	}
	return b[from : from+size], nil
}

// inOrder checks a key: greater than the one before, but for the first, which may be its ancestor's, and below the limit.
func inOrder(id uint64, i int, key, before, limit []byte) error {
	order := 1
	if before != nil {
		order = bytes.Compare(key, before)
	}
	if order < 0 || order == 0 && i > 0 || limit != nil && bytes.Compare(key, limit) >= 0 {
		return fmt.Errorf("page %d: its key %d is out of order", id, i)
	}
	return nil
}

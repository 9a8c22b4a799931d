package local

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"math"
	"os"
	"sort"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/snapshot"
)

// An index is a list of records, one for each file, in the order of snapshot.ComparePaths:
//
//	uvarint  length of the stat
//	stat     fsutil's, in protobuf, as the client sent it
//	sum      32 bytes: sha256 of the content. Only for regular files, those with several names included
//
// In its file a header stands before them: a magic with the version, the boot in which it was written, the number of records, the
// length of the list, and its sha256.

const (
	indexMagic  = "berth-tree-1\n"
	indexHeader = len(indexMagic) + bootLen + 8 + 8 + sha256.Size
	bootLen     = 36
	sumLen      = sha256.Size

	maxEntries = 16 << 20
	maxList    = math.MaxUint32
)

// index is what is in a tree. It is a snapshot.Index, and never changes.
type index struct {
	list    []byte
	offsets []uint32 // where each record begins
	id      [sumLen]byte
}

// Len is the number of files, the root left out.
func (x *index) Len() int { return len(x.offsets) }

// At gives a file.
func (x *index) At(i int) snapshot.Entry {
	raw, sum := x.record(i)
	st, _ := parseStat(raw) // was parsed before it came in
	e := st.entry()
	if sum != nil {
		e.Digest = digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(sum))
	}
	return e
}

// Find gives the first file that is not before path.
func (x *index) Find(path string) int {
	return sort.Search(len(x.offsets), func(i int) bool {
		raw, _ := x.record(i)
		return snapshot.ComparePaths(string(pathOf(raw)), path) >= 0
	})
}

// ID names the list with all that it says, times included: the same id is the same tree.
func (x *index) ID() digest.Digest {
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(x.id[:]))
}

// record gives the stat of a file, and the sum of its content if it has one.
func (x *index) record(i int) (raw, sum []byte) {
	rec := x.list[x.offsets[i]:]
	n, k := binary.Uvarint(rec)
	raw = rec[k : k+int(n)]
	if hasContent(raw) {
		sum = rec[k+int(n):][:sumLen]
	}
	return raw, sum
}

// builder makes an index. Records are appended in order; sums are filled in when they are known.
type builder struct {
	list    []byte
	offsets []uint32
}

// add appends a file and gives its number. sum may be nil if it is not known yet.
func (b *builder) add(raw, sum []byte) (int, error) {
	if len(b.offsets) >= maxEntries || int64(len(b.list))+int64(len(raw))+64 > maxList {
		return 0, fault.New(fault.Invalid, "the context has too many files")
	}
	b.offsets = append(b.offsets, uint32(len(b.list)))
	b.list = binary.AppendUvarint(b.list, uint64(len(raw)))
	b.list = append(b.list, raw...)
	if hasContent(raw) {
		if sum == nil {
			sum = make([]byte, sumLen)
		}
		b.list = append(b.list, sum...)
	}
	return len(b.offsets) - 1, nil
}

// sum gives the place of a file's sum.
func (b *builder) sum(i int) []byte {
	x := index{list: b.list, offsets: b.offsets}
	_, sum := x.record(i)
	return sum
}

// finish gives the index without the files that drop names.
func (b *builder) finish(drop map[int]bool) *index {
	if len(drop) > 0 {
		whole := index{list: b.list, offsets: b.offsets}
		*b = builder{}
		for i := range whole.offsets {
			if !drop[i] {
				raw, sum := whole.record(i)
				_, _ = b.add(raw, sum) // fitted before
			}
		}
	}
	return &index{list: b.list, offsets: b.offsets, id: sha256.Sum256(b.list)}
}

// write puts the index into a file, whole or not at all. It is not synced: see the package's words on boots.
func (x *index) write(path, boot string) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	head := make([]byte, 0, indexHeader)
	head = append(head, indexMagic...)
	head = append(head, padBoot(boot)...)
	head = binary.BigEndian.AppendUint64(head, uint64(len(x.offsets)))
	head = binary.BigEndian.AppendUint64(head, uint64(len(x.list)))
	head = append(head, x.id[:]...)
	_, err = f.Write(head)
	if err == nil {
		_, err = f.Write(x.list)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return err
}

// readIndex reads an index, and tells in which boot it was written. Whatever is wrong with the file is an error.
func readIndex(path string) (x *index, boot string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	head := make([]byte, indexHeader)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, "", err
	}
	damaged := func(what string) error { return fault.New(fault.Internal, "%s is damaged: %s", path, what) }
	if !bytes.HasPrefix(head, []byte(indexMagic)) {
		return nil, "", damaged("its beginning")
	}
	rest := head[len(indexMagic):]
	boot = unpadBoot(rest[:bootLen])
	count, size := binary.BigEndian.Uint64(rest[bootLen:]), binary.BigEndian.Uint64(rest[bootLen+8:])
	st, err := f.Stat()
	if err != nil {
		return nil, "", err
	}
	if count > maxEntries || size > maxList || st.Size() != int64(indexHeader)+int64(size) {
		return nil, "", damaged("its length")
	}
	x = &index{list: make([]byte, size), offsets: make([]uint32, 0, count)}
	if _, err := io.ReadFull(f, x.list); err != nil {
		return nil, "", err
	}
	x.id = sha256.Sum256(x.list)
	if !bytes.Equal(x.id[:], rest[bootLen+16:]) {
		return nil, "", damaged("its checksum")
	}
	if x.offsets, err = offsetsOf(x.list, x.offsets); err != nil || uint64(len(x.offsets)) != count {
		return nil, "", damaged("its records")
	}
	return x, boot, nil
}

// offsetsOf finds the records of a list.
func offsetsOf(list []byte, offsets []uint32) ([]uint32, error) {
	for at := 0; at < len(list); {
		n, k := binary.Uvarint(list[at:])
		if k <= 0 || n > uint64(len(list)-at-k) {
			return nil, fault.New(fault.Internal, "a record ends early")
		}
		offsets = append(offsets, uint32(at))
		raw := list[at+k:][:n]
		at += k + int(n)
		if hasContent(raw) {
			at += sumLen
		}
		if at > len(list) {
			return nil, fault.New(fault.Internal, "a record ends early")
		}
	}
	return offsets, nil
}

func padBoot(boot string) []byte {
	b := bytes.Repeat([]byte(" "), bootLen)
	copy(b, boot)
	return b
}

func unpadBoot(b []byte) string { return string(bytes.TrimRight(b, " ")) }

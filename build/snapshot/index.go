package snapshot

import (
	"slices"

	"github.com/opencontainers/go-digest"
)

// Tree is a directory on disk that nobody changes while it is used as a snapshot.
type Tree interface {
	Dir() string  // its path
	Index() Index // what is in it; nil: somebody has to look
	Close()       // called once, when the last handle is released
}

// Index tells what is in a tree without touching the disk: entries in the order of ComparePaths, the root's left out.
type Index interface {
	Len() int
	At(i int) Entry
	Find(path string) int // the first entry that is not before path
}

// Entry is one file of an index.
type Entry struct {
	Path     string        // below the root, without a leading slash
	Mode     uint32        // type and permissions, as stat(2) has them
	UID, GID uint32        //
	Size     int64         // of a regular file
	Major    uint32        // of a device
	Minor    uint32        // of a device
	Link     string        // target of a symbolic link
	Xattrs   []Xattr       // those that count, sorted by name
	Digest   digest.Digest // sha256 of a regular file's content
}

// Xattr is an extended attribute.
type Xattr struct{ Name, Value string }

// Entries is an Index in memory. Sort it when it is filled.
type Entries []Entry

// Len is the number of entries.
func (e Entries) Len() int { return len(e) }

// At gives an entry.
func (e Entries) At(i int) Entry { return e[i] }

// Find gives the first entry that is not before path.
func (e Entries) Find(path string) int {
	i, _ := slices.BinarySearchFunc(e, path, func(a Entry, p string) int { return ComparePaths(a.Path, p) })
	return i
}

// Sort puts the entries into order.
func (e Entries) Sort() {
	slices.SortFunc(e, func(a, b Entry) int { return ComparePaths(a.Path, b.Path) })
}

// ComparePaths orders paths so that what is in a directory follows it at once: as strings, with the slash before
// every other byte.
func ComparePaths[T string | []byte](a, b T) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		switch {
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		case a[i] < b[i]:
			return -1
		}
		return 1
	}
	return len(a) - len(b)
}

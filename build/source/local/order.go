package local

import (
	"bytes"
	"io/fs"
	"strings"

	"berth/base/fault"
	"berth/build/snapshot"
)

// order checks that a client's list of files is one: each in a directory that came before, in the order of the protocol, with
// names that are names.
type order struct {
	last []byte
	open [][]byte // directories that the next file may be in: each in the one before
}

// check takes the next file.
func (o *order) check(st *stat) error {
	dir, base := split(st.path)
	switch {
	case base == "" || base == "." || base == ".." || strings.IndexByte(base, 0) >= 0 || len(st.path) > 0 && st.path[0] == '/':
		return fault.New(fault.Invalid, "the client sent the path %q", st.path)
	case !oneKind(st.mode):
		return fault.New(fault.Invalid, "%s is of a kind that an image cannot hold", st.path)
	case o.last != nil && snapshot.ComparePaths(o.last, st.path) >= 0:
		return fault.New(fault.Invalid, "changes out of order: %q %q", st.path, o.last)
	}
	for len(o.open) > 0 && !bytes.Equal(o.open[len(o.open)-1], dir) {
		o.open = o.open[:len(o.open)-1]
	}
	if len(dir) > 0 && len(o.open) == 0 {
		return fault.New(fault.Invalid, "the client sent %q without its directory", st.path)
	}
	if st.mode.IsDir() {
		if len(o.open) >= maxNesting {
			return fault.New(fault.Invalid, "directories are nested more than %d deep", maxNesting)
		}
		o.open = append(o.open, bytes.Clone(st.path))
	}
	o.last = append(o.last[:0], st.path...)
	return nil
}

// oneKind reports whether a mode is that of one kind of file.
func oneKind(m fs.FileMode) bool {
	switch m & fs.ModeType {
	case 0, fs.ModeDir, fs.ModeSymlink, fs.ModeNamedPipe, fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		return true
	}
	return false
}

const maxNesting = 2048 // a path of 4096 bytes has no more

// split cuts a path into its directory, "" for the root, and its last element.
func split(path []byte) (dir []byte, base string) {
	i := bytes.LastIndexByte(path, '/')
	if i < 0 {
		return nil, string(path)
	}
	return path[:i], string(path[i+1:])
}

package local

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/build/snapshot"
)

// stat is a file as the client sees it. Its byte slices belong to the message it was read from.
type stat struct {
	path     []byte
	mode     fs.FileMode // Go's bits, which fsutil sends
	uid, gid uint32
	size     int64
	mtime    int64 // nanoseconds since 1970
	link     []byte
	major    int64
	minor    int64
	xattrs   bool // it has some: parse them with fullStat
	raw      []byte
}

// regular reports whether it is a regular file, be it another name of one.
func (s *stat) regular() bool { return s.mode&fs.ModeType == 0 }

// hardlink reports whether it is another name of a file that came before.
func (s *stat) hardlink() bool { return s.regular() && len(s.link) > 0 }

// Fields of fsutil's Stat and Packet, by number.
const (
	statPath = 1 + iota
	statMode
	statUID
	statGID
	statSize
	statMtime
	statLink
	statMajor
	statMinor
	statXattrs
)

// parseStat reads a Stat without copying. It is written by hand because it is done for each file of each context: an allocation
// here is what a context of a hundred thousand files costs.
func parseStat(raw []byte) (stat, error) {
	st := stat{raw: raw}
	r := fields{b: raw}
	for r.next() {
		switch r.num {
		case statPath:
			st.path = r.bytes
		case statMode:
			st.mode = fs.FileMode(uint32(r.v))
		case statUID:
			st.uid = uint32(r.v)
		case statGID:
			st.gid = uint32(r.v)
		case statSize:
			st.size = int64(r.v)
		case statMtime:
			st.mtime = int64(r.v)
		case statLink:
			st.link = r.bytes
		case statMajor:
			st.major = int64(r.v)
		case statMinor:
			st.minor = int64(r.v)
		case statXattrs:
			st.xattrs = true
		}
	}
	if r.bad {
		return stat{}, fault.New(fault.Invalid, "malformed message from the client")
	}
	return st, nil
}

// fields walks over the fields of a protobuf message: varints come in v, strings and messages in bytes.
type fields struct {
	b     []byte // what is left
	num   int
	v     uint64
	bytes []byte
	bad   bool
}

func (r *fields) next() bool {
	if len(r.b) == 0 || r.bad {
		return false
	}
	tag, k := uvarint(r.b)
	if k <= 0 {
		return r.fail()
	}
	r.b, r.num, r.v, r.bytes = r.b[k:], int(tag>>3), 0, nil
	switch tag & 7 {
	case 0:
		if r.v, k = uvarint(r.b); k <= 0 {
			return r.fail()
		}
		r.b = r.b[k:]
	case 1:
		return r.skip(8)
	case 2:
		n, k := uvarint(r.b)
		if k <= 0 || n > uint64(len(r.b)-k) {
			return r.fail()
		}
		r.bytes, r.b = r.b[k:k+int(n):k+int(n)], r.b[k+int(n):]
	case 5:
		return r.skip(4)
	default:
		return r.fail()
	}
	return true
}

func (r *fields) skip(n int) bool {
	if len(r.b) < n {
		return r.fail()
	}
	r.b = r.b[n:]
	r.num = 0
	return true
}

func (r *fields) fail() bool {
	r.bad = true
	return false
}

func uvarint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return binary.Uvarint(b)
}

// pathOf gives the path of a stat that was parsed before.
func pathOf(raw []byte) []byte {
	if len(raw) > 1 && raw[0] == statPath<<3|2 { // what everybody sends first
		if n, k := uvarint(raw[1:]); k > 0 && n <= uint64(len(raw)-1-k) {
			if rest := raw[1+k+int(n):]; len(rest) == 0 || rest[0] != raw[0] {
				return raw[1+k:][:n]
			}
		}
	}
	st, _ := parseStat(raw)
	return st.path
}

// hasContent reports whether a stat is a regular file's.
func hasContent(raw []byte) bool {
	st, err := parseStat(raw)
	return err == nil && st.regular()
}

// same reports whether two stats say the same of a file. Clients write extended attributes in any order.
func same(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	if len(a) != len(b) {
		return false
	}
	if st, err := parseStat(a); err != nil || !st.xattrs {
		return false
	}
	var x, y types.Stat
	if x.UnmarshalVT(a) != nil || y.UnmarshalVT(b) != nil {
		return false
	}
	ok := maps.EqualFunc(x.Xattrs, y.Xattrs, bytes.Equal)
	x.Xattrs, y.Xattrs = nil, nil
	return ok && x.EqualVT(&y)
}

// attrs gives the extended attributes that are taken over, sorted by name.
func (s *stat) attrs() []snapshot.Xattr {
	if !s.xattrs {
		return nil
	}
	var full types.Stat
	if full.UnmarshalVT(s.raw) != nil {
		return nil
	}
	var list []snapshot.Xattr
	for _, name := range slices.Sorted(maps.Keys(full.Xattrs)) {
		if keepXattr(name) {
			list = append(list, snapshot.Xattr{Name: name, Value: string(full.Xattrs[name])})
		}
	}
	return list
}

// keepXattr reports whether an attribute of the client's file means anything here. What overlayfs reads as its marks never does.
func keepXattr(name string) bool {
	switch {
	case strings.HasPrefix(name, "user.overlay."):
		return false
	case strings.HasPrefix(name, "user."), name == "security.capability":
		return true
	}
	return false
}

// unixMode gives type and permissions as stat(2) has them.
func (s *stat) unixMode() uint32 {
	m := uint32(s.mode.Perm())
	for _, b := range []struct {
		is  fs.FileMode
		bit uint32
	}{{fs.ModeSetuid, unix.S_ISUID}, {fs.ModeSetgid, unix.S_ISGID}, {fs.ModeSticky, unix.S_ISVTX}} {
		if s.mode&b.is != 0 {
			m |= b.bit
		}
	}
	switch {
	case s.mode.IsDir():
		return m | unix.S_IFDIR
	case s.mode&fs.ModeSymlink != 0:
		return m | unix.S_IFLNK
	case s.mode&fs.ModeNamedPipe != 0:
		return m | unix.S_IFIFO
	case s.mode&fs.ModeCharDevice != 0:
		return m | unix.S_IFCHR
	case s.mode&fs.ModeDevice != 0:
		return m | unix.S_IFBLK
	case s.mode&fs.ModeSocket != 0:
		return m | unix.S_IFSOCK
	}
	return m | unix.S_IFREG
}

// entry gives it as an index does.
func (s *stat) entry() snapshot.Entry {
	e := snapshot.Entry{Path: string(s.path), Mode: s.unixMode(), UID: s.uid, GID: s.gid, Major: uint32(s.major), Minor: uint32(s.minor), Xattrs: s.attrs()}
	switch {
	case s.regular():
		e.Size = s.size
	case s.mode&fs.ModeSymlink != 0:
		e.Link = string(s.link)
	}
	return e
}

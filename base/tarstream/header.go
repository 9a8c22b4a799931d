package tarstream

import (
	"time"
)

// The types of entries, as the archive writes them. Old types are normalised: contiguous files and the NUL type are
// Regular (or Directory when the name ends in a slash).
const (
	Regular   = '0'
	HardLink  = '1'
	Symlink   = '2'
	Char      = '3'
	Block     = '4'
	Directory = '5'
	Fifo      = '6'
	GNUSparse = 'S'
	global    = 'g'
	extended  = 'x'
	longName  = 'L'
	longLink  = 'K'
)

// Header describes an entry.
type Header struct {
	Name     string // as in the archive: may be absolute, dirty or hostile
	Linkname string // target of a hard or symbolic link
	Type     byte
	Mode     int64 // permissions; other bits as found
	UID, GID int64
	Uname    string
	Gname    string
	Size     int64 // bytes of the file, holes included
	Sparse   []Fragment
	IsSparse bool  // Sparse holds the file's data fragments; false: the payload is the file
	Stored   int64 // bytes of payload in the archive, without a sparse map
	ModTime  Time
	Access   Time // zero when not recorded
	Major    int64
	Minor    int64
	Xattrs   map[string]string // names without the SCHILY.xattr. prefix
	Comment  string            // PAX's comment on this entry, which means nothing to other readers
}

// Fragment is a stretch of data in a sparse file.
type Fragment struct{ Offset, Length int64 }

// Time is seconds and nanoseconds since 1970.
type Time struct {
	Sec  int64
	Nsec int64
}

// Std is the time as Go's.
func (t Time) Std() time.Time { return time.Unix(t.Sec, t.Nsec) }

// headerOnly reports types that have no payload, whatever their size field says.
func headerOnly(typ byte) bool {
	switch typ {
	case HardLink, Symlink, Char, Block, Directory, Fifo:
		return true
	}
	return false
}

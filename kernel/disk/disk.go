// Package disk tells how full a file system is.
package disk

import (
	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Space is the room of a file system, in bytes, as df(1) shows it.
type Space struct {
	Total int64 // for users and their files: what is free and what is used
	Free  int64 // for whoever has no privileges: what is reserved for root is not free
}

// Used is the share of the room that is used, in percent.
func (s Space) Used() float64 {
	if s.Total <= 0 {
		return 0
	}
	return 100 * float64(s.Total-s.Free) / float64(s.Total)
}

// Of gives the room of the file system on which path lies; statfs(2).
func Of(path string) (Space, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(path, &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Space{}, fault.Wrap(fault.Internal, err, "how full is %s", path)
		}
		break
	}
	size := int64(st.Bsize)
	used := int64(st.Blocks - st.Bfree)
	return Space{Total: (used + int64(st.Bavail)) * size, Free: int64(st.Bavail) * size}, nil
}

package plugin

import (
	"io/fs"
	"syscall"
)

// inode tells files of the same path apart.
func inode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

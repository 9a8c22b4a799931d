package fuse

import (
	"context"

	"berth/kernel/tree"
)

// Node is the number of a file, the same for as long as any server serves the connection.
type Node uint64

// Root is the root directory's number.
const Root Node = 1

// Attr is what stat(2) tells of a file.
type Attr struct {
	Mode         uint32 // with the type's bits
	Nlink        uint32
	UID, GID     uint32
	Size         int64
	Major, Minor uint32 // of a device
	Mtime        tree.Time
}

// Statfs is what statfs(2) tells.
type Statfs struct{ Bytes, Files uint64 }

// Features say what a file system has, so that the kernel need not ask for what is not there.
type Features struct {
	Xattrs bool // some file has an extended attribute
	ACL    bool // some file has a POSIX access control list
}

// FS is a read-only file system that never changes. All methods but Fetch and Read answer from memory. Errors are errnos of
// golang.org/x/sys/unix, possibly wrapped; others become EIO. It is called by several goroutines at once.
type FS interface {
	Features() Features
	Statfs() Statfs
	// Attr gives a node's attributes; ESTALE for a number that was never given out.
	Attr(n Node) (Attr, error)
	// Lookup finds a name in a directory: ENOENT, or ENOTDIR.
	Lookup(dir Node, name string) (Node, error)
	// Entry gives the name at a position of a directory, counted from 0; ok is false past the end.
	Entry(dir Node, position int) (name string, n Node, ok bool)
	Readlink(n Node) (string, error)
	// Xattr gives an extended attribute, or ENODATA.
	Xattr(n Node, name string) ([]byte, error)
	Xattrs(n Node) ([]string, error)
	// Fetch waits until the stretch of the file can be read without waiting. ctx ends when nobody waits for it any more.
	Fetch(ctx context.Context, n Node, offset int64, size int) error
	// Read reads into b; less than len(b) only at the file's end.
	Read(ctx context.Context, n Node, b []byte, offset int64) (int, error)
}

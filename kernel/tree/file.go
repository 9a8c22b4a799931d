package tree

import (
	"io"

	"golang.org/x/sys/unix"
)

// File is an open regular file. Close it; it has no finalizer.
type File struct {
	fd   int
	name string
}

// FD is the descriptor; it stays the File's.
func (f *File) FD() int { return f.fd }

// Close releases the descriptor.
func (f *File) Close() error {
	err := unix.Close(f.fd)
	f.fd = -1
	return wrap("close", f.name, err)
}

// Write appends at the file's position, all or an error.
func (f *File) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Write(f.fd, p[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, wrap("write", f.name, err)
		}
		done += n
	}
	return done, nil
}

// Read reads from the file's position.
func (f *File) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(f.fd, p)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, wrap("read", f.name, err)
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// ReadAt reads at an offset, all of p or an error.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pread(f.fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return done, wrap("read", f.name, err)
		case n == 0:
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

// Seek moves the position, as lseek(2); it may lie beyond the end, which leaves a hole when written there.
func (f *File) Seek(offset int64, whence int) (int64, error) {
	at, err := unix.Seek(f.fd, offset, whence)
	return at, wrap("seek", f.name, err)
}

// Truncate sets the size; growing makes a hole.
func (f *File) Truncate(size int64) error {
	return wrap("truncate", f.name, unix.Ftruncate(f.fd, size))
}

// Chown sets the owner.
func (f *File) Chown(uid, gid int) error { return wrap("chown", f.name, unix.Fchown(f.fd, uid, gid)) }

// Chmod sets the permissions.
func (f *File) Chmod(perm uint32) error { return wrap("chmod", f.name, unix.Fchmod(f.fd, perm)) }

// Chtimes sets access and modification time.
func (f *File) Chtimes(atime, mtime Time) error {
	ts := [2]unix.Timespec{timespec(atime), timespec(mtime)}
	return wrap("utimes", f.name, unix.UtimesNanoAt(f.fd, "", ts[:], unix.AT_EMPTY_PATH))
}

// SetXattr sets an extended attribute.
func (f *File) SetXattr(attr string, value []byte) error {
	return wrap("setxattr "+attr, f.name, unix.Fsetxattr(f.fd, attr, value, 0))
}

// Stat describes the open file.
func (f *File) Stat() (Stat, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return Stat{}, wrap("stat", f.name, err)
	}
	return fromUnix(&st), nil
}

// NextData finds the next stretch of data at or after off; ok is false when only a hole is left. File systems without holes
// report one stretch.
func (f *File) NextData(off int64) (start, end int64, ok bool, err error) {
	start, err = unix.Seek(f.fd, off, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return 0, 0, false, nil
	}
	if err != nil {
		return 0, 0, false, wrap("seek data", f.name, err)
	}
	end, err = unix.Seek(f.fd, start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, false, wrap("seek hole", f.name, err)
	}
	return start, end, true, nil
}

// WriteAt writes at an offset, all or an error.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pwrite(f.fd, p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, wrap("write", f.name, err)
		}
		done += n
	}
	return done, nil
}

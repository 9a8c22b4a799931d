package tree

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// ShareFrom makes f, which is empty, a copy of from that shares its blocks until one of them is written: FICLONE of
// ioctl_ficlone(2), as btrfs, xfs and bcachefs have it. done is false where these two files cannot share; f is empty then.
func (f *File) ShareFrom(from *File) (done bool, err error) {
	err = unix.IoctlFileClone(f.fd, from.fd)
	switch err {
	case nil:
		return true, nil
	case unix.EOPNOTSUPP, unix.EXDEV, unix.EINVAL, unix.ENOTTY, unix.ENOSYS, unix.EPERM, unix.ETXTBSY, unix.EBADF:
		return false, nil
	}
	return false, wrap("ficlone", f.name, err)
}

// CopyFrom copies n bytes at an offset of from to the same offset of f, inside the kernel where it can (copy_file_range(2),
// between file systems since Linux 5.3), else through buf. A from that ends before is io.ErrUnexpectedEOF.
func (f *File) CopyFrom(from *File, off, n int64, buf []byte) error {
	for n > 0 {
		in, out := off, off
		m, err := unix.CopyFileRange(from.fd, &in, f.fd, &out, int(min(n, 1<<30)), 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EXDEV || err == unix.EINVAL || err == unix.ENOSYS || err == unix.EOPNOTSUPP || err == unix.EPERM || err == unix.EBADF:
			return f.copyThrough(from, off, n, buf)
		case err != nil:
			return wrap("copy_file_range", f.name, err)
		case m == 0:
			// Either the end of the file, or a file system that says 0 for what it cannot do (procfs, FUSE of old kernels).
			return f.copyThrough(from, off, n, buf)
		}
		off, n = off+int64(m), n-int64(m)
	}
	return nil
}

func (f *File) copyThrough(from *File, off, n int64, buf []byte) error {
	for n > 0 {
		b := buf[:min(n, int64(len(buf)))]
		m, err := from.ReadAt(b, off)
		if m == 0 && errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := f.WriteAt(b[:m], off); err != nil {
			return err
		}
		off, n = off+int64(m), n-int64(m)
	}
	return nil
}

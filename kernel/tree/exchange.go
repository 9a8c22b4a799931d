package tree

import "golang.org/x/sys/unix"

// Exchange makes two paths of one file system change places at once: renameat2(2) with RENAME_EXCHANGE. A file system that
// cannot is Unsupported. What is mounted below either of them goes along.
func Exchange(a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	if err == unix.EINVAL || err == unix.ENOSYS {
		err = unix.ENOTSUP
	}
	return wrap("exchange", a, err)
}

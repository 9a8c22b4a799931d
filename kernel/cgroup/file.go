package cgroup

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// Cgroup files are read and written with bare system calls: os.File would register each with the
// network poller, which costs more than the write.

// writeFile writes value in one write, as cgroup files demand. The error is the bare errno.
func writeFile(path, value string) error {
	fd, err := open(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	err = writeAll(fd, value)
	unix.Close(fd)
	return err
}

func writeAll(fd int, value string) error {
	for {
		_, err := unix.Write(fd, []byte(value))
		if err != unix.EINTR {
			return err
		}
	}
}

// readFile reads a whole file. The error is the bare errno.
func readFile(path string) ([]byte, error) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 512) // nearly all are a line or two
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, err
		case n <= 0:
			return b, nil
		}
		b = b[:len(b)+n]
	}
}

func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// trimmed is the file's text without the last newline and blanks; "" when it cannot be read.
func trimmed(path string) string {
	b, err := readFile(path)
	if err != nil {
		return ""
	}
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == ' ') {
		b = b[:len(b)-1]
	}
	return string(b)
}

func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }

func itoa(n int64) string  { return strconv.FormatInt(n, 10) }
func utoa(n uint64) string { return strconv.FormatUint(n, 10) }

// atou reads a decimal number; "max" is the largest.
func atou(s string) (uint64, bool) {
	if s == "max" {
		return ^uint64(0), true
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

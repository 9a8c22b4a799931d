package mount

import (
	"errors"

	"golang.org/x/sys/unix"

	"berth/kernel/probe"
)

// ErrEscapes is a path whose links lead out of the directory that it is looked for in; the words are Docker's.
var ErrEscapes = errors.New("path concatenation escapes the base directory")

// CheckBeneath refuses with ErrEscapes a path below root that leads out of it by links, absolute ones among them, where OpenInRoot would
// take root for "/". What is not there is no error of its. It guards nothing, as names may change afterwards: OpenInRoot does. Uses
// openat2(RESOLVE_BENEATH), Linux 5.6; where a sandbox hides it, nothing is refused.
func CheckBeneath(have probe.Features, root int, p string) error {
	if !have.Has(probe.Openat2) {
		return nil
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(root, p, &how)
	switch err {
	case nil:
		unix.Close(fd)
	case unix.EXDEV:
		return ErrEscapes
	}
	return nil
}

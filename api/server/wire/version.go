package wire

import (
	"strconv"
	"strings"
)

// Version is a version of Docker's API, as the minor number of 1.x. What is newer than 1 is beyond every Version.
type Version int

// The versions that are served.
const (
	Oldest Version = 24
	Newest Version = 56
)

// String gives "1.44".
func (v Version) String() string { return "1." + strconv.Itoa(int(v)) }

// ParseVersion reads "1.44"; what follows a second point does not count, and what is no number counts as 0, as in Docker.
func ParseVersion(s string) Version {
	major, rest, _ := strings.Cut(s, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, _ := strconv.Atoi(major)
	b, _ := strconv.Atoi(minor)
	switch {
	case a < 1:
		return 0
	case a > 1 || b > 1<<20:
		return 1 << 20
	}
	return Version(b)
}

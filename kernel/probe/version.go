package probe

import (
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Version is a kernel's major and minor number.
type Version struct{ Major, Minor int }

// floor is the oldest kernel Berth runs on.
var floor = Version{5, 10}

// Less reports whether v is older than w.
func (v Version) Less(w Version) bool {
	return v.Major < w.Major || v.Major == w.Major && v.Minor < w.Minor
}

// String gives "6.18".
func (v Version) String() string { return strconv.Itoa(v.Major) + "." + strconv.Itoa(v.Minor) }

// KernelVersion is the running kernel's version, from uname(2). An unreadable release is 0.0.
func KernelVersion() Version { return version() }

var version = sync.OnceValue(func() Version {
	v, _ := ParseVersion(Release())
	return v
})

// Release is uname(2)'s release, such as "6.1.0-32-amd64".
func Release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// ParseVersion reads the two leading numbers of a kernel release; what follows them is a vendor's affair.
func ParseVersion(release string) (Version, bool) {
	major, rest, ok := leadingNumber(release)
	if !ok || len(rest) == 0 || rest[0] != '.' {
		return Version{}, false
	}
	minor, _, ok := leadingNumber(rest[1:])
	if !ok {
		return Version{}, false
	}
	return Version{major, minor}, true
}

func leadingNumber(s string) (n int, rest string, ok bool) {
	i := 0
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		if n > 1<<20 {
			return 0, s, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, s[i:], i > 0
}

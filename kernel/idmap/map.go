package idmap

import (
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// Range maps Size ids from Inside to those from Outside.
type Range struct{ Inside, Outside, Size uint32 }

// Map is a list of ranges that do not overlap, on either side.
type Map []Range

// Pair is the mapping of users and of groups.
type Pair struct{ Users, Groups Map }

// Overflow is the id that the kernel shows for what has no mapping (/proc/sys/kernel/overflowuid).
const Overflow = 65534

// maxRanges is the kernel's limit on lines (Linux 4.15).
const maxRanges = 340

// Spec gives an OCI specification's mappings.
func (m Map) Spec() []specs.LinuxIDMapping {
	list := make([]specs.LinuxIDMapping, len(m))
	for i, r := range m {
		list[i] = specs.LinuxIDMapping{ContainerID: r.Inside, HostID: r.Outside, Size: r.Size}
	}
	return list
}

// Parse reads ranges "inside:outside:size", separated by commas, as command lines and mount options
// (idmap=…) write them; blanks and '#' separate too. It checks the result.
func Parse(s string) (Map, error) {
	var m Map
	for part := range strings.FieldsFuncSeq(s, func(c rune) bool { return c == ',' || c == '#' || c == ' ' }) {
		f := strings.Split(part, ":")
		if len(f) != 3 {
			return nil, fault.New(fault.Invalid, "id mapping %q: give inside:outside:size, such as 0:100000:65536", part)
		}
		r, ok := parseRange(f)
		if !ok {
			return nil, fault.New(fault.Invalid, "id mapping %q: an id is a number from 0 to 4294967294", part)
		}
		m = append(m, r)
	}
	return m, m.Check()
}

// ParseProc reads the text of /proc/PID/uid_map or gid_map.
func ParseProc(text string) (Map, error) {
	var m Map
	for line := range strings.SplitSeq(text, "\n") {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			return nil, fault.New(fault.Internal, "not a line of a uid_map: %q", line)
		}
		r, ok := parseRange(f)
		if !ok {
			return nil, fault.New(fault.Internal, "not a line of a uid_map: %q", line)
		}
		m = append(m, r)
	}
	return m, nil
}

func parseRange(f []string) (r Range, ok bool) {
	for i, to := range [...]*uint32{&r.Inside, &r.Outside, &r.Size} {
		n, err := strconv.ParseUint(f[i], 10, 32)
		if err != nil {
			return r, false
		}
		*to = uint32(n)
	}
	return r, true
}

// Check refuses what the kernel would: no range, an empty one, ids past the last, overlaps, too many. An
// error names the range.
func (m Map) Check() error {
	if len(m) == 0 {
		return fault.New(fault.Invalid, "an id mapping needs at least one range")
	}
	if len(m) > maxRanges {
		return fault.New(fault.Invalid, "an id mapping has at most %d ranges, this one has %d", maxRanges, len(m))
	}
	for i, r := range m {
		switch {
		case r.Size == 0:
			return fault.New(fault.Invalid, "id mapping %v is empty: give a size above 0", r)
		case past(r.Inside, r.Size) || past(r.Outside, r.Size):
			return fault.New(fault.Invalid, "id mapping %v goes past the last id, 4294967294", r)
		}
		for _, o := range m[:i] {
			if overlap(r.Inside, r.Size, o.Inside, o.Size) {
				return fault.New(fault.Invalid, "id mappings %v and %v overlap inside the container", o, r)
			}
			if overlap(r.Outside, r.Size, o.Outside, o.Size) {
				return fault.New(fault.Invalid, "id mappings %v and %v overlap on the host", o, r)
			}
		}
	}
	return nil
}

// past: the last number, 2^32-1, means "no id" to the kernel.
func past(start, size uint32) bool { return uint64(start)+uint64(size) > 1<<32-1 }

func overlap(a, an, b, bn uint32) bool {
	return uint64(a) < uint64(b)+uint64(bn) && uint64(b) < uint64(a)+uint64(an)
}

// String gives "inside:outside:size".
func (r Range) String() string {
	return strconv.FormatUint(uint64(r.Inside), 10) + ":" + strconv.FormatUint(uint64(r.Outside), 10) + ":" + strconv.FormatUint(uint64(r.Size), 10)
}

// String gives the ranges, separated by commas: what Parse reads.
func (m Map) String() string {
	s := make([]string, len(m))
	for i, r := range m {
		s[i] = r.String()
	}
	return strings.Join(s, ",")
}

// Proc gives the text that uid_map and gid_map take.
func (m Map) Proc() string {
	return strings.ReplaceAll(strings.ReplaceAll(m.String(), ":", " "), ",", "\n") + "\n"
}

// Out maps an id inside to the host's; false when it has none.
func (m Map) Out(id uint32) (uint32, bool) {
	for _, r := range m {
		if id >= r.Inside && id-r.Inside < r.Size {
			return r.Outside + (id - r.Inside), true
		}
	}
	return 0, false
}

// In maps a host id to the one inside; false when it has none.
func (m Map) In(id uint32) (uint32, bool) {
	for _, r := range m {
		if id >= r.Outside && id-r.Outside < r.Size {
			return r.Inside + (id - r.Outside), true
		}
	}
	return 0, false
}

// Root gives the host's user and group that are root inside; false when one has none.
func (p Pair) Root() (uid, gid uint32, ok bool) {
	uid, ok1 := p.Users.Out(0)
	gid, ok2 := p.Groups.Out(0)
	return uid, gid, ok1 && ok2
}

// Key names the pair's content, for caching namespaces of it.
func (p Pair) Key() string { return p.Users.String() + ";" + p.Groups.String() }

// Check checks both maps.
func (p Pair) Check() error {
	if err := p.Users.Check(); err != nil {
		return fault.In(err, "user ids")
	}
	return fault.In(p.Groups.Check(), "group ids")
}

// Lines lists a block of subordinate ids one after another from id 0 inside, as --userns-remap does.
func Lines(blocks []Block) Map {
	blocks = slices.Clone(blocks)
	slices.SortFunc(blocks, func(a, b Block) int {
		switch {
		case a.Start < b.Start:
			return -1
		case a.Start > b.Start:
			return 1
		}
		return 0
	})
	var m Map
	var next uint32
	for _, b := range blocks {
		m = append(m, Range{next, b.Start, b.Size})
		next += b.Size
	}
	return m
}

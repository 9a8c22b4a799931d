package idmap

import (
	"os"
	"strconv"
	"strings"

	"berth/base/fault"
)

// Block is a range of host ids that a user may hand on.
type Block struct{ Start, Size uint32 }

// Subordinate reads a user's blocks from /etc/subuid or /etc/subgid (subuid(5)). A line may name the user
// or give the number: both count. It is NotFound when there are none.
func Subordinate(file, user string, uid int) ([]Block, error) {
	b, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return nil, fault.Wrap(fault.Internal, err, "find the subordinate ids of %s", user)
	}
	blocks, err := ParseSubordinate(string(b), user, uid)
	if err != nil {
		return nil, fault.In(err, "%s", file)
	}
	if len(blocks) == 0 {
		return nil, fault.New(fault.NotFound, "no subordinate ids for user %s in %s: add a line such as %s:100000:65536", user, file, user)
	}
	return blocks, nil
}

// ParseSubordinate reads the text of such a file: lines "user:start:count". Comments, blank lines and
// other users' lines are passed over; a line of this user that has not the form is an error.
func ParseSubordinate(text, user string, uid int) ([]Block, error) {
	number := strconv.Itoa(uid)
	var blocks []Block
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, ":")
		if f[0] == "" || f[0] != user && (uid < 0 || f[0] != number) {
			continue
		}
		if len(f) != 3 {
			return nil, fault.New(fault.Invalid, "the line %q does not have the form user:start:count", line)
		}
		start, err1 := strconv.ParseUint(f[1], 10, 32)
		size, err2 := strconv.ParseUint(f[2], 10, 32)
		if err1 != nil || err2 != nil || size == 0 || past(uint32(start), uint32(size)) {
			return nil, fault.New(fault.Invalid, "the line %q does not name a range of ids", line)
		}
		blocks = append(blocks, Block{uint32(start), uint32(size)})
	}
	return blocks, nil
}

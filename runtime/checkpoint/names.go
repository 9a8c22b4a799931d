package checkpoint

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

func sorted(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fault.Wrap(fault.NotFound, err, "network namespace %s", path)
	}
	return st.Ino, nil
}

package launch

import (
	"encoding/binary"
	"strconv"
	"strings"

	"berth/base/fault"
)

// maxListed bounds the numbers in a list of CPUs or NUMA nodes: the kernel's own largest configuration
// (CONFIG_NR_CPUS).
const maxListed = 8192

// bitList reads a list such as "0-3,7" into a mask of bits as system calls take it: whole words of eight
// bytes, the lowest number first.
func bitList(text string) ([]byte, error) {
	mask := make([]byte, 0, 16)
	for _, part := range strings.Split(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
		to, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
		if err1 != nil || err2 != nil || from > to || to >= maxListed {
			return nil, fault.New(fault.Invalid, "%q is not a list such as 0-3,7", text)
		}
		for uint64(len(mask)) <= to/8 {
			mask = append(mask, 0, 0, 0, 0, 0, 0, 0, 0)
		}
		for n := from; n <= to; n++ {
			mask[n/8] |= 1 << (n % 8) // little-endian words: bit n of the mask is bit n%8 of byte n/8
		}
	}
	if len(mask) == 0 {
		return nil, fault.New(fault.Invalid, "%q lists nothing", text)
	}
	return mask, nil
}

// popCount is how many numbers a mask holds.
func popCount(mask []byte) (n int) {
	for _, b := range mask {
		for ; b != 0; b &= b - 1 {
			n++
		}
	}
	return n
}

// everything is a mask of as many CPUs as machines have; the kernel leaves out what is not there.
func everything() []byte {
	mask := make([]byte, 2048/8)
	for i := 0; i < len(mask); i += 8 {
		binary.LittleEndian.PutUint64(mask[i:], ^uint64(0))
	}
	return mask
}

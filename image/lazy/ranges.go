package lazy

import (
	"encoding/binary"
	"slices"
)

// ranges is a set of bytes of a blob: stretches [a, b), sorted, apart from each other.
type ranges [][2]int64

// add puts [a, b) in.
func (r ranges) add(a, b int64) ranges {
	if a >= b {
		return r
	}
	i, _ := slices.BinarySearchFunc(r, a, func(x [2]int64, a int64) int { // the first that ends at a or later
		if x[1] < a {
			return -1
		}
		return 1
	})
	j := i
	for j < len(r) && r[j][0] <= b {
		a, b = min(a, r[j][0]), max(b, r[j][1])
		j++
	}
	return slices.Replace(r, i, j, [2]int64{a, b})
}

// remove takes [a, b) out.
func (r ranges) remove(a, b int64) ranges {
	var out ranges
	for _, x := range r {
		if x[0] < a {
			out = append(out, [2]int64{x[0], min(x[1], a)})
		}
		if x[1] > b {
			out = append(out, [2]int64{max(x[0], b), x[1]})
		}
	}
	return slices.DeleteFunc(out, func(x [2]int64) bool { return x[0] >= x[1] })
}

// gap gives the first stretch of [a, b) that is not in the set.
func (r ranges) gap(a, b int64) (from, to int64, ok bool) {
	for _, x := range r {
		if x[1] <= a {
			continue
		}
		if x[0] > a {
			return a, min(b, x[0]), a < b
		}
		a = x[1]
	}
	return a, b, a < b
}

func (r ranges) size() (n int64) {
	for _, x := range r {
		n += x[1] - x[0]
	}
	return n
}

const rangesMagic = "berth ranges 1\n"

func (r ranges) encode() []byte {
	b := []byte(rangesMagic)
	for _, x := range r {
		b = binary.LittleEndian.AppendUint64(b, uint64(x[0]))
		b = binary.LittleEndian.AppendUint64(b, uint64(x[1]))
	}
	return b
}

// decodeRanges reads what encode wrote; of damage nothing is kept, as everything can be fetched again.
func decodeRanges(b []byte, size int64) ranges {
	if len(b) < len(rangesMagic) || string(b[:len(rangesMagic)]) != rangesMagic || (len(b)-len(rangesMagic))%16 != 0 {
		return nil
	}
	var r ranges
	for b = b[len(rangesMagic):]; len(b) > 0; b = b[16:] {
		from, to := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		if from >= to || to > uint64(size) {
			return nil
		}
		r = r.add(int64(from), int64(to))
	}
	return r
}

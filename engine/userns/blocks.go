package userns

import (
	"cmp"
	"slices"

	"berth/kernel/idmap"
)

func compare(a, b uint32) int { return cmp.Compare(a, b) }

func byStart(a, b idmap.Block) int { return cmp.Compare(a.Start, b.Start) }

// end is the first id behind a block; blocks end before 2^32.
func end(b idmap.Block) uint64 { return uint64(b.Start) + uint64(b.Size) }

func crosses(a, b idmap.Block) bool { return uint64(a.Start) < end(b) && uint64(b.Start) < end(a) }

// merge sorts blocks and joins those that touch.
func merge(list []idmap.Block) (out []idmap.Block) {
	list = slices.Clone(list)
	slices.SortFunc(list, byStart)
	for _, b := range list {
		if n := len(out); n > 0 && uint64(b.Start) <= end(out[n-1]) {
			if end(b) > end(out[n-1]) {
				out[n-1].Size = uint32(end(b) - uint64(out[n-1].Start))
			}
			continue
		}
		out = append(out, b)
	}
	return out
}

// both gives what is in both lists, which are merged.
func both(a, b []idmap.Block) (out []idmap.Block) {
	for _, x := range a {
		for _, y := range b {
			if crosses(x, y) {
				start := max(x.Start, y.Start)
				out = append(out, idmap.Block{Start: start, Size: uint32(min(end(x), end(y)) - uint64(start))})
			}
		}
	}
	return out
}

// subtract gives what of blocks is in none of taken; both are sorted.
func subtract(blocks, taken []idmap.Block) (out []idmap.Block) {
	for _, b := range blocks {
		from := uint64(b.Start)
		for _, t := range taken {
			if end(t) <= from || uint64(t.Start) >= end(b) {
				continue
			}
			if uint64(t.Start) > from {
				out = append(out, idmap.Block{Start: uint32(from), Size: uint32(uint64(t.Start) - from)})
			}
			from = max(from, end(t))
		}
		if from < end(b) {
			out = append(out, idmap.Block{Start: uint32(from), Size: uint32(end(b) - from)})
		}
	}
	return out
}

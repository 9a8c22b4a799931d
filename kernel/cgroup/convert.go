package cgroup

import (
	"math"

	"berth/base/fault"
)

// WeightFromShares converts v1's cpu.shares (2 to 262144, default 1024) to v2's cpu.weight (1 to 10000,
// default 100). 0 stays 0, "unset".
//
// There are two conversions about. The old one is linear over the whole range and turns the default 1024
// into 39, well under the default weight that every other cgroup has. Berth uses the newer one, as runc
// 1.3.2 and crun 1.23 do: a parabola in the logarithms through (2, 1), (1024, 100) and (262144, 10000),
//
//	weight = ceil(10^((l² + 125·l)/612 − 7/34)),  l = log2(shares)
//
// so that defaults meet and ratios near them are kept.
func WeightFromShares(shares uint64) uint64 {
	switch {
	case shares == 0:
		return 0
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	// Less a hair, so that rounding errors do not lift an exact result (1024) to the next number.
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34) - 1e-9))
}

// IOWeight converts v1's blkio.weight (10 to 1000) linearly to v2's io.weight (1 to 10000). 0 stays 0.
func IOWeight(blkio uint16) uint64 {
	if blkio == 0 {
		return 0
	}
	return 1 + (uint64(blkio)-10)*9999/990
}

// SwapMax converts OCI's memory.swap, which counts memory and swap together as v1 does, to v2's
// memory.swap.max, which counts swap alone. -1 is no limit. set is false when nothing is to be written.
func SwapMax(memory, swap int64) (value int64, set bool, err error) {
	switch {
	case swap == 0 && memory == -1:
		return -1, true, nil // v1 lifts both together
	case swap == 0:
		return 0, false, nil
	case swap == -1:
		return -1, true, nil
	case memory == -1:
		return swap, true, nil
	case memory == 0:
		return 0, false, fault.New(fault.Invalid, "linux.resources.memory.swap is memory plus swap: it needs linux.resources.memory.limit beside it")
	case swap < memory:
		return 0, false, fault.New(fault.Invalid, "linux.resources.memory.swap (%d) is memory plus swap: it cannot be less than linux.resources.memory.limit (%d)", swap, memory)
	}
	return swap - memory, true, nil
}

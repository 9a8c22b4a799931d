package engine

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"berth/engine/bundle"
	"berth/kernel/idmap"
)

// own tells the rules what an engine without root has to give; nil for root.
func (e *Engine) own() *bundle.Own {
	if !e.cfg.UserXattr {
		return nil
	}
	o := &bundle.Own{LastUser: lastID("/proc/self/uid_map"), LastGroup: lastID("/proc/self/gid_map")}
	_, err := os.Stat("/dev/mqueue")
	o.Queues = err == nil
	if text, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		o.OOMScoreAdj, _ = strconv.Atoi(strings.TrimSpace(string(text))) // a number, of the kernel's
	}
	return o
}

// lastID reads a map of this process; what cannot be read is as if there were root alone.
func lastID(file string) uint32 {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	m, err := idmap.ParseProc(string(text))
	if err != nil {
		return 0
	}
	return lastFromZero(m)
}

// lastFromZero gives the end of the ids that a mapping has from 0 on without a gap, which may be in several ranges.
func lastFromZero(m idmap.Map) uint32 {
	m = slices.Clone(m)
	slices.SortFunc(m, func(a, b idmap.Range) int { return int(int64(a.Inside) - int64(b.Inside)) })
	next := uint64(0)
	for _, r := range m {
		if uint64(r.Inside) != next {
			break
		}
		next += uint64(r.Size)
	}
	return uint32(max(next, 1) - 1)
}

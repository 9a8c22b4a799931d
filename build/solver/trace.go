package solver

import (
	"context"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"berth/build/cache"
	"berth/build/content"
	"berth/build/snapshot"
)

// maxTraced bounds the files of a local tree that are remembered one by one.
const maxTraced = 5000

// addFiles notes in a step's trace the files of small local trees, where the step reads parts of them.
func (n *node) addFiles(ctx context.Context, op Op, ins *inputs, t *cache.Trace) {
	for i := range t.Inputs {
		if t.Inputs[i].Selected == nil {
			continue
		}
		s, err := ins.outs[i].snap(ctx, n.v.Inputs[i].Index)
		if err != nil {
			continue // nobody needs to know
		}
		t.Inputs[i].Files = checksums(s, op.Reads(i))
	}
}

// checksums gives a checksum of each file that selectors may read, for a tree that has an index; nil where there are too
// many to remember.
func checksums(s *snapshot.Snapshot, selectors []content.Selector) map[string]uint32 {
	tree := s.Local()
	if tree == nil || tree.Index() == nil || tree.Index().Len() > maxTraced {
		return nil
	}
	index := tree.Index()
	files := make(map[string]uint32, index.Len())
	var looks []byte
	for i := range index.Len() {
		e := index.At(i)
		if !selected(e.Path, selectors) {
			continue
		}
		looks = e.AppendLooks(looks[:0])
		files[e.Path] = crc32.ChecksumIEEE(looks)
	}
	return files
}

// selected reports whether a selector's path leads to a file. Wildcards and patterns are not looked at: what is told too much
// are files that did not matter, and they are compared only after something that did has changed.
func selected(path string, selectors []content.Selector) bool {
	for _, sel := range selectors {
		root := strings.Trim(sel.Path, "/.")
		if sel.Wildcard || root == "" || path == root || strings.HasPrefix(path, root+"/") {
			return true
		}
	}
	return false
}

// changedFiles names the files that differ, the first few.
func changedFiles(was, now map[string]uint32) string {
	if was == nil || now == nil {
		return ""
	}
	var list []string
	for path, sum := range now {
		switch old, ok := was[path]; {
		case !ok:
			list = append(list, path+" is new")
		case old != sum:
			list = append(list, path+" changed")
		}
	}
	for path := range was {
		if _, ok := now[path]; !ok {
			list = append(list, path+" is gone")
		}
	}
	slices.Sort(list)
	const most = 3
	if len(list) > most {
		return strings.Join(list[:most], ", ") + fmt.Sprintf(" and %d more", len(list)-most)
	}
	return strings.Join(list, ", ")
}

package export

import (
	"encoding/json"
	"path"
	"strings"

	"github.com/moby/buildkit/solver/result"

	"berth/build/attest"
	"berth/image/layer"
	"berth/kernel/tree"
)

// supplement writes into a bill of materials which layer each file of its list came with, where a scanner left that out. It speaks of the
// result alone: bills of other trees are left as they are, and so is what is no SPDX.
func supplement(s said, p *part, layers *layer.Store) said {
	name, core := s.meta[result.AttestationSBOMCore]
	file, _, _ := strings.Cut(path.Base(s.path), ".")
	if !core || file != string(name) || s.predicateType != attest.SPDX {
		return s
	}
	var doc map[string]json.RawMessage
	if json.Unmarshal(s.predicate, &doc) != nil {
		return s
	}
	var files []map[string]json.RawMessage
	if json.Unmarshal(doc["files"], &files) != nil || len(files) == 0 {
		return s
	}
	find := newFinder(p, layers)
	defer find.close()
	for _, f := range files {
		var name, comment string
		_ = json.Unmarshal(f["fileName"], &name)
		_ = json.Unmarshal(f["comment"], &comment)
		if name == "" || comment != "" {
			continue
		}
		if blob := find.blob(name); blob != "" {
			f["comment"], _ = json.Marshal("layerID: " + blob)
		}
	}
	raw, err := json.Marshal(files)
	if err != nil {
		return s
	}
	doc["files"] = raw
	if raw, err = json.Marshal(doc); err == nil {
		s.predicate = raw
	}
	return s
}

// finder finds the layer that a file came with.
type finder struct {
	roots []*tree.Dir // of the layers, the topmost first; nil: it is not unpacked
	blobs []string
}

func newFinder(p *part, layers *layer.Store) *finder {
	f := &finder{}
	for i := len(p.chain) - 1; i >= 0; i-- {
		root, err := tree.OpenDir(layers.FSPath(p.chain[i]))
		if err != nil {
			root = nil
		}
		f.roots, f.blobs = append(f.roots, root), append(f.blobs, string(p.layers[i].desc.Digest))
	}
	return f
}

// blob gives the digest of the blob of the topmost layer that has the file, "" where none has it.
func (f *finder) blob(name string) string {
	rel := strings.TrimPrefix(path.Clean("/"+name), "/")
	for i, root := range f.roots {
		if root == nil {
			continue
		}
		if st, found, err := root.Lookup(rel); err == nil && found && !st.IsWhiteout() {
			return f.blobs[i]
		}
	}
	return ""
}

func (f *finder) close() {
	for _, r := range f.roots {
		if r != nil {
			r.Close()
		}
	}
}

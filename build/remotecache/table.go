package remotecache

import (
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// configType is the media type of BuildKit's cache configurations, in which the table lies.
const configType = "application/vnd.buildkit.cacheconfig.v0"

// tableVersion is the table's format. A reader leaves tables of later ones alone.
const tableVersion = 1

// Bounds of a table from outside.
const (
	documentMax = 64 << 20 // bytes
	recordsMax  = 200_000
	linksMax    = 500_000
	chainMax    = 125 * 8 // layers of one chain, before the layer store says its own bound
)

// document is the cache configuration. Layers and Records are BuildKit's words: with no records it finds nothing there, and whoever only
// lists blobs finds them.
type document struct {
	Layers  []layer    `json:"layers"`
	Records []struct{} `json:"records"`
	Berth   *table     `json:"berth,omitempty"`
}

// layer is one blob of a document.
type layer struct {
	Blob        digest.Digest     `json:"blob"`
	Parent      int               `json:"parent"` // the blob below it, for who reads the list; -1: none
	Annotations *layerAnnotations `json:"annotations,omitempty"`
}

type layerAnnotations struct {
	MediaType string        `json:"mediaType,omitempty"`
	DiffID    digest.Digest `json:"diffID,omitempty"`
	Size      int64         `json:"size,omitempty"`
	CreatedAt time.Time     `json:"createdAt"`
}

// table says what is known under which keys.
type table struct {
	Version int      `json:"version"`
	Chains  []link   `json:"chains"` // all chains, as a tree of layers
	Records []record `json:"records"`
	Mounts  []mount  `json:"mounts,omitempty"`
}

// link is a layer on top of a chain.
type link struct {
	DiffID digest.Digest `json:"diffID"`
	Parent int           `json:"parent"` // an earlier link; -1: it is the lowest
}

// Outputs that are no link.
const (
	notMade = -1
	scratch = -2 // the empty tree
)

// record is one step.
type record struct {
	Keys    []digest.Digest `json:"keys"`
	Outputs []int           `json:"outputs"` // of each output the topmost link, notMade or scratch
	Name    string          `json:"name,omitempty"`
	Created time.Time       `json:"created,omitzero"`
}

// mount is a cache mount that travels.
type mount struct {
	Key   string             `json:"key"`
	Scope string             `json:"scope"`
	Blob  ocispec.Descriptor `json:"blob"`
}

// parseDocument reads and checks a document from outside. One without a table of ours is NotFound: another builder's cache.
func parseDocument(raw []byte) (*document, error) {
	var doc document
	var loose struct {
		Layers []layer `json:"layers"`
		Berth  *table  `json:"berth"`
	}
	if len(raw) > documentMax {
		return nil, fault.New(fault.Invalid, "cache table of %d bytes, more than %d", len(raw), documentMax)
	}
	if err := json.Unmarshal(raw, &loose); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "cache table")
	}
	doc.Layers, doc.Berth = loose.Layers, loose.Berth
	if doc.Berth == nil {
		return nil, fault.New(fault.NotFound, "the cache was not written by Berth")
	}
	return &doc, doc.check()
}

func (d *document) check() error {
	t := d.Berth
	switch {
	case t.Version != tableVersion:
		return fault.New(fault.NotFound, "the cache table has version %d, this Berth reads %d", t.Version, tableVersion)
	case len(t.Records) > recordsMax, len(t.Chains) > linksMax, len(d.Layers) > linksMax:
		return fault.New(fault.Invalid, "cache table with more than %d records or %d layers", recordsMax, linksMax)
	}
	for _, l := range d.Layers {
		if l.Blob.Validate() != nil || l.Annotations == nil || l.Annotations.DiffID.Validate() != nil || l.Annotations.Size < 0 {
			return fault.New(fault.Invalid, "cache table: a layer has no digest, diff id or size")
		}
	}
	for i, l := range t.Chains {
		if !namesLayer(l.DiffID) || l.Parent < -1 || l.Parent >= i {
			return fault.New(fault.Invalid, "cache table: chain link %d is malformed", i)
		}
	}
	for i, r := range t.Records {
		for _, k := range r.Keys {
			if k.Validate() != nil {
				return fault.New(fault.Invalid, "cache table: record %d has a malformed key", i)
			}
		}
		for _, o := range r.Outputs {
			if o < scratch || o >= len(t.Chains) {
				return fault.New(fault.Invalid, "cache table: record %d has no such output", i)
			}
		}
	}
	for _, m := range t.Mounts {
		if m.Blob.Digest.Validate() != nil || m.Blob.Size < 0 || m.Key == "" || !isScope(m.Scope) {
			return fault.New(fault.Invalid, "cache table: a cache mount is malformed")
		}
	}
	return nil
}

// namesLayer reports whether a digest is one that images may name a layer by.
func namesLayer(d digest.Digest) bool {
	return d.Validate() == nil && (d.Algorithm() == digest.SHA256 || d.Algorithm() == digest.SHA512)
}

// chain gives the diff ids of an output, the lowest first: nil for one that was not made.
func (t *table) chain(output int) ([]digest.Digest, error) {
	switch output {
	case notMade:
		return nil, nil
	case scratch:
		return []digest.Digest{}, nil
	}
	n := 0
	for i := output; i >= 0; i = t.Chains[i].Parent {
		n++
	}
	if n > chainMax {
		return nil, fault.New(fault.Invalid, "cache table: a chain of %d layers", n)
	}
	out := make([]digest.Digest, n)
	for i := output; i >= 0; i = t.Chains[i].Parent {
		n--
		out[n] = t.Chains[i].DiffID
	}
	return out, nil
}

// builder makes a table.
type builder struct {
	t     table
	links map[link]int
	keys  map[digest.Digest]bool
}

func newBuilder() *builder {
	return &builder{t: table{Version: tableVersion, Chains: []link{}, Records: []record{}}, links: map[link]int{}, keys: map[digest.Digest]bool{}}
}

// add adds a chain and gives its topmost link.
func (b *builder) add(chain []digest.Digest) int {
	if chain == nil {
		return notMade
	}
	at := scratch
	parent := -1
	for _, d := range chain {
		l := link{d, parent}
		i, ok := b.links[l]
		if !ok {
			i = len(b.t.Chains)
			b.t.Chains = append(b.t.Chains, l)
			b.links[l] = i
		}
		parent, at = i, i
	}
	return at
}

// record adds a record, unless its keys are known.
func (b *builder) record(r record, chains [][]digest.Digest) {
	fresh := false
	for _, k := range r.Keys {
		fresh = fresh || !b.keys[k]
		b.keys[k] = true
	}
	if !fresh {
		return
	}
	for _, c := range chains {
		r.Outputs = append(r.Outputs, b.add(c))
	}
	b.t.Records = append(b.t.Records, r)
}

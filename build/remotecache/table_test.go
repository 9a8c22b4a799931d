package remotecache

import (
	_ "crypto/sha512"
	"encoding/json"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

// What is built on an image whose layers are named by sha512 can be read back.
func TestOtherNamesOfLayers(t *testing.T) {
	chain := []digest.Digest{digest.SHA512.FromString("base"), digest.FromString("step")}
	b := newBuilder()
	b.record(record{Keys: []digest.Digest{digest.FromString("key")}}, [][]digest.Digest{chain})
	raw, err := json.Marshal(&document{Layers: []layer{}, Records: []struct{}{}, Berth: &b.t})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := parseDocument(raw)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := doc.Berth.chain(doc.Berth.Records[0].Outputs[0]); err != nil || !slices.Equal(got, chain) {
		t.Errorf("%v, %v", got, err)
	}
}

package export

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What is remembered of layers survives the exporter, a file that is damaged is as good as none, and layers that are gone are forgotten.
func TestMemory(t *testing.T) {
	b := newBench(t)
	tree := b.step(nil, "a", "1")
	b.export(Image, 0, result1(tree, 1), "name=x")
	d := tree.(*fixed).s.Chain()[0]
	fact, ok := b.memory.blob(d, "gzip")
	if !ok {
		t.Fatal("nothing is remembered")
	}
	gone := digest.FromString("gone")
	b.memory.setBlob(gone, "gzip", blobFact{Digest: digest.FromString("blob"), Size: 1})
	m := newMemory(b.cfg.Root)
	if again, ok := m.blob(d, "gzip"); !ok || again.Digest != fact.Digest {
		t.Errorf("%+v", again)
	}
	left := filepath.Join(b.cfg.Root, ".blob-123")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.forget()
	if _, err := os.Stat(left); err == nil {
		t.Error("what a crash left is there")
	}
	if _, err := os.Stat(m.path(gone)); err == nil {
		t.Error("a layer that is gone is remembered")
	}
	if _, err := os.Stat(m.path(d)); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(m.path(d), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	m = newMemory(b.cfg.Root)
	if _, ok := m.blob(d, "gzip"); ok {
		t.Error("a damaged file is believed")
	}
	if first := m.first(d); first.IsZero() || !newMemory(b.cfg.Root).first(d).Equal(first) {
		t.Error("when a layer was first exported is not kept")
	}
}

func TestHistory(t *testing.T) {
	at := func(sec int64) *time.Time { u := time.Unix(sec, 0).UTC(); return &u }
	made := []madeLayer{{created: *at(10)}, {created: *at(20), by: "two"}, {find: func() time.Time { return *at(30) }, by: "three"}}
	for _, c := range []struct {
		name string
		in   []ocispec.History
		n    int // layers
		want []ocispec.History
	}{
		{"none", nil, 0, []ocispec.History{}},
		{"missing", nil, 3, []ocispec.History{{Created: at(10), Comment: historyComment}, {Created: at(20), CreatedBy: "two", Comment: historyComment}, {Created: at(30), CreatedBy: "three", Comment: historyComment}}},
		{"too many", []ocispec.History{{CreatedBy: "a"}, {CreatedBy: "b"}}, 1, []ocispec.History{{CreatedBy: "a", Created: at(10)}, {CreatedBy: "b", EmptyLayer: true, Created: at(10)}}},
		{
			"times", []ocispec.History{{CreatedBy: "base", Created: at(5)}, {CreatedBy: "ENV", EmptyLayer: true}, {CreatedBy: "RUN"}, {CreatedBy: "CMD", EmptyLayer: true}}, 2,
			[]ocispec.History{{CreatedBy: "base", Created: at(5)}, {CreatedBy: "ENV", EmptyLayer: true, Created: at(20)}, {CreatedBy: "RUN", Created: at(20)}, {CreatedBy: "CMD", EmptyLayer: true, Created: at(20)}},
		},
	} {
		got := completeHistory(c.in, append([]madeLayer{}, made[:c.n]...))
		if string(encode(t, got)) != string(encode(t, c.want)) {
			t.Errorf("%s: %s, want %s", c.name, encode(t, got), encode(t, c.want))
		}
	}
	h := []ocispec.History{{Created: at(5), CreatedBy: "base"}, {Created: at(50)}, {Created: at(5)}}
	clampHistory(h, []ocispec.History{{Created: at(5), CreatedBy: "base"}}, *at(7))
	if *h[0].Created != *at(5) || *h[1].Created != *at(7) || *h[2].Created != *at(5) {
		t.Errorf("%s", encode(t, h))
	}
}

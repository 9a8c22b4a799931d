package lazy_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/image/layer"
	"berth/image/lazy"
)

// A manifest that claims somebody else's diff id gets its own content and spoils nobody's.
func TestForeignDiffID(t *testing.T) {
	good := makeTar(t, file{name: "a", body: "good"})
	evil := pack(t, "zstd:chunked", makeTar(t, file{name: "a", body: "evil"}), 0, 0)
	evil.diff = digest.FromBytes(good)
	h := newHouse(t, lazy.Config{FillDelay: time.Hour})
	h.add(t, evil, newOrigin(evil.blob))
	if !h.m.Vouches(evil.diff, evil.desc) || h.layers.HasWhole(evil.diff) {
		t.Error("its own manifest does not vouch for it")
	}
	other := pack(t, "zstd:chunked", good, 0, 0)
	if h.m.Vouches(evil.diff, other.desc) || h.m.Vouches(digest.FromString("x"), evil.desc) {
		t.Error("another manifest is taken for one that vouches")
	}
	h.layers.Create(ctx, "theirs", []digest.Digest{evil.diff}, layer.CreateOptions{})
	if b, err := h.cat(t, "theirs", "a"); err != nil || b != "evil" {
		t.Errorf("%q %v", b, err)
	}
	short, cancel := contextWith(500 * time.Millisecond)
	defer cancel()
	if err := h.m.Whole(short, evil.diff); err == nil {
		t.Error("it became whole")
	}
	// The rightful owner of the id is pulled.
	st, err := h.layers.Stage(ctx, bytes.NewReader(good), evil.diff)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.layers.Commit(st); err != nil {
		t.Fatal(err)
	}
	h.layers.Create(ctx, "ours", []digest.Digest{evil.diff}, layer.CreateOptions{})
	if b, err := h.cat(t, "ours", "a"); err != nil || b != "good" || !h.m.Vouches(evil.diff, other.desc) {
		t.Errorf("%q %v", b, err)
	}
}

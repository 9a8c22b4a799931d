package replicate

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

func indexOf(child []byte, kind, extra string) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]%s}`,
		ocispec.MediaTypeImageIndex, kind, digest.FromBytes(child), len(child), extra)
}

// An index may refer to a manifest that it names: each waits for the other, since referrers go first. It is sent all the same, and once.
func TestWhatRefersToItsOwn(t *testing.T) {
	x := newTarget(t)
	n := newSite(t, t.TempDir())
	r := client(t, n.host+"/a")
	inner := push(t, n.host+"/a", "", "layer", "")
	subject := fmt.Sprintf(`,"subject":{"mediaType":%q,"digest":%q,"size":%d}`, ocispec.MediaTypeImageManifest, digest.FromBytes(inner), len(inner))
	outer := indexOf(inner, ocispec.MediaTypeImageManifest, subject)
	put(t, r, digest.FromBytes(outer).String(), ocispec.MediaTypeImageIndex, outer)
	further := indexOf(outer, ocispec.MediaTypeImageIndex, subject)
	put(t, r, digest.FromBytes(further).String(), ocispec.MediaTypeImageIndex, further)
	for i, first := range [][]byte{inner, outer, further} {
		name := fmt.Sprint(x.host, "/copy", i)
		s := &sender{store: n.store, from: "a", to: client(t, name), known: &places{}}
		if err := s.all(t.Context(), digest.FromBytes(first), digest.FromBytes(first).String()); err != nil {
			t.Errorf("%d: %v", i, err)
		}
		for j, m := range [][]byte{inner, outer, further} {
			if !has(t, name, digest.FromBytes(m).String(), m) {
				t.Errorf("%d: %d is not there", i, j)
			}
		}
		if len(s.under) != 0 || len(s.later) != 0 {
			t.Errorf("%d: left %v, %v", i, s.under, s.later)
		}
	}
}

// Who may push decides how deep indexes nest, and how many referrers refer to each other.
func TestDepthIsBounded(t *testing.T) {
	x := newTarget(t)
	n := newSite(t, t.TempDir())
	r := client(t, n.host+"/a")
	image := push(t, n.host+"/a", "", "layer", "")
	m, kind := image, ocispec.MediaTypeImageManifest
	for range maxUnder {
		m, kind = indexOf(m, kind, ""), ocispec.MediaTypeImageIndex
		put(t, r, digest.FromBytes(m).String(), kind, m)
	}
	signed := push(t, n.host+"/b", "", "layer", "")
	of := signed
	for range maxUnder {
		of = push(t, n.host+"/b", "", "layer", fmt.Sprintf(`,"subject":{"mediaType":%q,"digest":%q,"size":%d}`, ocispec.MediaTypeImageManifest, digest.FromBytes(of), len(of)))
	}
	for name, d := range map[string]digest.Digest{"a": digest.FromBytes(m), "b": digest.FromBytes(signed)} {
		s := &sender{store: n.store, from: name, to: client(t, x.host+"/"+name), known: &places{}}
		if err := s.all(t.Context(), d, d.String()); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

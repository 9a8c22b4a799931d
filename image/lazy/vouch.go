package lazy

import (
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Vouches reports whether a manifest with this descriptor says what is shown of a layer: the same blob with the same table of contents.
// A layer's id is compared with its content when all of that is here; until then it is only the word of the manifest that the
// layer was added for, and another image that names the same id must not be served from it. Of a layer that is whole
// it reports true.
func (m *Manager) Vouches(diffID digest.Digest, d ocispec.Descriptor) bool {
	if info, err := m.cfg.Layers.Stat(diffID); err == nil && !info.Lazy {
		return true
	}
	c := m.content(diffID)
	if c == nil {
		return false
	}
	theirs, err := planOf(d)
	if err != nil {
		return false
	}
	ours, err := planOf(c.record.Blob)
	return err == nil && ours == theirs && c.record.Blob.Digest == d.Digest && c.record.Blob.Size == d.Size
}

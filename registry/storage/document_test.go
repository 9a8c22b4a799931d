package storage

import (
	"encoding/json"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzParse: whatever is accepted has digests that can be keys, sizes that can be, and one media type.
func FuzzParse(f *testing.F) {
	image := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"x","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}`
	f.Add("application/vnd.oci.image.manifest.v1+json", image)
	f.Add("", image)
	f.Add("application/vnd.oci.image.index.v1+json", `{"schemaVersion":2,"manifests":[{"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}],"subject":{"digest":"sha256:../../x"}}`)
	f.Add("text/html", `{"schemaVersion":2,"config":null,"layers":null}`)
	f.Add("application/json; charset=utf-8", `{"manifests":[],"fsLayers":[]}`)
	f.Fuzz(func(t *testing.T, contentType, content string) {
		d, err := Parse(contentType, []byte(content))
		if err != nil {
			return
		}
		// Whoever minds the case of names and takes the first of two sees the same document.
		first := json.NewDecoder(strings.NewReader(content))
		first.Token()
		seen := map[string]int{}
		for first.More() {
			key, _ := first.Token()
			var v []json.RawMessage
			raw := json.RawMessage{}
			first.Decode(&raw)
			if name, _ := key.(string); json.Unmarshal(raw, &v) == nil {
				if _, twice := seen[name]; !twice {
					seen[name] = len(v)
				}
			}
		}
		if n := seen["manifests"]; n != len(d.Manifests) {
			t.Errorf("%d manifests, others see %d", len(d.Manifests), n)
		}
		if !strings.HasPrefix(d.MediaType, "application/") || strings.ContainsAny(d.MediaType, "\r\n\"<>; ") {
			t.Errorf("media type %q", d.MediaType)
		}
		for _, x := range append(append([]ocispec.Descriptor{}, d.Blobs...), d.Manifests...) {
			if x.Digest.Validate() != nil || x.Size < 0 {
				t.Errorf("%+v", x)
			}
			if back, err := keyDigest(blobKey(x.Digest)); err != nil || back != x.Digest {
				t.Errorf("%s: the key leads to %s, %v", x.Digest, back, err)
			}
		}
		if _, err := json.Marshal(d.record("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", 1)); err != nil {
			t.Error(err)
		}
	})
}

// FuzzNames: no name that is accepted leads to keys outside of its own.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"a", "a/b", "../x", "a/../b", "a//b", "_blobs", "a/_tags/x", ".", "a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckName(s) == nil {
			for _, part := range strings.Split(s, "/") {
				if part == "" || part == "." || part == ".." || part[0] == '_' || strings.ContainsAny(part, ":\x00\\") {
					t.Errorf("%q is accepted", s)
				}
			}
		}
		if CheckTag(s) == nil && (strings.ContainsAny(s, "/\\:\x00") || s == "." || s == "..") {
			t.Errorf("tag %q is accepted", s)
		}
	})
}

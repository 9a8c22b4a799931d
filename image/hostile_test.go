package image

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/image/archive"
)

// empty tells that nothing is left of what was refused.
func (h *harness) empty(what string) {
	h.t.Helper()
	h.Layers().WaitTrash(ctx)
	if layers, docs := h.counts(); layers+docs+h.Count() != 0 {
		h.t.Errorf("%s: %d layers, %d documents, %d images stay", what, layers, docs, h.Count())
	}
}

func TestBombs(t *testing.T) {
	h := open(t)
	h.limits = archive.Limits{Bytes: 64 << 20, Ratio: 20, RatioFrom: 1 << 20}
	h.reopen()
	same := strings.Repeat("0123456789abcdef", 1<<19) // 8 MiB, which gzip brings to a 500th
	bomb := makeSample(t, nil, tarOf(t, "bomb", same))
	holes := makeSample(t, nil, tarOf(t, "hole", strings.Repeat("\x00", 8<<20)))
	huge := makeSample(t, nil, tarOf(t, "a", strings.Repeat("\x00", 65<<20)))
	layout := func(s sample, compress func([]byte) []byte) []byte {
		l := &layout{t: t, blobs: map[string]string{}}
		return l.archive(l.index(l.manifest(s, compress)))
	}
	for name, c := range map[string]struct {
		archive []byte
		want    string
	}{
		"a layer":              {layout(bomb, gz), "times as much"},
		"a layer, zstd":        {layout(bomb, zst), "times as much"},
		"the whole":            {gz(bomb.dockerArchive(t, "a:1")), "times as much"},
		"the whole, zstd":      {zst(layout(bomb, plain)), "times as much"},
		"both":                 {gz(layout(bomb, gz)), "times as much"},
		"more than is allowed": {layout(huge, gz), "more than the limit of 67108864 bytes"},
		"uncompressed":         {layout(bomb, plain), ""},
		"holes":                {layout(holes, gz), ""},
	} {
		_, err := h.Load(ctx, bytes.NewReader(c.archive), LoadOptions{})
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			h.Prune(ctx, Filters{"dangling": {"false"}})
		} else if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want …%s…", name, err, c.want)
		}
		h.empty(name)
	}
}

func TestHostileIndexes(t *testing.T) {
	s := twoLayers(t)
	l := &layout{t: t, blobs: map[string]string{}}
	m := l.manifest(s, gz)
	raw := l.blobs[blobPath(m.Digest)]
	with := func(more string) Descriptor { // the manifest with further fields
		return l.add(ocispec.MediaTypeImageManifest, strings.TrimSuffix(raw, "}")+","+more+"}")
	}
	index := func(d ...Descriptor) Descriptor { return l.add(ocispec.MediaTypeImageIndex, l.index(d...)) }
	// Each level names the level below a hundred times in a hundred different ways: a hundred to the sixth paths.
	level := []Descriptor{m}
	for depth := range 6 {
		var next []Descriptor
		for i := range 100 {
			d := l.add(ocispec.MediaTypeImageIndex, toJSON(t, map[string]any{"mediaType": ocispec.MediaTypeImageIndex, "manifests": level, "n": fmt.Sprint(depth, i)}))
			next = append(next, d)
		}
		level = next
	}
	var many []Descriptor
	for i := range indexMembersMax + 1 {
		many = append(many, Descriptor{Digest: digest.FromString(fmt.Sprint(i)), Size: 1})
	}
	negative := m
	negative.Size = -1
	evil := m
	evil.Digest = "sha256:../../../../etc/passwd"
	for name, c := range map[string]struct {
		index string
		want  string
	}{
		"a diamond":               {l.index(index(level...)), ""},
		"too many manifests":      {l.index(index(many...)), "more than 4096"},
		"too many at the top":     {l.index(many...), "more than 4096"},
		"both in one":             {l.index(with(`"manifests":[]`)), "both a manifest and an index"},
		"an index that is none":   {l.index(l.add(ocispec.MediaTypeImageIndex, strings.Replace(raw, "manifest.v1", "index.v1", 1))), "and it is none"},
		"a manifest that is none": {l.index(l.add(ocispec.MediaTypeImageManifest, `{"mediaType":"`+ocispec.MediaTypeImageManifest+`","manifests":[]}`)), "and it is none"},
		"a negative size":         {l.index(index(negative)), "has a size of -1 bytes"},
		"a path for a digest":     {l.index(index(evil)), "digest"},
		"the same one twice":      {l.index(index(m, m)), ""},
		"nothing behind it":       {l.index(index(many[0])), "names no image"},
		"a huge index":            {l.index(l.add(ocispec.MediaTypeImageIndex, `{"manifests":[`+strings.Repeat(" ", maxManifest)+`]}`)), "more than 4194304"},
		"deep JSON":               {strings.Repeat(`{"manifests":[`, 20000), "invalid manifest"},
	} {
		h := open(t)
		_, err := h.Load(ctx, bytes.NewReader(l.archive(c.index)), LoadOptions{})
		if c.want == "" {
			if err != nil || h.Count() != 1 {
				t.Errorf("%s: %d images, %v", name, h.Count(), err)
			}
			h.Prune(ctx, Filters{"dangling": {"false"}})
		} else if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 500 {
			t.Errorf("%s: %v, want …%s…", name, err, c.want)
		}
		h.empty(name)
	}
}

// Of two files with one name the later counts, and the earlier leaves nothing.
func TestDuplicateEntries(t *testing.T) {
	h := open(t)
	s := small(t, "good", nil)
	item := toJSON(t, []map[string]any{{"Config": "c.json", "RepoTags": []string{"a:1"}, "Layers": []string{"l"}}})
	h.load(tarOf(t, "l", string(tarOf(t, "f", "bad")), "c.json", "{}", "manifest.json", "[]", "l", string(s.layers[0]), "c.json", s.config, "manifest.json", item))
	same(t, "files", h.files("a:1"), []string{"f=good"})
	h.Layers().WaitTrash(ctx)
	if layers, docs := h.counts(); layers != 1 || docs != 1 {
		t.Errorf("%d layers, %d documents", layers, docs)
	}
}

func TestRegisterRefuses(t *testing.T) {
	h := open(t)
	s := small(t, "a", nil)
	l := &layout{t: t, blobs: map[string]string{}}
	m := l.manifest(s, gz)
	attached := func(d Descriptor) *Attached {
		return &Attached{Descriptor: d, Content: []byte(l.blobs[blobPath(d.Digest)])}
	}
	if _, err := h.Layers().Add(ctx, bytes.NewReader(s.layers[0]), ""); err != nil {
		t.Fatal(err)
	}
	other := l.add(ocispec.MediaTypeImageIndex, l.index(Descriptor{Digest: digest.FromString("other"), Size: 5}))
	wrong := attached(m)
	wrong.Content = append([]byte(" "), wrong.Content...)
	for name, c := range map[string]struct {
		r    Registration
		want string
	}{
		"index of others":  {Registration{Config: []byte(s.config), Manifest: attached(m), Index: attached(other)}, "does not name manifest"},
		"wrong manifest":   {Registration{Config: []byte(s.config), Manifest: wrong}, "was announced"},
		"bad index":        {Registration{Config: []byte(s.config), Manifest: attached(m), Index: attached(l.add("x", "["))}, "invalid manifest"},
		"missing blob":     {Registration{Config: []byte(s.config), Manifest: attached(m), Blobs: []digest.Digest{digest.FromString("none")}}, "no blob"},
		"missing layer":    {Registration{Config: []byte(small(t, "b", nil).config)}, "no layer"},
		"no configuration": {Registration{Config: []byte("[]")}, "invalid image JSON"},
	} {
		if _, _, err := h.Register(ctx, c.r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want …%s…", name, err, c.want)
		}
		if _, docs := h.counts(); docs != 0 || h.Count() != 0 {
			t.Errorf("%s: %d documents, %d images stay", name, docs, h.Count())
		}
	}
}

// What parses is read to its end in bounded time, and nothing else than Invalid comes of what does not.
func FuzzManifest(f *testing.F) {
	l := &layout{t: f, blobs: map[string]string{}}
	m := l.manifest(twoLayers(f), gz)
	f.Add([]byte(l.blobs[blobPath(m.Digest)]), []byte(l.index(m)))
	f.Add([]byte(l.index(m)), []byte(l.index(l.add(ocispec.MediaTypeImageIndex, l.index(m)))))
	f.Add([]byte(`{"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":null}`), []byte(`{"manifests":[{"digest":"sha256:`+strings.Repeat("0", 64)+`","size":9007199254740993}]}`))
	f.Fuzz(func(t *testing.T, inner, outer []byte) {
		for _, raw := range [][]byte{inner, outer} {
			ix, err := readIndex(Descriptor{Digest: digest.FromBytes(raw)}, raw, func(digest.Digest) ([]byte, error) { return inner, nil })
			if err != nil {
				if fault.KindOf(err) != fault.Invalid {
					t.Fatalf("kind %v: %v", fault.KindOf(err), err)
				}
				continue
			}
			for _, d := range ix.members {
				if d.Digest.Validate() != nil || d.Size < 0 {
					t.Fatalf("%+v", d)
				}
			}
		}
	})
}

package image

import (
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestDescendants(t *testing.T) {
	h := open(t)
	bottom := tarOf(t, "bottom", "1")
	history := func(lines ...string) func(*Document) {
		return func(d *Document) {
			d.History = nil
			for i, l := range lines {
				d.History = append(d.History, HistoryLine{CreatedBy: l, EmptyLayer: i > 0 && l[0] == '-'})
			}
		}
	}
	base := makeSample(t, history("ADD"), bottom)
	label := makeSample(t, history("ADD", "-LABEL a"), bottom)
	more := makeSample(t, history("ADD", "-LABEL a", "RUN"), bottom, tarOf(t, "more", "1"))
	beside := makeSample(t, history("ADD", "-LABEL b"), bottom)
	other := makeSample(t, history("ADD", "RUN"), tarOf(t, "other", "1"), tarOf(t, "more", "1"))
	for _, s := range []sample{base, label, more, beside, other} {
		h.load(s.dockerArchive(t))
	}
	child := small(t, "child", nil)
	h.load(child.dockerArchive(t))
	h.mu.Lock()
	h.images[digest.Digest(child.id())].Parent = digest.Digest(more.id())
	h.mu.Unlock()
	for _, c := range []struct {
		of   sample
		want []sample
	}{{base, []sample{label, more, beside}}, {label, []sample{more}}, {more, []sample{child}}, {beside, nil}, {other, nil}} {
		var want []digest.Digest
		for _, s := range c.want {
			want = append(want, digest.Digest(s.id()))
		}
		slices.Sort(want)
		if got := h.Descendants(digest.Digest(c.of.id())); !slices.Equal(got, want) {
			t.Errorf("of %s: %v, want %v", c.of.id(), got, want)
		}
	}
}

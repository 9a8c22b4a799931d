package transfer

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/image/layer"
	"berth/image/lazy"
)

// lazily serves the layers whose texts it knows, and refuses one that it said it could.
type lazily struct {
	e        *engine
	can      map[digest.Digest]string // by blob; "" refuses
	mu       sync.Mutex
	added    []digest.Digest
	supplied []digest.Digest
	vouches  bool
}

func (l *lazily) Can(d ocispec.Descriptor) bool { _, ok := l.can[d.Digest]; return ok }

func (l *lazily) Add(ctx context.Context, x lazy.Layer) (layer.Info, error) {
	text := l.can[x.Descriptor.Digest]
	if text == "" {
		return layer.Info{}, fault.New(fault.NotImplemented, "not this one")
	}
	l.mu.Lock()
	l.added = append(l.added, x.DiffID)
	l.mu.Unlock()
	return l.e.images.Layers().Add(ctx, bytes.NewReader(layerTar(l.e.t, text)), x.DiffID)
}

func (l *lazily) Supply(d digest.Digest, _ lazy.Ranger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.supplied = append(l.supplied, d)
}

func (l *lazily) Vouches(digest.Digest, ocispec.Descriptor) bool { return l.vouches }

// What is only shown of a layer, by the word of another image's manifest, is not taken for an image's own.
func TestPullOfWhatAnotherImageShows(t *testing.T) {
	g := newRegistry(t)
	l := &lazily{}
	e := newEngine(t, func(c *Config) { c.Lazy = l })
	s := g.build("x", "1", ocispec.Platform{}, nil, "honest")
	layers := e.images.Layers()
	if added, err := layers.AdmitLazy(layer.Info{DiffID: s.diffIDs[0]}, func(string) error { return nil }); err != nil || !added {
		t.Fatal(added, err)
	}
	layers.Shown(s.diffIDs[0], true)
	name := g.host() + "/x:1"
	if plan := e.planPull(name, nil); plan.Images[0].Layers[0].Do != Fetch {
		t.Errorf("the layer is %v", plan.Images[0].Layers[0].Do)
	}
	l.vouches = true
	if plan := e.planPull(name, nil); plan.Images[0].Layers[0].Do != Here {
		t.Errorf("the very layer is %v", plan.Images[0].Layers[0].Do)
	}
	l.vouches = false
	e.mustPull(name)
	if info, err := layers.Stat(s.diffIDs[0]); err != nil || info.Lazy {
		t.Errorf("%+v %v", info, err)
	}
	e.has(name, "honest")
}

func TestPullLazily(t *testing.T) {
	g := newRegistry(t)
	l := &lazily{}
	e := newEngine(t, func(c *Config) { c.Lazy = l })
	l.e = e
	s := g.build("x", "1", ocispec.Platform{}, []string{"tar"}, "whole", "lazy", "refused")
	l.can = map[digest.Digest]string{s.blobs[1].Digest: "lazy", s.blobs[2].Digest: ""}
	name := g.host() + "/x:1"
	plan := e.planPull(name, func(r *PullRequest) { r.Lazy = true })
	g.golden("pull-lazy.txt", func(b *bytes.Buffer) error { return plan.Write(b) })
	g.asked()
	_, lines, err := e.pull(name, func(r *PullRequest) { r.Lazy = true })
	if err != nil {
		t.Fatal(err)
	}
	e.has(name, "whole", "lazy", "refused")
	if !slices.Equal(l.added, []digest.Digest{s.diffIDs[1]}) {
		t.Errorf("lazy layers %v", l.added)
	}
	if slices.Contains(g.asked(), "GET x blobs "+s.blobs[1].Digest.Encoded()) {
		t.Error("the lazy layer was fetched")
	}
	for id, want := range map[string]string{short(s.blobs[0].Digest): "Pull complete", short(s.blobs[1].Digest): "Pull complete, fetched in the background", short(s.blobs[2].Digest): "Pull complete"} {
		if !slices.Contains(lines, id+": "+want) {
			t.Errorf("%q is not in %q", id+": "+want, lines)
		}
	}
	// Another image with the layer brings credentials for it.
	g.build("y", "1", ocispec.Platform{}, []string{"tar"}, "whole", "lazy", "more")
	e.mustPull(g.host() + "/y:1")
	if !slices.Contains(l.supplied, s.diffIDs[1]) {
		t.Error("the new way to the layer was not told")
	}
}

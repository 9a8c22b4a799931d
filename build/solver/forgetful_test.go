package solver

import (
	"context"
	"slices"
	"testing"

	digest "github.com/opencontainers/go-digest"

	"berth/build/cache"
)

// A cache that takes no records is no reason for a build to fail, and nothing is held longer for it.
func TestCacheThatTakesNothing(t *testing.T) {
	const lines = "src = source\nctx = source\nmake = step src ctx"
	w := newStores(t).open()
	w.sources["src"] = &fakeSource{chain: w.pool[:2], cache: digest.FromString("src")}
	w.sources["ctx"] = &fakeSource{chain: w.pool[2:3], provide: func(context.Context) error { return nil }}
	there := &elsewhere{w: w, outcomes: map[digest.Digest]Outcome{}, data: map[string]bool{"make": true}}
	if err := w.cache.Close(); err != nil {
		t.Fatal(err)
	}
	var made []digest.Digest
	sources := w.pool[:3]
	for _, cfg := range []BuildConfig{{}, {Imports: []cache.Remote{there}}} {
		b := w.Begin(cfg)
		r, err := b.Ref(script(t, lines))
		if err != nil {
			t.Fatal(err)
		}
		s, err := r.Ready(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		made = slices.Clone(s.Chain())
		if err := r.Walk(func(o Outcome) error {
			for _, k := range o.Keys {
				there.outcomes[k] = o
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		b.Close()
		if cfg.Imports == nil {
			w.layers.Release(w.pool[len(sources):]...)
		}
	}
	if w.runs("make") != 1 || len(there.provided) != 1 {
		t.Errorf("%v ran, %v was fetched", w.order, there.provided)
	}
	w.Solver.Close()
	w.layers.Release(w.pool...) // the cache elsewhere made it anew
	w.layers.Release(sources...)
	for _, d := range made {
		if w.layers.Has(d) {
			t.Errorf("%s is held", d)
		}
	}
}

package solver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	digest "github.com/opencontainers/go-digest"
)

// randomGraph gives a definition of up to n steps, each on one to three of those before it.
func randomGraph(r *rand.Rand, n int) string {
	lines := []string{"base = source", "other = source"}
	names := []string{"base", "other"}
	for i := range 1 + r.IntN(n) {
		name := fmt.Sprintf("s%d", i)
		line := name + " = step"
		for range 1 + r.IntN(3) {
			line += " " + names[max(0, len(names)-1-r.IntN(6))]
		}
		lines, names = append(lines, line), append(names, name)
	}
	return strings.Join(lines, "\n")
}

// reference evaluates a script serially, by itself.
func (w *world) reference(script string) []digest.Digest {
	chains := map[string][]digest.Digest{}
	var last string
	for line := range strings.SplitSeq(script, "\n") {
		name, rest, _ := strings.Cut(line, " = ")
		words := strings.Fields(rest)
		if last = name; words[0] == "source" {
			chains[name] = w.sources[name].chain
			continue
		}
		key := name
		for _, in := range words[1:] {
			s := w.snaps.Promise(chains[in], absent)
			id, err := s.Identity(w.t.Context())
			if err != nil {
				w.t.Fatal(err)
			}
			s.Release()
			key += " " + string(id)
		}
		chains[name] = append(slices.Clone(chains[words[1]]), w.layerOf(key))
	}
	return chains[last]
}

// However steps take their time, and however many builds want them: the result is that of running them one after another,
// each runs once, and the second time none does.
func TestRandomGraphs(t *testing.T) {
	w := newStores(t)
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		w.root = t.TempDir()
		w.parallel = r.IntN(4)
		synctest.Test(t, func(t *testing.T) {
			w.t = t
			w.order, w.ended, w.most = nil, map[string]int{}, 0
			w.open()
			defer w.shut()
			w.sources["base"], w.sources["other"] = &fakeSource{chain: w.pool[:1]}, &fakeSource{chain: w.pool[1:3]}
			text := randomGraph(r, 25)
			for i := range 25 {
				w.steps[fmt.Sprintf("s%d", i)] = sleep(time.Duration(r.IntN(5000)) * time.Millisecond)
			}
			want, def := w.reference(text), script(t, text)
			var all sync.WaitGroup
			for range 3 {
				delay, patience := time.Duration(r.IntN(3000))*time.Millisecond, time.Duration(r.IntN(9000))*time.Millisecond
				all.Go(func() {
					time.Sleep(delay)
					got, err := w.solve(t.Context(), def, BuildConfig{})
					if err != nil || !slices.Equal(got, want) {
						t.Errorf("seed %d: %v, %v, not %v\n%s", seed, err, got, want, text)
					}
				})
				all.Go(func() { // somebody who loses patience disturbs nobody
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					if got, err := w.solve(ctx, def, BuildConfig{}); err == nil && !slices.Equal(got, want) {
						t.Errorf("seed %d: %v, not %v", seed, got, want)
					}
				})
			}
			all.Wait()
			ran := w.total()
			// One may have begun more often, where all who wanted it lost patience: only one has come to its end.
			for key, n := range w.ended {
				if n != 1 {
					t.Errorf("seed %d: %s ran %d times\n%s", seed, key, n, text)
				}
			}
			if got := w.mustSolve(def); !slices.Equal(got, want) || w.total() != ran {
				t.Errorf("seed %d: %d ran the second time", seed, w.total()-ran)
			}
			if w.parallel > 0 && w.most > w.parallel {
				t.Errorf("seed %d: %d ran at once, not %d", seed, w.most, w.parallel)
			}
		})
	}
}

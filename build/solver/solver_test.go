package solver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/cache"
	"berth/build/graph"
	"berth/build/progress"
	"berth/build/session"
)

// sleep is a step that takes a while, unless it is cancelled.
func sleep(d time.Duration) func(*step) {
	return func(s *step) {
		select {
		case <-time.After(d):
		case <-s.ctx.Done():
			s.err = context.Cause(s.ctx)
		}
	}
}

// inBubble runs f with stores made outside of fake time.
func inBubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	w := newStores(t)
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		w.open()
		defer w.shut()
		f(t, w)
	})
}

const diamond = `
base = source
left = step base
right = step base
join = step left right`

func TestIndependentStepsRunAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sources["base"] = &fakeSource{chain: w.pool[:1]}
		for _, n := range []string{"left", "right", "join"} {
			w.steps[n] = sleep(10 * time.Second)
		}
		began := time.Now()
		chain := w.mustSolve(script(t, diamond))
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("took %v", took)
		}
		if w.most != 2 || w.total() != 3 || len(chain) != 3 {
			t.Errorf("%d at once, %d in all, chain of %d", w.most, w.total(), len(chain))
		}
		// All is cached now.
		l := newLog()
		again, err := w.solve(t.Context(), script(t, diamond), BuildConfig{Progress: l})
		if err != nil || !slices.Equal(again, chain) || w.total() != 3 {
			t.Errorf("%v %v, %d ran", again, err, w.total())
		}
		if !l.has("join cached") || !l.has("left cached") {
			t.Errorf("%s", strings.Join(l.lines, "\n"))
		}
	})
}

func TestParallelBoundsStepsThatRun(t *testing.T) {
	w := newStores(t)
	w.parallel = 2
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		w.open()
		defer w.shut()
		w.sources["base"] = &fakeSource{chain: w.pool[:1]}
		lines := "base = source\n"
		join := "join = step"
		for i := range 7 {
			name := fmt.Sprintf("s%d", i)
			lines += name + " = step base\n"
			join += " " + name
			w.steps[name] = sleep(time.Second)
		}
		began := time.Now()
		w.mustSolve(script(t, lines+join))
		if w.most != 2 || time.Since(began) != 4*time.Second {
			t.Errorf("%d at once, %v", w.most, time.Since(began))
		}
	})
}

func TestCachedNeedsNoData(t *testing.T) {
	w := newStores(t).open()
	defer func() { w.shut() }()
	w.sources["base"] = &fakeSource{chain: w.pool[:2], provide: func(context.Context) error { return nil }}
	def := script(t, "base = source\na = step base\nb = step a")
	chain := w.mustSolve(def)
	// Another engine, a restart later, whose base cannot be fetched.
	w.shut()
	w.open()
	w.sources["base"] = &fakeSource{chain: w.pool[:2], provide: func(context.Context) error { return errors.New("fetched") }}
	if again := w.mustSolve(def); !slices.Equal(again, chain) || w.total() != 2 {
		t.Errorf("%v, %d ran", again, w.total())
	}
	// What is not cached fetches it, and says so under its own vertex.
	w.sources["other"] = &fakeSource{chain: []digest.Digest{digest.FromString("absent")}, provide: func(context.Context) error { return errors.New("fetched") }}
	def = script(t, "other = source\nc = step other")
	_, err := w.solve(t.Context(), def, BuildConfig{})
	var ve *errdefs.VertexError
	if err == nil || !errors.As(err, &ve) || ve.Digest != string(digestOf(t, def, 0)) {
		t.Errorf("%v", err)
	}
}

func digestOf(t *testing.T, def *pb.Definition, n int) digest.Digest {
	t.Helper()
	return digest.FromBytes(def.Def[n])
}

func TestContentKeys(t *testing.T) {
	w := newStores(t).open()
	defer w.shut()
	ctx := &fakeSource{files: files("src/main.go=1", "README=1")}
	w.sources["base"], w.sources["ctx"] = &fakeSource{chain: w.pool[:1]}, ctx
	w.reads["copy"] = map[int]string{1: "src"}
	def := script(t, "base = source\nctx = source\ncopy = step base ctx\nrun = step copy")
	first := w.mustSolve(def)
	// Something else in the context changes: what copy reads does not.
	ctx.files = files("src/main.go=1", "README=2")
	if again := w.mustSolve(def); !slices.Equal(again, first) || w.total() != 2 {
		t.Errorf("%d ran: %v", w.total(), w.order)
	}
	// A hit by the quick key tells the content key, too: a cache export needs both.
	b := w.Begin(BuildConfig{})
	r, err := b.Ref(def)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Result(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Walk(func(o Outcome) error {
		if o.Vertex.Name == "copy" && len(o.Keys) != 3 { // this tree's, the first one's, and what both have
			t.Errorf("keys of a hit: %v", o.Keys)
		}
		return nil
	})
	b.Close()
	// Now under the quick key, too: the tree is not even read.
	plan, err := w.Begin(BuildConfig{}).Plan(t.Context(), def)
	if err != nil || plan.Steps[2].State != Cached {
		t.Errorf("%v %v", plan, err)
	}
	ctx.files = files("src/main.go=2", "README=2")
	if changed := w.mustSolve(def); slices.Equal(changed, first) || w.total() != 4 {
		t.Errorf("%d ran: %v", w.total(), w.order)
	}
	if w.runs("copy") != 2 || w.runs("run") != 2 {
		t.Errorf("%v", w.order)
	}
}

// A step that gives what it gave before lets what comes after it be found.
func TestSameOutcomeHits(t *testing.T) {
	w := newStores(t).open()
	defer w.shut()
	src := &fakeSource{files: files("a=1")}
	w.sources["base"], w.sources["src"] = &fakeSource{chain: w.pool[:1]}, src
	w.steps["gen"] = func(s *step) { s.same = true }
	def := script(t, "base = source\nsrc = source\ngen = step base src\nrun = step gen")
	w.mustSolve(def)
	src.files = files("a=2")
	w.mustSolve(def)
	if w.runs("gen") != 2 || w.runs("run") != 1 {
		t.Errorf("%v", w.order)
	}
}

func TestBuildsShareSteps(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sources["base"] = &fakeSource{chain: w.pool[:1]}
		var sessions atomic.Value
		w.steps["slow"] = func(s *step) {
			fmt.Fprintln(s.run.Stdout, "hello")
			sleep(10 * time.Second)(s)
			sessions.Store(strings.Join(session.IDs(s.run.Sessions), " "))
			fmt.Fprintln(s.run.Stderr, "bye")
		}
		def := script(t, "base = source\nslow = step base")
		type result struct {
			chain []digest.Digest
			err   error
		}
		logs := []*log{newLog(), newLog(), newLog()}
		results := make([]result, 3)
		ctxs := make([]context.Context, 3)
		cancels := make([]context.CancelFunc, 3)
		done := make(chan int)
		for i := range 3 {
			ctxs[i], cancels[i] = context.WithCancel(t.Context())
			go func() {
				time.Sleep(time.Duration(i) * time.Second)
				results[i].chain, results[i].err = w.solve(ctxs[i], def, BuildConfig{Progress: logs[i], Sessions: session.NewGroup(fmt.Sprintf("s%d", i))})
				done <- i
			}()
		}
		time.Sleep(5 * time.Second)
		cancels[0]() // who began it goes away
		for range 3 {
			<-done
		}
		cancels[1]()
		cancels[2]()
		if w.runs("slow") != 1 {
			t.Errorf("ran %d times", w.runs("slow"))
		}
		if !errors.Is(results[0].err, context.Canceled) || results[1].err != nil || results[2].err != nil || !slices.Equal(results[1].chain, results[2].chain) {
			t.Errorf("%v", results)
		}
		for i, l := range logs {
			if !l.has("slow says hello") || l.has("slow says bye") != (i > 0) || !l.has("slow began") {
				t.Errorf("log %d: %s", i, strings.Join(l.lines, "\n"))
			}
		}
		if !logs[0].has("slow failed: context canceled") || !logs[2].has("slow done 10s") {
			t.Errorf("%v %v", logs[0].lines, logs[2].lines)
		}
		if got := sessions.Load(); got != "s1 s2" {
			t.Errorf("sessions at the end: %v", got)
		}
	})
}

// Builds whose contexts differ in what a step does not read share it while it runs.
func TestBuildsShareWhatIsRead(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sources["base"] = &fakeSource{chain: w.pool[:1]}
		w.sources["one"], w.sources["two"] = &fakeSource{files: files("src/a=1", "README=1")}, &fakeSource{files: files("src/a=1", "README=2")}
		w.reads["copy"] = map[int]string{1: "src"}
		w.steps["copy"] = sleep(time.Minute)
		chains := make([][]digest.Digest, 2)
		var all sync.WaitGroup
		for i, ctx := range []string{"one", "two"} {
			all.Go(func() {
				time.Sleep(time.Duration(i) * time.Second)
				chains[i] = w.mustSolve(script(t, "base = source\n"+ctx+" = source\ncopy = step base "+ctx))
			})
		}
		all.Wait()
		if w.runs("copy") != 1 || !slices.Equal(chains[0], chains[1]) {
			t.Errorf("ran %d times: %v", w.runs("copy"), chains)
		}
		// The second one's quick key is known, too.
		b := w.Begin(BuildConfig{})
		defer b.Close()
		n := b.adopt(mustGraph(t, script(t, "base = source\ntwo = source\ncopy = step base two")), "", nil)
		op, err := n.operation()
		if err != nil {
			t.Fatal(err)
		}
		ins, err := n.resolve(t.Context(), func(int) bool { return false })
		if err != nil {
			t.Fatal(err)
		}
		if w.cache.Lookup(quickKey(op.Key(), ins.identities)) == nil {
			t.Error("not found by the quick key")
		}
	})
}

func mustGraph(t *testing.T, def *pb.Definition) *graph.Graph {
	t.Helper()
	g, err := graph.Parse(def)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestNobodyWaitsCancels(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sources["base"] = &fakeSource{chain: w.pool[:1]}
		w.steps["slow"] = sleep(time.Hour)
		def := script(t, "base = source\nslow = step base")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		done := make(chan error)
		for range 2 {
			go func() {
				_, err := w.solve(ctx, def, BuildConfig{})
				done <- err
			}()
		}
		for range 2 {
			if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
		}
		synctest.Wait()
		w.mu.Lock()
		now := w.now
		w.mu.Unlock()
		if now != 0 || w.runs("slow") != 1 {
			t.Errorf("%d still run of %d", now, w.runs("slow"))
		}
		// It is not poisoned: who comes later gets it.
		w.steps["slow"] = nil
		w.mustSolve(def)
	})
}

func TestFailureEndsTheRest(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.sources["base"] = &fakeSource{chain: w.pool[:1]}
		w.steps["left"] = func(s *step) {
			time.Sleep(time.Second)
			s.err = &leaves{released: new(atomic.Int32)}
		}
		kept := &leaves{released: new(atomic.Int32)}
		w.steps["left"] = func(s *step) {
			time.Sleep(time.Second)
			s.err = kept
		}
		w.steps["right"] = sleep(time.Hour)
		def := script(t, diamond)
		began := time.Now()
		b := w.Begin(BuildConfig{})
		r, err := b.Ref(def)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Result(t.Context())
		if time.Since(began) != time.Second || !errors.Is(err, kept) {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		var ve *errdefs.VertexError
		if !errors.As(err, &ve) || ve.Digest != string(digestOf(t, def, 1)) {
			t.Errorf("vertex %v", ve)
		}
		sources := errdefs.Sources(err)
		if len(sources) != 1 || sources[0].Ranges[0].Start.Line != 2 || sources[0].Info.Filename != "Dockerfile" {
			t.Errorf("sources %v", sources)
		}
		// It has failed for this build; asking again tells the same without running.
		if _, err := r.Result(t.Context()); !errors.Is(err, kept) || w.runs("left") != 1 {
			t.Errorf("%v, ran %d times", err, w.runs("left"))
		}
		synctest.Wait()
		if kept.released.Load() != 0 {
			t.Error("released before the build is closed")
		}
		b.Close()
		if kept.released.Load() != 1 {
			t.Errorf("released %d times", kept.released.Load())
		}
	})
}

// leaves is an error that keeps something.
type leaves struct{ released *atomic.Int32 }

func (l *leaves) Error() string { return "it failed" }
func (l *leaves) Release()      { l.released.Add(1) }

func TestIgnoredCache(t *testing.T) {
	w := newStores(t).open()
	defer w.shut()
	w.sources["base"] = &fakeSource{chain: w.pool[:1]}
	def := script(t, "base = source\na = step base\nb! = step a\nc = step b")
	w.mustSolve(def)
	w.mustSolve(def)
	if w.runs("a") != 1 || w.runs("b") != 2 || w.runs("c") != 1 {
		t.Errorf("%v", w.order)
	}
	if _, err := w.solve(t.Context(), def, BuildConfig{NoCache: true}); err != nil {
		t.Fatal(err)
	}
	if w.total() != 4+3 {
		t.Errorf("%v", w.order)
	}
}

// A step that ignores the cache runs once for all builds that have it, from when the first begins it until the last of them is closed.
func TestIgnoredCacheOfOpenBuilds(t *testing.T) {
	w := newStores(t).open()
	defer w.shut()
	w.sources["base"] = &fakeSource{chain: w.pool[:1]}
	def := script(t, "base = source\na! = step base\nb! = step a")
	more := script(t, "base = source\na! = step base\nb! = step a\nc! = step b")
	open := func(def *pb.Definition) (*Build, []digest.Digest) {
		t.Helper()
		b := w.Begin(BuildConfig{})
		r, err := b.Ref(def)
		if err != nil {
			t.Fatal(err)
		}
		s, err := r.Result(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return b, s.Chain()
	}
	one, first := open(def)
	two, second := open(more)
	if w.runs("a") != 1 || w.runs("b") != 1 || w.runs("c") != 1 || !slices.Equal(first, second[:len(first)]) {
		t.Errorf("%v ran, %v and %v", w.order, first, second)
	}
	one.Close()
	three, _ := open(script(t, "base = source\na! = step base\nb! = step a\nd = step b"))
	if w.runs("a") != 1 || w.runs("b") != 1 {
		t.Errorf("%v ran, although a build that took them is open", w.order)
	}
	two.Close()
	three.Close()
	w.mustSolve(def)
	if w.runs("a") != 2 || w.runs("b") != 2 {
		t.Errorf("%v ran, although every build was closed", w.order)
	}
	if len(w.fresh.by) != 0 {
		t.Errorf("%d steps of closed builds are known", len(w.fresh.by))
	}
}

// A step that a closed build began may go on for others; what it gives is not kept for a build that nobody closes again.
func TestNothingIsFreshForAClosedBuild(t *testing.T) {
	w := newStores(t).open()
	defer w.shut()
	b := w.Begin(BuildConfig{})
	b.Close()
	w.fresh.add(b, "sha256:v", []digest.Digest{"sha256:k"})
	if w.fresh.has("sha256:v", "sha256:k") || len(w.fresh.by) != 0 {
		t.Error("a closed build has a step")
	}
}

// Two builds that want a step at the same time share it also where both ignore the cache; one that does not ignore it is another step.
func TestIgnoredCacheShared(t *testing.T) {
	w := newStores(t)
	synctest.Test(t, func(t *testing.T) {
		w.open()
		defer w.shut()
		w.sources["base"] = &fakeSource{chain: w.pool[:1]}
		w.steps["a"] = func(*step) { time.Sleep(time.Second) }
		var g sync.WaitGroup
		for _, lines := range []string{"base = source\na! = step base", "base = source\na! = step base", "base = source\na = step base"} {
			def := script(t, lines)
			g.Go(func() {
				if _, err := w.solve(context.Background(), def, BuildConfig{}); err != nil {
					t.Error(err)
				}
			})
		}
		g.Wait()
		if w.runs("a") != 2 {
			t.Errorf("%v ran", w.order)
		}
	})
}

// The data of a step may be gone while it is still known what it gave.
func TestGhosts(t *testing.T) {
	w := newStores(t).open()
	defer w.shut()
	w.sources["base"] = &fakeSource{chain: w.pool[:1]}
	lines := "base = source\ntools = step base\nmake = step tools\nfinal = step base make"
	chain := w.mustSolve(script(t, lines))
	prune := func(names ...string) {
		t.Helper()
		for _, n := range names {
			if err := w.cache.Prune(t.Context(), cache.PruneOptions{All: true, Filters: []string{"description==" + n}}, func(cache.Usage) {}); err != nil {
				t.Fatal(err)
			}
		}
	}
	prune("tools", "make")
	if again := w.mustSolve(script(t, lines)); !slices.Equal(again, chain) || w.total() != 3 {
		t.Errorf("%v ran", w.order)
	}
	// When its data is needed after all it runs, and so does what that needs.
	w.mustSolve(script(t, lines+"\nmore = step base make"))
	if w.runs("tools") != 2 || w.runs("make") != 2 || w.runs("final") != 1 || w.runs("more") != 1 {
		t.Errorf("%v ran", w.order)
	}
	// A ghost that gives something else when it runs again changes what is built on it.
	prune("make", "more")
	w.steps["make"] = func(s *step) { s.same = true }
	w.mustSolve(script(t, lines+"\nmore = step base make"))
	if w.runs("make") != 3 || w.runs("more") != 2 || w.runs("tools") != 2 {
		t.Errorf("%v ran", w.order)
	}
}

// elsewhere is a cache that has what a world's builds made.
type elsewhere struct {
	w        *world
	outcomes map[digest.Digest]Outcome
	data     map[string]bool // names of the steps whose data it has
	provided []string
	broken   bool // what it has cannot be fetched
}

func (e *elsewhere) Lookup(ctx context.Context, key digest.Digest) (*cache.Found, error) {
	o, ok := e.outcomes[key]
	if !ok {
		return nil, fault.New(fault.NotFound, "no such key")
	}
	f := &cache.Found{Outputs: o.Chains, Created: o.Created}
	if e.data[o.Vertex.Name] {
		f.Provide = func(ctx context.Context, output int) error {
			e.provided = append(e.provided, o.Vertex.Name)
			if e.broken {
				return errors.New("no such blob")
			}
			for i := range e.w.pool {
				e.w.add(i)
			}
			return e.w.layers.Retain(o.Chains[output]...)
		}
	}
	return f, nil
}

// Two builds that share all their steps each bring what they need by the cache that they import themselves, whose credentials are their client's: while
// the other one is there, and when it has left.
func TestImportsOfTwoBuilds(t *testing.T) {
	lines := "base = source\nrun = step base"
	for _, leaves := range []bool{false, true} {
		w := newStores(t).open()
		w.sources["base"] = &fakeSource{chain: w.pool[:1]}
		outcomes := map[digest.Digest]Outcome{}
		first := w.Begin(BuildConfig{})
		r, err := first.Ref(script(t, lines))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Result(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := r.Walk(func(o Outcome) error {
			for _, k := range o.Keys {
				outcomes[k] = o
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		first.Close()
		if err := w.cache.Prune(t.Context(), cache.PruneOptions{All: true}, func(cache.Usage) {}); err != nil {
			t.Fatal(err)
		}
		w.shut()
		w.layers.Release(w.pool[1:]...)
		w.root, w.order = t.TempDir(), nil
		w.open()
		caches, refs, builds := [2]*elsewhere{}, [2]*Ref{}, [2]*Build{}
		for i := range caches {
			caches[i] = &elsewhere{w: w, outcomes: outcomes, data: map[string]bool{"run": true}}
			builds[i] = w.Begin(BuildConfig{Imports: []cache.Remote{caches[i]}})
			if refs[i], err = builds[i].Ref(script(t, lines)); err != nil {
				t.Fatal(err)
			}
			if _, err := refs[i].Result(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if leaves {
			builds[0].Close()
		}
		if _, err := refs[1].Ready(t.Context()); err != nil || len(caches[0].provided) != 0 || !slices.Equal(caches[1].provided, []string{"run"}) || w.total() != 0 {
			t.Errorf("%v; the first brought %v, the second %v, ran %v", err, caches[0].provided, caches[1].provided, w.order)
		}
		if !leaves {
			builds[0].Close()
		}
		builds[1].Close()
		w.shut()
	}
}

func TestImports(t *testing.T) {
	lines := "base = source\nctx = source\nbuild = step base ctx\ncopy = step base build\nrun = step copy"
	w := newStores(t).open()
	w.sources["base"] = &fakeSource{chain: w.pool[:1]}
	w.sources["ctx"] = &fakeSource{files: files("a=1", "b=1")}
	w.reads["build"] = map[int]string{1: "a"}
	there := &elsewhere{w: w, outcomes: map[digest.Digest]Outcome{}, data: map[string]bool{"copy": true, "run": true}}
	b := w.Begin(BuildConfig{})
	r, err := b.Ref(script(t, lines))
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.Result(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	chain := slices.Clone(s.Chain())
	if err := r.Walk(func(o Outcome) error {
		for _, k := range o.Keys {
			there.outcomes[k] = o
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if err := w.cache.Prune(t.Context(), cache.PruneOptions{All: true}, func(cache.Usage) {}); err != nil {
		t.Fatal(err)
	}
	w.shut()
	// An engine without records and layers, with the same base and what of the context matters.
	w.layers.Release(w.pool[1:]...)
	w.root, w.order = t.TempDir(), nil
	w.open()
	defer w.shut()
	w.sources["ctx"].files = files("a=1", "b=2")
	got, err := w.solve(t.Context(), script(t, lines), BuildConfig{Imports: []cache.Remote{there}})
	if err != nil || !slices.Equal(got, chain) || w.total() != 0 || len(there.provided) != 0 {
		t.Errorf("%v %v, ran %v, fetched %v", got, err, w.order, there.provided)
	}
	for _, d := range chain[1:] {
		if w.layers.Has(d) && d != w.pool[0] {
			t.Errorf("%s is here", d)
		}
	}
	// What cannot be brought is made.
	there.broken = true
	w.steps["build"] = func(*step) {
		for i := range w.pool {
			w.add(i)
		}
	}
	b = w.Begin(BuildConfig{Imports: []cache.Remote{there}})
	if r, err = b.Ref(script(t, lines)); err != nil {
		t.Fatal(err)
	}
	if s, err = r.Ready(t.Context()); err != nil || len(s.Chain()) != len(chain) || !slices.Equal(w.order, []string{"build", "copy", "run"}) {
		t.Errorf("%v %v, ran %v", s, err, w.order)
	}
	b.Close()
	if err := w.cache.Prune(t.Context(), cache.PruneOptions{All: true}, func(cache.Usage) {}); err != nil {
		t.Fatal(err)
	}
	w.layers.Release(w.pool...)
	w.order, there.broken, there.provided = nil, false, nil
	// Data is brought when it is needed, and kept.
	more := script(t, lines+"\nmore = step run")
	if _, err := w.solve(t.Context(), more, BuildConfig{Imports: []cache.Remote{there}}); err != nil || !slices.Equal(there.provided, []string{"run"}) || !slices.Equal(w.order, []string{"more"}) {
		t.Errorf("%v, ran %v, fetched %v", err, w.order, there.provided)
	}
	if rec := w.cache.Lookup(keyOf(there, "run")); rec == nil || rec.Ghost {
		t.Errorf("%v", rec)
	}
}

func keyOf(e *elsewhere, name string) digest.Digest {
	for k, o := range e.outcomes {
		if o.Vertex.Name == name && k == o.Keys[0] {
			return k
		}
	}
	return ""
}

func TestPinnedIsNotFetchedAgain(t *testing.T) {
	w := newStores(t).open()
	defer w.shut()
	git := &fakeSource{chain: w.pool[:1], cache: digest.FromString("git@commit")}
	w.sources["git"] = git
	def := script(t, "git = source\na = step git")
	w.mustSolve(def)
	w.mustSolve(def)
	if git.pins != 2 || git.made != 1 {
		t.Errorf("pinned %d times, made %d times", git.pins, git.made)
	}
	all, err := w.cache.DiskUsage(t.Context(), []string{"description==fake://git"})
	if err != nil || len(all) != 1 {
		t.Errorf("%v %v", all, err)
	}
}

func TestEntitlements(t *testing.T) {
	w := newStores(t).open()
	defer w.shut()
	device := func(e *pb.ExecOp) { e.CdiDevices = []*pb.CDIDevice{{Name: "vendor.com/class=a", Optional: true}} }
	const noDevice = "device vendor.com/class=a is requested by the build but not allowed"
	for _, c := range []struct {
		change func(*pb.ExecOp)
		needs  string
		says   string
	}{
		{func(e *pb.ExecOp) { e.Network = pb.NetMode_HOST }, "network.host", "network.host is not allowed"},
		{func(e *pb.ExecOp) { e.Security = pb.SecurityMode_INSECURE }, "security.insecure", "security.insecure is not allowed"},
		{device, "device", noDevice},
		{device, "device=vendor.com/class=a", noDevice},
	} {
		e := &pb.ExecOp{Meta: &pb.Meta{Args: []string{"x"}}, Mounts: []*pb.Mount{{Dest: "/", Input: -1}}}
		c.change(e)
		data, _ := (&pb.Op{Op: &pb.Op_Exec{Exec: e}}).Marshal()
		end, _ := (&pb.Op{Inputs: []*pb.Input{{Digest: string(digest.FromBytes(data))}}}).Marshal()
		def := &pb.Definition{Def: [][]byte{data, end}}
		b := w.Begin(BuildConfig{Entitlements: []string{"device=vendor.com/class=b"}})
		if _, err := b.Ref(def); !fault.Is(err, fault.Forbidden) || err.Error() != c.says {
			t.Errorf("%v", err)
		}
		b.Close()
		b = w.Begin(BuildConfig{Entitlements: []string{c.needs}})
		if _, err := b.Ref(def); err != nil {
			t.Errorf("%v", err)
		}
		b.Close()
	}
}

// A build may have the devices that are free, and those that a word which it was allowed means.
func TestDevices(t *testing.T) {
	w := newStores(t).open()
	defer w.shut()
	w.Solver.cfg.Devices = func(word string) map[string]bool {
		return map[string]map[string]bool{
			"a.com/x": {"a.com/x=0": false}, "a.com/x=*": {"a.com/x=0": false, "a.com/x=1": false}, "a.com/x=1": {"a.com/x=1": false}, "free": {"a.com/y=0": true},
		}[word]
	}
	for _, c := range []struct {
		device   string
		optional bool
		allowed  []string
		says     string
	}{
		{"free", false, nil, ""},
		{"a.com/x", false, nil, "device a.com/x=0 is requested by the build but not allowed"},
		{"a.com/x", false, []string{"device"}, ""},
		{"a.com/x", false, []string{"device=a.com/x"}, ""},
		{"a.com/x=1", false, []string{"device=a.com/x"}, "device a.com/x=1 is requested by the build but not allowed"},
		{"a.com/x=1", false, []string{"device=a.com/x=*"}, ""},
		{"a.com/x=*", false, []string{"device=a.com/x"}, "device a.com/x=1 is requested by the build but not allowed"},
		{"none", false, nil, `required device "none" is not registered`},
		{"none", true, nil, ""},
		{"none", true, []string{"device=a.com/x"}, ""},
	} {
		e := &pb.ExecOp{Meta: &pb.Meta{Args: []string{"x"}}, Mounts: []*pb.Mount{{Dest: "/", Input: -1}}, CdiDevices: []*pb.CDIDevice{{Name: c.device, Optional: c.optional}}}
		data, _ := (&pb.Op{Op: &pb.Op_Exec{Exec: e}}).Marshal()
		end, _ := (&pb.Op{Inputs: []*pb.Input{{Digest: string(digest.FromBytes(data))}}}).Marshal()
		b := w.Begin(BuildConfig{Entitlements: c.allowed})
		_, err := b.Ref(&pb.Definition{Def: [][]byte{data, end}})
		if (err == nil) != (c.says == "") || err != nil && err.Error() != c.says {
			t.Errorf("%s with %v: %v, want %q", c.device, c.allowed, err, c.says)
		}
		b.Close()
	}
}

func TestEmptyDefinition(t *testing.T) {
	w := newStores(t).open()
	defer w.shut()
	chain, err := w.solve(t.Context(), nil, BuildConfig{})
	if err != nil || len(chain) != 0 {
		t.Errorf("%v %v", chain, err)
	}
}

// Nothing is left held when builds are closed but what records hold.
func TestNothingLeaks(t *testing.T) {
	w := newStores(t).open()
	w.sources["base"] = &fakeSource{chain: w.pool[:1]}
	before := map[digest.Digest]int{}
	for _, d := range w.pool {
		before[d] = w.layers.Holds(d)
	}
	w.mustSolve(script(t, diamond))
	w.mustSolve(script(t, diamond))
	if err := w.cache.Prune(t.Context(), cache.PruneOptions{All: true}, func(cache.Usage) {}); err != nil {
		t.Fatal(err)
	}
	w.shut()
	for i, d := range w.pool {
		if got := w.layers.Holds(d); got != before[d] {
			t.Errorf("layer %d is held %d times, was %d", i, got, before[d])
		}
	}
}

var _ progress.Sink = (*log)(nil)

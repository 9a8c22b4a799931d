package solver

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/cache"
	"berth/build/content"
	"berth/build/graph"
	"berth/build/progress"
	"berth/build/snapshot"
	"berth/image/layer"
)

// A world has real layers and snapshots, and operations that only pretend: what an operation gives is its first input's chain
// with one more layer, chosen by its key and what it read. Its sources are named fake://NAME.
type world struct {
	t      *testing.T
	layers *layer.Store
	snaps  *snapshot.Store
	pool   []digest.Digest

	root  string // of the cache
	cache *cache.Store
	*Solver
	parallel int

	mu      sync.Mutex
	order   []string                  // names as they began
	now     int                       // how many run
	most    int                       // how many ran at once
	ended   map[string]int            // runs to the end, by operation and inputs
	sources map[string]*fakeSource    // by name
	steps   map[string]func(*step)    // by name; nil: gives its layer at once
	reads   map[string]map[int]string // of a step and input, the paths it reads; none: the whole
}

// step is a running operation.
type step struct {
	ctx  context.Context
	in   []*snapshot.Snapshot
	run  *Run
	err  error
	same bool // gives its first input
}

// newStores makes what lives outside of fake time.
func newStores(t *testing.T) *world {
	t.Helper()
	layers, err := layer.Open(layer.Config{Root: t.TempDir()})
	if err != nil {
		t.Skipf("needs a layer store: %v", err)
	}
	snaps, err := snapshot.Open(snapshot.Config{Layers: layers, Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		snaps.Close()
		layers.Close()
	})
	w := &world{
		t: t, layers: layers, snaps: snaps, root: t.TempDir(), ended: map[string]int{},
		sources: map[string]*fakeSource{}, steps: map[string]func(*step){}, reads: map[string]map[int]string{},
	}
	for i := range 32 {
		w.pool = append(w.pool, w.add(i))
	}
	return w
}

// add adds a layer of the pool, with a hold.
func (w *world) add(i int) digest.Digest {
	w.t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("f%d", i), Mode: 0o644, Typeflag: tar.TypeReg})
	tw.Close()
	info, err := w.layers.Add(w.t.Context(), &b, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return info.DiffID
}

// open opens the cache and a solver; it may be called again after shut.
func (w *world) open() *world {
	w.t.Helper()
	var err error
	w.cache, err = cache.Open(cache.Config{Layers: w.layers, Root: w.root, Size: func(digest.Digest) int64 { return 1 }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Solver = New(Config{
		Snapshots: w.snaps, Content: content.New(), Cache: w.cache, Parallel: w.parallel,
		Op:     func(v *graph.Vertex) (Op, error) { return &fakeOp{w, v}, nil },
		Source: w.source,
	})
	return w
}

func (w *world) shut() {
	w.t.Helper()
	w.Solver.Close()
	if err := w.cache.Close(); err != nil {
		w.t.Error(err)
	}
}

// fakeSource is a chain or a tree.
type fakeSource struct {
	chain   []digest.Digest
	files   snapshot.Entries
	provide func(context.Context) error // not nil: the chain is a promise
	cache   digest.Digest
	pins    int
	made    int
	err     error
}

func (w *world) source(v *graph.Vertex) (Source, error) {
	name := strings.TrimPrefix(v.Op.GetSource().Identifier, "fake://")
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sources[name]
	if s == nil {
		return nil, fault.New(fault.NotFound, "no source %s", name)
	}
	return pinner{w, s, name}, nil
}

type pinner struct {
	w    *world
	s    *fakeSource
	name string
}

func (p pinner) Pin(ctx context.Context, r *Run) (Pinned, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.s.pins++
	if p.s.err != nil {
		return Pinned{}, p.s.err
	}
	return Pinned{Pin: "pin-" + p.name, Cache: p.s.cache, Material: Material{Kind: "fake", URI: p.name}, Snapshot: func(context.Context) (*snapshot.Snapshot, error) {
		p.w.mu.Lock()
		p.s.made++
		p.w.mu.Unlock()
		switch {
		case p.s.files != nil:
			return p.w.snaps.FromTree(&fakeTree{entries: p.s.files}), nil
		case p.s.provide != nil:
			return p.w.snaps.Promise(p.s.chain, func(ctx context.Context) error {
				if err := p.s.provide(ctx); err != nil {
					return err
				}
				return p.w.layers.Retain(p.s.chain...)
			}), nil
		}
		return p.w.snaps.FromChain(p.s.chain)
	}}, nil
}

type fakeTree struct{ entries snapshot.Entries }

func (f *fakeTree) Dir() string           { return "/nonexistent" }
func (f *fakeTree) Index() snapshot.Index { return f.entries }
func (f *fakeTree) Close()                {}

// files makes a tree's entries of path=content.
func files(list ...string) snapshot.Entries {
	var e snapshot.Entries
	dirs := map[string]bool{}
	for _, f := range list {
		path, data, _ := strings.Cut(f, "=")
		if dir, _, ok := strings.Cut(path, "/"); ok && !dirs[dir] {
			dirs[dir] = true
			e = append(e, snapshot.Entry{Path: dir, Mode: 0o40755})
		}
		e = append(e, snapshot.Entry{Path: path, Mode: 0o100644, Size: int64(len(data)), Digest: digest.FromString(data)})
	}
	e.Sort()
	return e
}

type fakeOp struct {
	w *world
	v *graph.Vertex
}

func (o *fakeOp) name() string { return strings.Join(o.v.Op.GetExec().Meta.Args, " ") }

func (o *fakeOp) Key() digest.Digest { return digest.FromString(o.name()) }

func (o *fakeOp) Reads(input int) []content.Selector {
	if path, ok := o.w.reads[o.name()][input]; ok {
		return []content.Selector{{Path: path}}
	}
	return nil
}

func (o *fakeOp) Run(ctx context.Context, in []*snapshot.Snapshot, r *Run) ([]*snapshot.Snapshot, error) {
	w := o.w
	key := o.name()
	for _, s := range in {
		id, err := s.Identity(ctx)
		if err != nil {
			return nil, err
		}
		key += " " + string(id)
	}
	w.mu.Lock()
	w.order = append(w.order, o.name())
	w.now++
	w.most = max(w.most, w.now)
	f := w.steps[o.name()]
	w.mu.Unlock()
	st := &step{ctx: ctx, in: in, run: r}
	if f != nil {
		f(st)
	}
	w.mu.Lock()
	w.now--
	w.mu.Unlock()
	if st.err != nil {
		return nil, st.err
	}
	w.mu.Lock()
	w.ended[key]++
	w.mu.Unlock()
	var base []digest.Digest
	if len(in) > 0 {
		base = in[0].Chain()
	}
	if st.same {
		s, err := w.snaps.FromChain(base)
		return []*snapshot.Snapshot{s}, err
	}
	s, err := w.snaps.FromChain(append(slices.Clone(base), w.layerOf(key)))
	return []*snapshot.Snapshot{s}, err
}

// layerOf is the layer that an operation makes.
func (w *world) layerOf(key string) digest.Digest {
	sum := sha256.Sum256([]byte(key))
	return w.pool[binary.LittleEndian.Uint32(sum[:])%uint32(len(w.pool))]
}

// runs tells how often the step of that name has run.
func (w *world) runs(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, o := range w.order {
		if o == name {
			n++
		}
	}
	return n
}

func (w *world) total() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.order)
}

// A script makes definitions: one line a vertex, "NAME = source" or "NAME = step INPUT…"; the last one is the result. A name with
// an exclamation mark ignores the cache.
func script(t testing.TB, lines string) *pb.Definition {
	t.Helper()
	def := &pb.Definition{Metadata: map[string]*pb.OpMetadata{}, Source: &pb.Source{Locations: map[string]*pb.Locations{}, Infos: []*pb.SourceInfo{{Filename: "Dockerfile", Data: []byte(lines)}}}}
	known := map[string]digest.Digest{}
	var last digest.Digest
	add := func(op *pb.Op) digest.Digest {
		data, err := op.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		def.Def = append(def.Def, data)
		return digest.FromBytes(data)
	}
	for n, line := range strings.Split(strings.TrimSpace(lines), "\n") {
		name, rest, _ := strings.Cut(line, " = ")
		name = strings.TrimSpace(name)
		ignore := strings.HasSuffix(name, "!")
		name = strings.TrimSuffix(name, "!")
		words := strings.Fields(rest)
		if words[0] == "source" {
			last = add(&pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "fake://" + name}}})
		} else {
			var in []*pb.Input
			mounts := []*pb.Mount{{Dest: "/", Input: int64(pb.Empty), Output: 0}}
			for i, w := range words[1:] {
				d, ok := known[w]
				if !ok {
					t.Fatalf("%s is not defined", w)
				}
				in = append(in, &pb.Input{Digest: string(d)})
				if i == 0 {
					mounts[0].Input = 0
				} else {
					mounts = append(mounts, &pb.Mount{Dest: fmt.Sprintf("/in%d", i), Input: int64(i), Output: int64(pb.SkipOutput)})
				}
			}
			last = add(&pb.Op{Inputs: in, Op: &pb.Op_Exec{Exec: &pb.ExecOp{Meta: &pb.Meta{Args: []string{name}}, Mounts: mounts}}})
		}
		known[name] = last
		def.Metadata[string(last)] = &pb.OpMetadata{IgnoreCache: ignore}
		def.Source.Locations[string(last)] = &pb.Locations{Locations: []*pb.Location{{Ranges: []*pb.Range{{Start: &pb.Position{Line: int32(n + 1)}, End: &pb.Position{Line: int32(n + 1)}}}}}}
	}
	add(&pb.Op{Inputs: []*pb.Input{{Digest: string(last)}}})
	return def
}

// solve evaluates a definition in a build of its own and gives the result's chain.
func (w *world) solve(ctx context.Context, def *pb.Definition, cfg BuildConfig) ([]digest.Digest, error) {
	b := w.Begin(cfg)
	defer b.Close()
	r, err := b.Ref(def)
	if err != nil {
		return nil, err
	}
	s, err := r.Result(ctx)
	if err != nil {
		return nil, err
	}
	return s.Chain(), nil
}

func (w *world) mustSolve(def *pb.Definition) []digest.Digest {
	w.t.Helper()
	chain, err := w.solve(w.t.Context(), def, BuildConfig{})
	if err != nil {
		w.t.Fatal(err)
	}
	return chain
}

// log is a sink that writes down what it is told, by vertex name.
type log struct {
	mu    sync.Mutex
	lines []string
	names map[digest.Digest]string
}

func newLog() *log { return &log{names: map[digest.Digest]string{}} }

func (l *log) add(d digest.Digest, format string, args ...any) {
	l.lines = append(l.lines, l.names[d]+" "+fmt.Sprintf(format, args...))
}

func (l *log) Vertex(v progress.Vertex) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names[v.Digest] = v.Name
	switch {
	case v.Error != "":
		l.add(v.Digest, "failed: %s", v.Error)
	case v.Cached:
		l.add(v.Digest, "cached")
	case v.Completed != nil:
		l.add(v.Digest, "done %v", v.Completed.Sub(*v.Started).Round(time.Second))
	case v.Started != nil:
		l.add(v.Digest, "began")
	default:
		l.add(v.Digest, "announced")
	}
}

func (l *log) Status(s progress.Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(s.Vertex, "%s %d/%d", s.ID, s.Current, s.Total)
}

func (l *log) Log(e progress.Log) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(e.Vertex, "says %s", strings.TrimSpace(string(e.Data)))
}

func (l *log) Warning(w progress.Warning) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(w.Vertex, "warns %s", w.Short)
}

func (l *log) has(line string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.lines, line)
}

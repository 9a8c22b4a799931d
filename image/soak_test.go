package image

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image/archive"
	"berth/image/layer"
)

// TestSoak does everything at the same time: pulls, pushes, loads, saves, tags, removals, prunes, containers, checks. What
// one has hold of must stay whole whatever the others remove, and in the end there must be nothing too much and nothing too little.
// BERTH_SOAK says how long (1000: some minutes), BERTH_SEED repeats a run.
func TestSoak(t *testing.T) {
	steps := 40
	if n, err := strconv.Atoi(os.Getenv("BERTH_SOAK")); err == nil && n > 0 {
		steps = n * 2
	}
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("BERTH_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("BERTH_SEED=%d", seed)
	h := open(t)
	h.keep = seed%2 == 0
	h.reopen()
	var uses sync.Map // container id → image id
	h.UsedBy(func(id string) (list []Use) {
		uses.Range(func(c, image any) bool {
			if image == id {
				list = append(list, Use{ContainerID: c.(string), Running: true})
			}
			return true
		})
		return list
	})
	w := newSoakWorld(t, h, &uses)
	var wg sync.WaitGroup
	for n := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(n)))
			for range steps {
				if err := w.step(r, n); err != nil {
					t.Errorf("worker %d: %v", n, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	uses.Range(func(c, _ any) bool {
		h.Layers().Remove(c.(string))
		uses.Delete(c)
		return true
	})
	h.exactHolds()
	if c, err := h.Fsck(ctx, nil); err != nil || !c.OK() {
		t.Fatalf("%v %+v", err, c)
	}
	before, _ := h.List(ctx, ListOptions{All: true})
	h.reopen()
	h.exactHolds()
	after, _ := h.List(ctx, ListOptions{All: true})
	if toJSON(t, before) != toJSON(t, after) {
		t.Errorf("before reopening\n%s\nafter\n%s", toJSON(t, before), toJSON(t, after))
	}
	for range 10 { // parents and such come free one after the other
		if _, err := h.Prune(ctx, Filters{"dangling": {"false"}}); err != nil {
			t.Fatal(err)
		}
	}
	h.exactHolds()
	h.Layers().WaitTrash(ctx)
	if layers, docs := h.counts(); layers+docs+h.Count() != 0 {
		list, _ := h.List(ctx, ListOptions{All: true})
		t.Errorf("%d layers, %d documents, %d images stay: %s", layers, docs, h.Count(), toJSON(t, list))
	}
}

// TestKilledAnywhere kills a process that does all that at any moment, again and again on the same store: it opens, nothing in it is
// damaged, and nothing lies about that belongs to nothing.
func TestKilledAnywhere(t *testing.T) {
	if root := os.Getenv("IMAGE_TEST_SOAK_ROOT"); root != "" {
		var uses sync.Map
		h := &harness{t: t, root: root, uses: map[string][]Use{}, keep: true}
		h.reopen()
		w := newSoakWorld(t, h, &uses)
		fmt.Println("ready")
		for n := range 3 {
			go func() {
				r := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(n)))
				for {
					if err := w.step(r, n); err != nil {
						fmt.Println("FAILED", err)
						os.Exit(3)
					}
				}
			}()
		}
		time.Sleep(time.Minute)
		return
	}
	kills := 5
	if n, err := strconv.Atoi(os.Getenv("BERTH_SOAK")); err == nil && n > 0 {
		kills = n
	}
	h := open(t)
	h.keep = true
	for n := range kills {
		h.Close()
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledAnywhere$")
		cmd.Env = append(os.Environ(), "IMAGE_TEST_SOAK_ROOT="+h.root)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		line, err := lines.ReadString('\n')
		if err == nil && line == "ready\n" {
			time.Sleep(time.Duration(rand.IntN(120)) * time.Millisecond)
		}
		cmd.Process.Kill()
		rest, _ := io.ReadAll(lines)
		werr := cmd.Wait()
		if line != "ready\n" || strings.Contains(string(rest), "FAILED") {
			t.Fatalf("%s%s%v", line, rest, werr)
		}
		h.reopen()
		for _, c := range h.Layers().Containers() {
			if err := h.Layers().Remove(c); err != nil {
				t.Fatal(err)
			}
		}
		h.exactHolds()
		if c, err := h.Fsck(ctx, nil); err != nil || !c.OK() {
			t.Fatalf("after %d kills: %v %+v", n+1, err, c)
		}
		if left, _ := os.ReadDir(filepath.Join(h.root, "blob", "tmp")); len(left) != 0 {
			t.Fatalf("after %d kills: left %v", n+1, left)
		}
	}
	for range 10 {
		if _, err := h.Prune(ctx, Filters{"dangling": {"false"}}); err != nil {
			t.Fatal(err)
		}
	}
	h.empty("in the end")
}

// exactHolds compares all holds with what images need, when nothing is under way.
func (h *harness) exactHolds() {
	h.t.Helper()
	blobs, layers := map[digest.Digest]int{}, map[digest.Digest]int{}
	for _, r := range h.images {
		blobs[r.id]++
		for _, d := range r.documents() {
			blobs[d]++
		}
		for _, d := range r.Layers {
			layers[d]++
		}
	}
	roots := map[digest.Digest]bool{}
	for _, t := range h.names {
		if t.Root != "" && !roots[t.Root] {
			roots[t.Root] = true
			blobs[t.Root]++
		}
	}
	h.blobs.Walk(func(d digest.Digest, holds int) error {
		if holds != blobs[d] {
			h.t.Errorf("document %s is held %d times, needed %d times", d, holds, blobs[d])
		}
		delete(blobs, d)
		return nil
	})
	for d := range blobs {
		h.t.Errorf("document %s is not there", d)
	}
	for _, i := range h.layers.List() {
		if n := h.layers.Holds(i.DiffID); n != layers[i.DiffID] {
			h.t.Errorf("layer %s is held %d times, needed %d times", i.DiffID, n, layers[i.DiffID])
		}
		delete(layers, i.DiffID)
	}
	for d := range layers {
		h.t.Errorf("layer %s is not there", d)
	}
}

type soakWorld struct {
	h       *harness
	uses    *sync.Map
	several []*several
	small   []sample
}

func newSoakWorld(t *testing.T, h *harness, uses *sync.Map) *soakWorld {
	w := &soakWorld{h: h, uses: uses}
	for i := range 3 {
		w.several = append(w.several, makeSeveral(t, fmt.Sprint(i)), makeSeveralWith(t, fmt.Sprint(i), zst)) // the same images, known in two ways
	}
	for i := range 5 {
		w.small = append(w.small, makeSample(t, nil, tarOf(t, "etc/", "", "etc/shared", "all"), tarOf(t, "f", fmt.Sprint(i))))
	}
	return w
}

func (w *soakWorld) name(r *rand.Rand) string {
	return fmt.Sprintf("docker.io/library/%c:%d", 'a'+rune(r.IntN(3)), r.IntN(3))
}

// step does one thing. What is not there, or in use, is no failure.
func (w *soakWorld) step(r *rand.Rand, worker int) error {
	h := w.h
	gone := func(err error) error {
		if err == nil || fault.Is(err, fault.Conflict) || strings.HasPrefix(err.Error(), "No such image") || strings.Contains(err.Error(), "does not provide the specified platform") {
			return nil
		}
		return err
	}
	switch n := r.IntN(100); {
	case n < 20:
		return fault.In(w.pull(r), "pull")
	case n < 35:
		archive := w.small[r.IntN(len(w.small))].dockerArchive(h.t, w.name(r))
		if r.IntN(2) == 0 {
			archive = w.several[r.IntN(len(w.several))].archive(w.name(r), w.name(r))
		}
		_, err := h.Load(ctx, bytes.NewReader(archive), LoadOptions{})
		return fault.In(gone(err), "load")
	case n < 47:
		return fault.In(gone(h.Save(ctx, io.Discard, []string{w.name(r), w.name(r)}, nil)), "save")
	case n < 57:
		return fault.In(gone(w.push(r)), "push")
	case n < 65:
		return fault.In(gone(h.Tag(w.name(r), w.name(r))), "tag")
	case n < 75:
		_, err := h.Remove(ctx, w.name(r), RemoveOptions{Force: r.IntN(2) == 0})
		return fault.In(gone(err), "remove")
	case n < 79:
		_, err := h.Remove(ctx, w.name(r), RemoveOptions{Platforms: []Platform{{OS: "linux", Architecture: []string{"amd64", "arm64", "s390x"}[r.IntN(3)]}}})
		return fault.In(gone(err), "remove platform")
	case n < 82:
		id := w.small[r.IntN(len(w.small))].id()
		if r.IntN(2) == 0 {
			id = w.several[r.IntN(len(w.several))].arm.id()
		}
		_, err := h.Remove(ctx, id, RemoveOptions{Force: true})
		return fault.In(gone(err), "remove id")
	case n < 88:
		f := Filters{}
		if r.IntN(3) == 0 {
			f["dangling"] = []string{"false"}
		}
		_, err := h.Prune(ctx, f)
		return fault.In(err, "prune")
	case n < 94:
		return fault.In(gone(w.container(r, worker)), "container")
	case n < 98:
		if _, err := h.List(ctx, ListOptions{SharedSize: true, Containers: true, Manifests: true}); err != nil {
			return fault.In(err, "list")
		}
		_, err := h.DiskUsage(ctx)
		return fault.In(err, "df")
	}
	c, err := h.Check(ctx)
	if err == nil && !c.OK() {
		return fmt.Errorf("check: %+v", c.Damages)
	}
	return fault.In(err, "check")
}

// pull does what a pull does: layers first, then the image with its documents and names.
func (w *soakWorld) pull(r *rand.Rand) error {
	h := w.h
	m := w.several[r.IntN(len(w.several))]
	arch := []string{"amd64", "arm64", "s390x"}[r.IntN(3)]
	s := map[string]sample{"amd64": m.amd, "arm64": m.arm, "s390x": m.z}[arch]
	name, err := ref.Parse(w.name(r))
	if err != nil {
		return err
	}
	hold := h.Hold()
	defer hold.Release()
	var staged []*layer.Staged
	defer func() {
		for _, st := range staged {
			st.Drop()
		}
	}()
	sources := map[digest.Digest]Source{}
	for _, tar := range s.layers {
		d := digest.FromBytes(tar)
		blob := gz(tar)
		sources[d] = Source{Repository: name.Repository(), Descriptor: ocispec.Descriptor{Digest: digest.FromBytes(blob), Size: int64(len(blob))}}
		if hold.Layers(d) == nil {
			continue
		}
		st, err := h.Layers().Stage(ctx, bytes.NewReader(blob), d)
		if err != nil {
			return err
		}
		staged = append(staged, st)
	}
	if err := h.Layers().Commit(staged...); err != nil {
		return err
	}
	for _, st := range staged {
		if err := hold.AdoptLayers(st.DiffID); err != nil {
			return err
		}
	}
	manifest := m.manifests[arch]
	img, _, err := h.Register(ctx, Registration{
		Config: []byte(s.config), Sources: sources, Names: []ref.Ref{name, name.WithDigest(m.index.Digest)},
		Manifest: &Attached{Descriptor: manifest, Content: []byte(m.l.blobs[blobPath(manifest.Digest)])},
		Index:    &Attached{Descriptor: m.index, Content: []byte(m.l.blobs[blobPath(m.index.Digest)])},
	})
	if fault.Is(err, fault.NotFound) && strings.HasPrefix(err.Error(), "No such image") {
		return nil // removed as soon as it was there
	}
	if err == nil && img.ID != s.id() {
		err = fmt.Errorf("got %s", img.ID)
	}
	return err
}

// push reads all that a push would: while it is held, all must be there.
func (w *soakWorld) push(r *rand.Rand) error {
	h := w.h
	name := w.name(r)
	img, err := h.Resolve(name)
	if err != nil {
		return err
	}
	hold := h.Hold()
	defer hold.Release()
	if err := hold.Image(digest.Digest(img.ID)); err != nil {
		return err
	}
	for _, l := range img.Layers {
		if _, err := h.Recompress(ctx, l, io.Discard); err != nil {
			return fmt.Errorf("held and lost: %w", err)
		}
		if err := h.AddSource(l, Source{Repository: "example.com/x", Descriptor: ocispec.Descriptor{Digest: l, Size: 1}}); err != nil {
			return err
		}
	}
	if img.Manifest != nil {
		if _, err := h.Blobs().Read(img.Manifest.Digest, maxDocument); err != nil {
			return fmt.Errorf("held and lost: %w", err)
		}
	}
	_, err = h.ManifestOf(name, nil)
	return err
}

// container makes a container, or removes one of the worker's.
func (w *soakWorld) container(r *rand.Rand, worker int) error {
	h := w.h
	id := fmt.Sprintf("c%d-%d", worker, r.IntN(2))
	if _, ok := w.uses.LoadAndDelete(id); ok {
		return h.Layers().Remove(id)
	}
	img, err := h.Resolve(w.name(r))
	if err != nil {
		return err
	}
	if _, err := h.Layers().Create(ctx, id, img.Layers, layer.CreateOptions{ImageID: digest.Digest(img.ID)}); err != nil {
		if fault.Is(err, fault.NotFound) {
			return nil // removed meanwhile
		}
		return err
	}
	w.uses.Store(id, img.ID)
	return h.Layers().Diff(ctx, id, io.Discard, archive.WriteOptions{})
}

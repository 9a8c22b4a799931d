package solver

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// readsFrom is a definition that is what a file of a source says.
func readsFrom(t *testing.T, name string) *pb.Definition {
	t.Helper()
	def := script(t, name+" = source")
	op := &pb.Op{Inputs: []*pb.Input{{Digest: string(digest.FromBytes(def.Def[0]))}}, Op: &pb.Op_Build{Build: &pb.BuildOp{
		Builder: int64(pb.LLBBuilder), Inputs: map[string]*pb.BuildInput{pb.LLBDefinitionInput: {Input: 0}},
	}}}
	data, err := op.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	end, err := (&pb.Op{Inputs: []*pb.Input{{Digest: string(digest.FromBytes(data))}}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return &pb.Definition{Def: [][]byte{def.Def[0], data, end}}
}

// says makes a source with a definition in it.
func (w *world) says(name string, def *pb.Definition) {
	w.t.Helper()
	data, err := def.Marshal()
	if err != nil {
		w.t.Fatal(err)
	}
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	if err := tw.WriteHeader(&tar.Header{Name: pb.LLBDefaultDefinitionFile, Mode: 0o644, Size: int64(len(data))}); err != nil {
		w.t.Fatal(err)
	}
	tw.Write(data)
	tw.Close()
	info, err := w.layers.Add(w.t.Context(), &b, "")
	if err != nil {
		w.t.Fatal(err)
	}
	w.sources[name] = &fakeSource{chain: []digest.Digest{info.DiffID}}
}

func TestNestedDefinitions(t *testing.T) {
	w := newStores(t).open()
	defer w.shut()
	w.sources["base"] = &fakeSource{chain: w.pool[:2]}
	w.says("self", readsFrom(t, "self"))
	w.says("one", readsFrom(t, "two"))
	w.says("two", readsFrom(t, "three"))
	w.says("three", readsFrom(t, "one"))
	w.says("level0", script(t, "base = source"))
	for i := 1; i <= maxNesting+1; i++ {
		w.says(fmt.Sprint("level", i), readsFrom(t, fmt.Sprint("level", i-1)))
	}
	w.says("nonsense", &pb.Definition{Def: [][]byte{[]byte("x")}})
	for _, c := range []struct{ from, fails string }{
		{"level0", ""},
		{fmt.Sprint("level", maxNesting), ""},
		{fmt.Sprint("level", maxNesting+1), "nested more than"},
		{"self", "contains itself"},
		{"one", "contains itself"},
		{"nonsense", "failed to load LLB"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		chain, err := w.solve(ctx, readsFrom(t, c.from), BuildConfig{})
		cancel()
		switch {
		case c.fails == "" && (err != nil || !slices.Equal(chain, w.pool[:2])):
			t.Errorf("%s: %v, %v", c.from, chain, err)
		case c.fails != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.fails)):
			t.Errorf("%s: %v", c.from, err)
		}
	}
}

// Two that lead to each other wait for each other only where each is asked for before the other has been read.
func TestNestedInEachOther(t *testing.T) {
	w := newStores(t).open()
	defer w.shut()
	w.says("left", readsFrom(t, "right"))
	w.says("right", readsFrom(t, "left"))
	b := w.Begin(BuildConfig{})
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	failed := make(chan error)
	for _, name := range []string{"left", "right"} {
		r, err := b.Ref(readsFrom(t, name))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := r.Result(ctx)
			failed <- err
		}()
	}
	for range 2 {
		if err := <-failed; !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
	}
}

// What a build asks to be solved is kept until it ends, and is bounded.
func TestBuildsAreBounded(t *testing.T) {
	w := newStores(t).open()
	defer w.shut()
	w.sources["src"] = &fakeSource{chain: w.pool[:1]}
	b := w.Begin(BuildConfig{})
	defer b.Close()
	def := script(t, "src = source")
	var err error
	n := 0
	for ; err == nil && n <= maxRefs; n++ {
		_, err = b.Ref(def)
	}
	if n != maxRefs+1 || !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "the most that one build may") {
		t.Errorf("%d definitions: %v", n-1, err)
	}
	if _, err := w.Begin(BuildConfig{}).Ref(def); err != nil {
		t.Errorf("another build: %v", err)
	}
	heavy := w.Begin(BuildConfig{})
	heavy.weight = maxWeight - 3
	if _, err := heavy.Ref(def); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "fields together") {
		t.Errorf("too heavy: %v", err)
	}
}

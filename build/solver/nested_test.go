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
	spb "github.com/moby/buildkit/sourcepolicy/pb"
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
	for range 3 {
		if _, err = b.Ref(def.CloneVT()); err != nil {
			t.Fatal(err)
		}
	}
	n := 1
	for ; err == nil && n <= maxRefs; n++ {
		w.sources[fmt.Sprint("src", n)] = w.sources["src"]
		_, err = b.Ref(script(t, fmt.Sprintf("src%d = source", n)))
	}
	if n != maxRefs+1 || !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "the most that one build may") {
		t.Errorf("%d definitions: %v", n-1, err)
	}
	if _, err := b.Ref(def.CloneVT()); err != nil {
		t.Errorf("one that it had before: %v", err)
	}
	if _, err := w.Begin(BuildConfig{}).Ref(def); err != nil {
		t.Errorf("another build: %v", err)
	}
	heavy := w.Begin(BuildConfig{})
	if _, err := heavy.Ref(def); err != nil {
		t.Error(err)
	}
	heavy.weight = maxWeight - 3
	if _, err := heavy.Ref(def.CloneVT()); err != nil {
		t.Errorf("one that it had before: %v", err)
	}
	if _, err := heavy.Ref(script(t, "src1 = source")); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "fields together") {
		t.Errorf("too heavy: %v", err)
	}
}

// What a definition says besides its operations makes it another one.
func TestNamesOfDefinitions(t *testing.T) {
	names := map[digest.Digest]string{}
	add := func(what string, def *pb.Definition) {
		t.Helper()
		name := nameOf(def)
		if name != nameOf(def.CloneVT()) {
			t.Errorf("%s: two names", what)
		}
		if was, ok := names[name]; ok {
			t.Errorf("%s has the name of %s", what, was)
		}
		names[name] = what
	}
	change := func(f func(*pb.Definition)) *pb.Definition {
		def := script(t, "a = source\nb = step a")
		f(def)
		return def
	}
	first := string(digest.FromBytes(script(t, "a = source").Def[0]))
	add("nothing", nil)
	add("plain", change(func(*pb.Definition) {}))
	add("shorter", change(func(d *pb.Definition) { d.Def = d.Def[1:] }))
	add("another order", change(func(d *pb.Definition) { d.Def[0], d.Def[1] = d.Def[1], d.Def[0] }))
	add("cache ignored", change(func(d *pb.Definition) { d.Metadata = map[string]*pb.OpMetadata{first: {IgnoreCache: true}} }))
	add("described", change(func(d *pb.Definition) {
		d.Metadata = map[string]*pb.OpMetadata{first: {Description: map[string]string{"a": "b"}}}
	}))
	add("of a file", change(func(d *pb.Definition) { d.Source = &pb.Source{Infos: []*pb.SourceInfo{{Filename: "x"}}} }))
}

// Policies of a request hold for the definitions that its steps read, too, and for no other request's.
func TestNestedDefinitionsUnderPolicies(t *testing.T) {
	w := newStores(t).open()
	defer w.shut()
	w.sources["base"] = &fakeSource{chain: w.pool[:2]}
	w.sources["other"] = &fakeSource{chain: w.pool[:1]}
	w.says("inner", script(t, "base = source"))
	w.says("outer", readsFrom(t, "inner"))
	b := w.Begin(BuildConfig{})
	defer b.Close()
	rule := func(r *spb.Rule) []*spb.Policy {
		r.Selector = &spb.Selector{Identifier: "fake://base"}
		return []*spb.Policy{{Rules: []*spb.Rule{r}}}
	}
	deny := rule(&spb.Rule{Action: spb.PolicyAction_DENY})
	other := rule(&spb.Rule{Action: spb.PolicyAction_CONVERT, Updates: &spb.Update{Identifier: "fake://other"}})
	for i, c := range []struct {
		policies []*spb.Policy
		chain    []digest.Digest
		fails    string
	}{{nil, w.pool[:2], ""}, {deny, nil, "denied by policy"}, {other, w.pool[:1], ""}, {nil, w.pool[:2], ""}} {
		for _, name := range []string{"outer", "inner"} {
			r, err := b.RefUnder(c.policies, readsFrom(t, name))
			if err != nil {
				t.Fatal(err)
			}
			s, err := r.Result(t.Context())
			switch {
			case c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)):
				t.Errorf("%d, %s: %v", i, name, err)
			case c.fails == "" && (err != nil || !slices.Equal(s.Chain(), c.chain)):
				t.Errorf("%d, %s: %v", i, name, err)
			}
		}
	}
}

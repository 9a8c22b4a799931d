package build

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"

	"berth/base/fault"
	"berth/build/remotecache"
)

// A request that asks for more than one build may is refused before anything is opened, entered or kept for it.
func TestRequestsAreBounded(t *testing.T) {
	many := func(n int) map[string]string {
		attrs := map[string]string{}
		for i := range n {
			attrs[fmt.Sprint(i)] = ""
		}
		return attrs
	}
	long := map[string]string{"build-arg:X": strings.Repeat("x", maxText)}
	inputs := map[string]*pb.Definition{}
	for i := range maxInputs + 1 {
		inputs[fmt.Sprint(i)] = nil
	}
	for name, req := range map[string]Request{
		"name":                {ID: strings.Repeat("x", maxName+1)},
		"session":             {Session: strings.Repeat("x", maxName+1)},
		"outputs":             {Exporters: make([]Exporter, maxExporters+1)},
		"imports":             {CacheImports: make([]Cache, maxCaches+1)},
		"exports":             {CacheExports: make([]Cache, maxCaches+1)},
		"inputs":              {FrontendInputs: inputs},
		"entitlements":        {Entitlements: make([]string, maxAttributes+1)},
		"rules":               {SourcePolicy: &spb.Policy{Rules: make([]*spb.Rule, maxRules+1)}},
		"options":             {FrontendAttrs: many(maxAttributes + 1)},
		"text":                {FrontendAttrs: long},
		"output's attributes": {Exporters: []Exporter{{Attrs: many(maxAttributes + 1)}}},
		"text of caches":      {CacheImports: []Cache{{Attrs: long}}},
		"text of all":         {Exporters: []Exporter{{Attrs: map[string]string{"a": strings.Repeat("x", maxText/2)}}, {Attrs: map[string]string{"b": strings.Repeat("x", maxText/2)}}}},
	} {
		b := &Builder{}
		if _, err := b.Solve(context.Background(), req); !fault.Is(err, fault.Invalid) || len(err.Error()) > 200 {
			t.Errorf("%s: %.300v", name, err)
		}
	}
	honest := Request{ID: "abc", FrontendAttrs: many(200), Exporters: make([]Exporter, 3), CacheImports: make([]Cache, 8)}
	if err := honest.check(); err != nil {
		t.Error(err)
	}
}

func TestBuildsUnderWayAreBounded(t *testing.T) {
	b := &Builder{builds: map[string]*running{}, came: make(chan struct{})}
	var first *running
	for range maxBuilds {
		r, _, err := b.enter(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		first = r
	}
	if _, _, err := b.enter(t.Context(), "more"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("one too many: %v", err)
	}
	b.leave(first)
	if _, _, err := b.enter(t.Context(), "more"); err != nil {
		t.Error(err)
	}
}

// Two caches in one bucket are two caches.
func TestCachesAreToldApart(t *testing.T) {
	a := remotecache.Request{Type: "s3", Attrs: map[string]string{"bucket": "b", "name": "x"}}
	b := remotecache.Request{Type: "s3", Attrs: map[string]string{"bucket": "b", "name": "y"}}
	c := remotecache.Request{Type: "s3", Attrs: map[string]string{"name": "x", "bucket": "b"}}
	d := remotecache.Request{Type: "s3", Attrs: map[string]string{"bucket": `b" "name"="x`}}
	if keyOf(a) == keyOf(b) || keyOf(a) != keyOf(c) || keyOf(a) == keyOf(d) {
		t.Errorf("%s, %s, %s, %s", keyOf(a), keyOf(b), keyOf(c), keyOf(d))
	}
}

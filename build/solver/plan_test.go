package solver

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"

	"berth/base/fault"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || got != string(want) {
		t.Errorf("%s (%v):\n%s", path, err, got)
	}
}

func TestPlan(t *testing.T) {
	w := newStores(t).open()
	defer w.shut()
	base, ctx := &fakeSource{chain: w.pool[:1]}, &fakeSource{files: files("src/main.go=1", "src/util.go=1", "README=1")}
	w.sources["base"], w.sources["ctx"] = base, ctx
	text := "base = source\nctx = source\napt = step base\ncopy = step apt ctx\nmake = step copy\nstrip = step make"
	for _, name := range []string{"copy", "copy!"} {
		w.reads[name] = map[int]string{1: "src"}
	}
	plan := func() string {
		t.Helper()
		b := w.Begin(BuildConfig{})
		defer b.Close()
		p, err := b.Plan(t.Context(), script(t, text))
		if err != nil {
			t.Fatal(err)
		}
		return p.String()
	}
	golden(t, "plan-first", plan())
	w.mustSolve(script(t, text))
	golden(t, "plan-cached", plan())
	ctx.files = files("src/main.go=2", "src/new.go=1", "README=2")
	golden(t, "plan-files", plan())
	ctx.files = files("src/main.go=1", "src/util.go=1", "README=2")
	golden(t, "plan-touched", plan())
	base.chain = w.pool[4:6]
	golden(t, "plan-base", plan())
	base.chain = w.pool[:1]
	text = "base = source\nctx = source\napt = step base\ncopy! = step apt ctx\nmake = step copy"
	golden(t, "plan-ignored", plan())
	if w.total() != 4 {
		t.Errorf("a plan ran something: %v", w.order)
	}
}

func TestPermit(t *testing.T) {
	rule := func(a spb.PolicyAction, m spb.MatchType, id string) *spb.Rule {
		return &spb.Rule{Action: a, Selector: &spb.Selector{Identifier: id, MatchType: m}}
	}
	convert := func(m spb.MatchType, from, to string) *spb.Rule {
		r := rule(spb.PolicyAction_CONVERT, m, from)
		r.Updates = &spb.Update{Identifier: to}
		return r
	}
	const img = "docker-image://docker.io/library/alpine:3"
	for _, c := range []struct {
		name  string
		rules []*spb.Rule
		want  string
		kind  fault.Kind
	}{
		{"none", nil, img, 0},
		{"denied", []*spb.Rule{rule(spb.PolicyAction_DENY, spb.MatchType_WILDCARD, "docker-image://*")}, "", fault.Forbidden},
		{"the last that matches counts", []*spb.Rule{
			rule(spb.PolicyAction_DENY, spb.MatchType_WILDCARD, "*"), rule(spb.PolicyAction_ALLOW, spb.MatchType_EXACT, img)}, img, 0},
		{"exact is exact", []*spb.Rule{rule(spb.PolicyAction_DENY, spb.MatchType_EXACT, img+".1")}, img, 0},
		{"regex", []*spb.Rule{rule(spb.PolicyAction_DENY, spb.MatchType_REGEX, `alpine:\d$`)}, "", fault.Forbidden},
		{"bad regex", []*spb.Rule{rule(spb.PolicyAction_DENY, spb.MatchType_REGEX, `(`)}, "", fault.Invalid},
		{"converted", []*spb.Rule{convert(spb.MatchType_WILDCARD, "docker-image://docker.io/*", "docker-image://mirror/${1}")}, "docker-image://mirror/library/alpine:3", 0},
		{"converted and then denied", []*spb.Rule{
			convert(spb.MatchType_EXACT, img, "docker-image://evil/x"), rule(spb.PolicyAction_DENY, spb.MatchType_WILDCARD, "docker-image://evil/*")}, "", fault.Forbidden},
		{"for ever", []*spb.Rule{convert(spb.MatchType_WILDCARD, "docker-image://*", "docker-image://a${1}")}, "", fault.Invalid},
		{"a dot is a dot", []*spb.Rule{rule(spb.PolicyAction_DENY, spb.MatchType_WILDCARD, "docker-image://dockerXio/*")}, img, 0},
	} {
		b := &Build{cfg: BuildConfig{Policies: []*spb.Policy{{Rules: c.rules}}}}
		op := &pb.SourceOp{Identifier: img, Attrs: map[string]string{"a": "1"}}
		got, err := b.Permit(op)
		switch {
		case c.want == "" && (err == nil || fault.KindOf(err) != c.kind):
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err != nil || got.Identifier != c.want):
			t.Errorf("%s: %v %v", c.name, got, err)
		}
		if op.Identifier != img {
			t.Errorf("%s: changed what it was given", c.name)
		}
	}
}

// However a source is written, policies see the one way to write it.
// TestPermitNested asks policies of what a source is fetched from, too.
func TestPermitNested(t *testing.T) {
	nested := func(op *pb.SourceOp) (*pb.SourceOp, func(*pb.SourceOp) *pb.SourceOp, error) {
		if op.Identifier != "git://h/r" {
			return nil, nil, nil
		}
		return &pb.SourceOp{Identifier: "docker-image+blob://h/bundle"}, func(o *pb.SourceOp) *pb.SourceOp {
			return &pb.SourceOp{Identifier: op.Identifier, Attrs: map[string]string{"from": o.Identifier}}
		}, nil
	}
	blob := &spb.Selector{Identifier: "docker-image+blob://*"}
	for _, c := range []struct {
		rule *spb.Rule
		from string
		ok   bool
	}{
		{&spb.Rule{Action: spb.PolicyAction_DENY, Selector: blob}, "", false},
		{&spb.Rule{Action: spb.PolicyAction_CONVERT, Selector: blob, Updates: &spb.Update{Identifier: "docker-image+blob://mirror/bundle"}}, "docker-image+blob://mirror/bundle", true},
		{&spb.Rule{Action: spb.PolicyAction_DENY, Selector: &spb.Selector{Identifier: "docker-image://*"}}, "", true},
	} {
		b := &Build{s: &Solver{cfg: Config{Nested: nested}}, cfg: BuildConfig{Policies: []*spb.Policy{{Rules: []*spb.Rule{c.rule}}}}}
		got, err := b.Permit(&pb.SourceOp{Identifier: "git://h/r"})
		if (err == nil) != c.ok || got.GetAttrs()["from"] != c.from {
			t.Errorf("%v: %v %v", c.rule, got, err)
		}
	}
}

func TestPermitCanonical(t *testing.T) {
	deny := &spb.Policy{Rules: []*spb.Rule{{Action: spb.PolicyAction_DENY, Selector: &spb.Selector{Identifier: "git://h/r.git", MatchType: spb.MatchType_EXACT}}}}
	canonical := func(id string) string {
		return map[string]string{"git://H/r": "git://h/r.git"}[id]
	}
	b := &Build{s: &Solver{cfg: Config{Canonical: canonical}}, cfg: BuildConfig{Policies: []*spb.Policy{deny}}}
	if _, err := b.Permit(&pb.SourceOp{Identifier: "git://H/r"}); !fault.Is(err, fault.Forbidden) {
		t.Errorf("%v", err)
	}
}

func TestChangedFiles(t *testing.T) {
	a := map[string]uint32{"a": 1, "b": 1, "c": 1}
	for _, c := range []struct {
		now  map[string]uint32
		want string
	}{
		{map[string]uint32{"a": 2, "b": 1, "d": 1}, "a changed, c is gone, d is new"},
		{map[string]uint32{}, "a is gone, b is gone, c is gone"},
		{map[string]uint32{"a": 2, "b": 2, "c": 2, "d": 2}, "a changed, b changed, c changed and 1 more"},
		{nil, ""},
	} {
		if got := changedFiles(a, c.now); got != c.want {
			t.Errorf("%q, not %q", got, c.want)
		}
	}
	if !slices.Equal([]bool{selected("src/a", nil)}, []bool{false}) {
		t.Error("no selector selects")
	}
}

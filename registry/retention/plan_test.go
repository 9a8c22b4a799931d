package retention

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/registry/catalog"
	"berth/registry/door"
)

var update = flag.Bool("update", false, "write golden files")

var now = time.Date(2026, 6, 30, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

const day = 24 * time.Hour

func dg(s string) digest.Digest { return digest.FromString(s) }

func age(d time.Duration) *door.Duration { v := door.Duration(d); return &v }

func bound(of, suffix string) string { return strings.Replace(string(dg(of)), ":", "-", 1) + suffix }

// img is a manifest with one blob of its own and one that all share.
func img(name string, at time.Time) Manifest {
	return Manifest{Digest: dg(name), At: at, Size: 1, Blobs: map[digest.Digest]int64{dg("blob of " + name): 100, dg("base"): 1000}}
}

func about(name, subject string, at time.Time) Manifest {
	return Manifest{Digest: dg(name), At: at, Subject: dg(subject)}
}

func index(name string, at time.Time, parts ...string) Manifest {
	m := Manifest{Digest: dg(name), At: at}
	for _, p := range parts {
		m.Manifests = append(m.Manifests, dg(p))
	}
	return m
}

// world is a repository with some of everything.
func world() Repository {
	return Repository{Name: "team/web",
		Tags: []Tag{
			{"latest", dg("i3"), ago(1 * day)}, {"v3", dg("i3"), ago(1 * day)}, {"v2", dg("i2"), ago(40 * day)}, {"v1", dg("i1"), ago(90 * day)},
			{"pr-1", dg("p1"), ago(20 * day)}, {"pr-2", dg("p2"), ago(2 * day)}, {"nightly", dg("n1"), ago(15 * day)},
			{bound("p1", ".sig"), dg("sig of p1"), ago(20 * day)}, {bound("p2", ".sig"), dg("sig of p2"), ago(2 * day)},
			{bound("long gone", ".sig"), dg("sig of nothing"), ago(20 * day)},
		},
		Manifests: []Manifest{
			index("i3", ago(1*day), "i3-amd64", "i3-arm64"), img("i3-amd64", ago(1*day)), img("i3-arm64", ago(1*day)),
			img("i2", ago(40*day)), img("i1", ago(90*day)), img("p1", ago(20*day)), img("p2", ago(2*day)), img("n1", ago(15*day)),
			img("sig of p1", ago(20*day)), img("sig of p2", ago(2*day)), img("sig of nothing", ago(20*day)),
			about("sbom of i3-amd64", "i3-amd64", ago(50*day)), about("sbom of i1", "i1", ago(90*day)),
			index("old index", ago(60*day), "old part", "i2"), img("old part", ago(60*day)), img("young, no tag", ago(2*time.Hour)),
		}}
}

func policy() Policy {
	return Policy{Rules: []Rule{
		{Name: "releases", Repositories: []string{"team/*"}, Tags: []string{"v*", "latest"}, Keep: &Keep{Last: 2}},
		{Name: "pull requests", Repositories: []string{"team/*"}, Tags: []string{"pr-*"}, Keep: &Keep{Younger: door.Duration(7 * day)}},
		{Repositories: []string{"team/**"}, Untagged: age(day)},
	}}
}

func TestPlanPrints(t *testing.T) {
	other := Repository{Name: "other/x", Tags: []Tag{{"v1", dg("x"), ago(900 * day)}}, Manifests: []Manifest{img("x", ago(900*day))}}
	p := Make(policy(), []Repository{world(), other}, now)
	var b strings.Builder
	if err := p.Write(&b, true); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "plan.txt")
	if *update {
		os.MkdirAll("testdata", 0o755)
		os.WriteFile(golden, []byte(b.String()), 0o644)
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("printed\n%s\nwant\n%s", b.String(), want)
	}
}

func tagNames(steps []Step) string {
	var out []string
	for _, s := range steps {
		if _, ok := catalog.BoundTag(s.Tag); ok {
			out = append(out, "sig")
			continue
		}
		out = append(out, s.Tag)
	}
	return strings.Join(out, " ")
}

func TestWhichTagsGo(t *testing.T) {
	tags := []Tag{{"latest", dg("c"), ago(day)}, {"v3", dg("c"), ago(day)}, {"v2", dg("b"), ago(10 * day)}, {"v1", dg("a"), ago(20 * day)}, {"x", dg("x"), ago(30 * day)}}
	var manifests []Manifest
	for _, n := range []string{"a", "b", "c", "x"} {
		manifests = append(manifests, img(n, ago(30*day)))
	}
	all := []string{"**"}
	for _, c := range []struct {
		name  string
		rules []Rule
		goes  string
	}{
		{"no rules", nil, ""},
		{"another repository", []Rule{{Repositories: []string{"other"}, Keep: &Keep{Last: 1}}}, ""},
		{"last one image has two tags", []Rule{{Repositories: all, Keep: &Keep{Last: 1}}}, "v1 v2 x"},
		{"last two", []Rule{{Repositories: all, Keep: &Keep{Last: 2}}}, "v1 x"},
		{"more than there are", []Rule{{Repositories: all, Keep: &Keep{Last: 9}}}, ""},
		{"all", []Rule{{Repositories: all, Keep: &Keep{All: true}}}, ""},
		{"by name", []Rule{{Repositories: all, Keep: &Keep{Tags: []string{"v*"}}}}, "latest x"},
		{"by age", []Rule{{Repositories: all, Keep: &Keep{Younger: door.Duration(15 * day)}}}, "v1 x"},
		{"exactly of that age", []Rule{{Repositories: all, Keep: &Keep{Younger: door.Duration(10 * day)}}}, "v1 v2 x"},
		{"any criterion keeps", []Rule{{Repositories: all, Keep: &Keep{Last: 1, Tags: []string{"x"}, Younger: door.Duration(15 * day)}}}, "v1"},
		{"only some tags", []Rule{{Repositories: all, Tags: []string{"v*"}, Keep: &Keep{Last: 1}}}, "v1 v2"},
		{"the first rule decides", []Rule{{Repositories: all, Tags: []string{"v1"}, Keep: &Keep{All: true}}, {Repositories: all, Keep: &Keep{Last: 1}}}, "v2 x"},
		{"untagged says nothing about tags", []Rule{{Repositories: all, Untagged: age(0)}}, ""},
		{"a rule counts its own tags only", []Rule{{Repositories: all, Tags: []string{"v1", "v2"}, Keep: &Keep{Last: 1}}, {Repositories: all, Keep: &Keep{Last: 1}}}, "v1 x"},
	} {
		p := Policy{Rules: c.rules}
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		plan := Make(p, []Repository{{Name: "a/b", Tags: tags, Manifests: manifests}}, now)
		got := ""
		if len(plan.Repositories) > 0 {
			got = tagNames(plan.Repositories[0].Untag)
		}
		if got != c.goes {
			t.Errorf("%s: %q goes, want %q", c.name, got, c.goes)
		}
	}
}

func TestPolicyIsChecked(t *testing.T) {
	all := []string{"**"}
	for i, p := range []Policy{
		{Every: door.Duration(time.Second)},
		{Rules: []Rule{{Keep: &Keep{All: true}}}},
		{Rules: []Rule{{Repositories: []string{"["}, Keep: &Keep{All: true}}}},
		{Rules: []Rule{{Repositories: all}}},
		{Rules: []Rule{{Repositories: all, Keep: &Keep{}}}},
		{Rules: []Rule{{Repositories: all, Keep: &Keep{Last: -1}}}},
		{Rules: []Rule{{Repositories: all, Keep: &Keep{Tags: []string{"["}}}}},
		{Rules: []Rule{{Repositories: all, Untagged: age(-1)}}},
		{Rules: []Rule{{Repositories: all, Tags: []string{""}, Keep: &Keep{All: true}}}},
	} {
		if err := p.Check(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func digests(steps []Step) map[digest.Digest]bool {
	out := map[digest.Digest]bool{}
	for _, s := range steps {
		out[s.Digest] = true
	}
	return out
}

func TestStillAsPlanned(t *testing.T) {
	plan := Make(policy(), []Repository{world()}, now).Repositories[0]
	for _, n := range []string{"p1", "sig of p1", "old index", "old part", "i1", "sbom of i1"} {
		if !digests(plan.Delete)[dg(n)] {
			t.Fatalf("%s was to go", n)
		}
	}
	add := func(ms ...Manifest) func(*Repository) {
		return func(r *Repository) { r.Manifests = append(r.Manifests, ms...) }
	}
	for _, c := range []struct {
		name   string
		change func(*Repository)
		stays  []string // of what was to go
		tags   string   // that still go
	}{
		{"nothing changed", func(*Repository) {}, nil, "pr-1 sig sig v1"},
		{"a tag was moved", func(r *Repository) { r.Tags[3].Digest = dg("p2") }, nil, "pr-1 sig sig"},
		{"a tag was set again", func(r *Repository) { r.Tags[3].At = now }, []string{"i1", "sbom of i1"}, "pr-1 sig sig"},
		{"a tag is gone", func(r *Repository) { r.Tags = slices.Delete(r.Tags, 3, 4) }, nil, "pr-1 sig sig"},
		{"a new tag", func(r *Repository) { r.Tags = append(r.Tags, Tag{"keep", dg("p1"), now}) }, []string{"p1", "sig of p1"}, "pr-1 sig v1"},
		{"pushed again", func(r *Repository) {
			i := slices.IndexFunc(r.Manifests, func(m Manifest) bool { return m.Digest == dg("old part") })
			r.Manifests[i].At = now
		}, []string{"old part"}, "pr-1 sig sig v1"},
		{"a new index names it", add(index("new", now, "old part", "i2")), []string{"old part"}, "pr-1 sig sig v1"},
		{"a new signature", add(about("new sig", "i1", now)), []string{"i1", "sbom of i1"}, "pr-1 sig sig v1"},
		{"its SBOM was pushed again", func(r *Repository) {
			i := slices.IndexFunc(r.Manifests, func(m Manifest) bool { return m.Digest == dg("sbom of i1") })
			r.Manifests[i].At = now
		}, []string{"i1", "sbom of i1"}, "pr-1 sig sig v1"},
	} {
		w := world()
		c.change(&w)
		still, skipped := Still(plan, w)
		if got := tagNames(still.Untag); got != c.tags {
			t.Errorf("%s: tags %q still go, want %q", c.name, got, c.tags)
		}
		goes := digests(still.Delete)
		if len(plan.Delete)-len(still.Delete) != len(c.stays) {
			t.Errorf("%s: %d manifests stay, want %q; %+v", c.name, len(plan.Delete)-len(still.Delete), c.stays, skipped)
		}
		for _, n := range c.stays {
			if goes[dg(n)] {
				t.Errorf("%s: %s still goes", c.name, n)
			}
		}
		if len(skipped) != len(plan.Delete)+len(plan.Untag)-len(still.Delete)-len(still.Untag) {
			t.Errorf("%s: %d steps are told as skipped", c.name, len(skipped))
		}
	}
}

// Whatever the world and the policy: nothing goes that something needs that stays, and what names comes before what it names.
func TestNothingNeededGoes(t *testing.T) {
	for seed := range uint64(500) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		r := Repository{Name: "team/web"}
		for i := range 30 {
			m := Manifest{Digest: dg(fmt.Sprint(i)), At: ago(time.Duration(rnd.IntN(100)) * day)}
			if i > 0 && rnd.IntN(3) == 0 {
				m.Subject = dg(fmt.Sprint(rnd.IntN(i)))
			}
			for range rnd.IntN(3) {
				if i > 0 && rnd.IntN(2) == 0 {
					m.Manifests = append(m.Manifests, dg(fmt.Sprint(rnd.IntN(i))))
				}
			}
			r.Manifests = append(r.Manifests, m)
			switch rnd.IntN(4) {
			case 0:
				r.Tags = append(r.Tags, Tag{fmt.Sprint("v", i), m.Digest, m.At})
			case 1:
				r.Tags = append(r.Tags, Tag{bound(fmt.Sprint(rnd.IntN(40)), fmt.Sprint(".s", string(rune('a'+i%26)))), m.Digest, m.At})
			}
		}
		p := Policy{Rules: []Rule{{Repositories: []string{"**"}, Keep: &Keep{Last: 1 + rnd.IntN(3)}, Untagged: age(time.Duration(rnd.IntN(100)) * day)}}}
		plan := Make(p, []Repository{r}, now).Repositories[0]
		goes, untagged := digests(plan.Delete), map[string]bool{}
		for _, s := range plan.Untag {
			untagged[s.Tag] = true
		}
		for _, tg := range r.Tags {
			if goes[tg.Digest] && !untagged[tg.Name] {
				t.Fatalf("seed %d: tag %s stays, what it stands for goes", seed, tg.Name)
			}
			if subject, ok := catalog.BoundTag(tg.Name); ok && untagged[tg.Name] && !goes[subject] && slices.ContainsFunc(r.Manifests, func(m Manifest) bool { return m.Digest == subject }) {
				t.Fatalf("seed %d: %s goes, what it is about stays", seed, tg.Name)
			}
		}
		place := map[digest.Digest]int{}
		for i, s := range plan.Delete {
			place[s.Digest] = i
		}
		for _, m := range r.Manifests {
			for _, d := range append(slices.Clone(m.Manifests), m.Subject) {
				if goes[d] && !goes[m.Digest] {
					t.Fatalf("seed %d: %s goes, which %s needs", seed, d, m.Digest)
				}
				if goes[d] && place[d] < place[m.Digest] {
					t.Fatalf("seed %d: wrong order", seed)
				}
			}
			if goes[m.Digest] && m.Subject != "" && !goes[m.Subject] && slices.ContainsFunc(r.Manifests, func(x Manifest) bool { return x.Digest == m.Subject }) {
				t.Fatalf("seed %d: what is about %s goes, and that stays", seed, m.Subject)
			}
		}
		if len(plan.Delete) != len(place) {
			t.Fatalf("seed %d: something goes twice", seed)
		}
		still, skipped := Still(plan, r)
		if len(skipped) != 0 || len(still.Delete) != len(plan.Delete) || len(still.Untag) != len(plan.Untag) {
			t.Fatalf("seed %d: an unchanged world changes the plan: %+v", seed, skipped)
		}
	}
}

func TestIDIsOfWhatIsDone(t *testing.T) {
	a := Make(policy(), []Repository{world()}, now)
	b := Make(policy(), []Repository{world()}, now.Add(time.Minute))
	if a.ID != b.ID || len(a.ID) != 16 {
		t.Errorf("%s %s", a.ID, b.ID)
	}
	p := policy()
	p.Rules[0].Keep.Last = 1
	if c := Make(p, []Repository{world()}, now); c.ID == a.ID {
		t.Error("another plan has the same id")
	}
}

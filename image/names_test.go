package image

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/ref"
)

// small makes an image of one layer, unlike all others by its text.
func small(t testing.TB, text string, change func(*Document)) sample {
	return makeSample(t, change, tarOf(t, "f", text))
}

func TestResolve(t *testing.T) {
	h := open(t)
	s := twoLayers(t)
	l := &layout{t: t, blobs: map[string]string{}}
	m := l.manifest(s, gz)
	inner := l.add("application/vnd.oci.image.index.v1+json", l.index(m))
	h.load(l.archive(l.index(inner)))
	id := s.id()
	for _, n := range []string{"app:1", "beef", "example.com:5000/a/b:x"} {
		if err := h.Tag(id, n); err != nil {
			t.Fatal(err)
		}
	}
	repoDigest, _ := ref.Parse("app@" + string(m.Digest))
	if err := h.Point(digest.Digest(id), "", repoDigest); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{
		"app:1", "docker.io/library/app:1", "library/app:1", "beef", "beef:latest", "example.com:5000/a/b:x", id, hexOf(id), hexOf(id)[:12], id[:15],
		string(m.Digest), hexOf(string(m.Digest))[:16], "app@" + string(m.Digest), "app:1@" + string(m.Digest), string(inner.Digest), "example.com:5000/a/b@" + string(m.Digest),
	} {
		if img, err := h.Resolve(n); err != nil || img.ID != id {
			t.Errorf("%s: %v", n, err)
		}
	}
	none := strings.Repeat("0", 64)
	for n, want := range map[string]string{
		"app":                       "No such image: app:latest",
		"nope:1":                    "No such image: nope:1",
		"beef:1":                    "No such image: beef:1",
		none:                        "No such image: sha256:" + none,
		"sha256:" + none:            "No such image: sha256:" + none,
		"other@" + string(m.Digest): "No such image: other@" + string(m.Digest),
	} {
		if _, err := h.Resolve(n); err == nil || err.Error() != want || fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s: %v, want %s", n, err, want)
		}
	}
	for _, n := range []string{"", "UPPER", "a:b:c"} {
		if _, err := h.Resolve(n); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v", n, err)
		}
	}
	img, _ := h.Resolve("app:1")
	same(t, "tags", img.RepoTags, []string{"app:1", "beef:latest", "example.com:5000/a/b:x"})
	same(t, "digests", img.RepoDigests, []string{"app@" + string(m.Digest)})
	if err := h.Tag("app:1", "x@"+string(m.Digest)); err == nil || err.Error() != "refusing to create a tag with a digest reference" {
		t.Errorf("%v", err)
	}
}

func TestAmbiguousPrefixIsNobody(t *testing.T) {
	h := open(t)
	var ids []string
	for i := range 40 { // of 40 ids some share their first digit
		s := small(t, fmt.Sprint(i), nil)
		h.load(s.dockerArchive(t))
		ids = append(ids, hexOf(s.id()))
	}
	for _, id := range ids {
		shared := slices.ContainsFunc(ids, func(o string) bool { return o != id && o[:1] == id[:1] })
		if _, err := h.Resolve(id[:1]); (err == nil) == shared {
			t.Errorf("%s: shared %v, %v", id[:1], shared, err)
		}
	}
}

func removed(list []Removed) (lines []string) {
	for _, r := range list {
		if r.Untagged != "" {
			lines = append(lines, "Untagged: "+r.Untagged)
		}
		if r.Deleted != "" {
			lines = append(lines, "Deleted: "+r.Deleted)
		}
	}
	return lines
}

func TestRemove(t *testing.T) {
	a := small(t, "a", nil)
	chain := string(digest.FromBytes(a.layers[0]))
	short := hexOf(a.id())[:12]
	container := strings.Repeat("c", 64)
	running, stopped := []Use{{container, true}}, []Use{{container, false}}
	digested := "app@sha256:" + strings.Repeat("d", 64)
	gone := []string{"Deleted: " + a.id(), "Deleted: " + chain}
	for name, c := range map[string]struct {
		tags []string
		uses []Use
		ref  string
		o    RemoveOptions
		want []string
		err  string
	}{
		"only name":                {[]string{"app:1"}, nil, "app:1", RemoveOptions{}, append([]string{"Untagged: app:1"}, gone...), ""},
		"one of two names":         {[]string{"app:1", "b:1"}, nil, "b:1", RemoveOptions{}, []string{"Untagged: b:1"}, ""},
		"by id":                    {[]string{"app:1"}, nil, a.id(), RemoveOptions{}, append([]string{"Untagged: app:1"}, gone...), ""},
		"by short id":              {[]string{"app:1"}, nil, short, RemoveOptions{}, append([]string{"Untagged: app:1"}, gone...), ""},
		"by id without name":       {nil, nil, short, RemoveOptions{}, gone, ""},
		"by id with two names":     {[]string{"app:1", "b:1"}, nil, short, RemoveOptions{}, nil, "conflict: unable to delete " + short + " (must be forced) - image is referenced in multiple repositories"},
		"forced with two names":    {[]string{"app:1", "b:1"}, nil, short, RemoveOptions{Force: true}, append([]string{"Untagged: app:1", "Untagged: b:1"}, gone...), ""},
		"name, stopped container":  {[]string{"app:1"}, stopped, "app:1", RemoveOptions{}, nil, "conflict: unable to remove repository reference \"app:1\" (must force) - container cccccccccccc is using its referenced image " + short},
		"name, running container":  {[]string{"app:1"}, running, "app:1", RemoveOptions{}, nil, "conflict: unable to remove repository reference \"app:1\" (must force) - container cccccccccccc is using its referenced image " + short},
		"second name, running":     {[]string{"app:1", "b:1"}, running, "b:1", RemoveOptions{}, []string{"Untagged: b:1"}, ""},
		"id, stopped container":    {[]string{"app:1"}, stopped, short, RemoveOptions{}, nil, "conflict: unable to delete " + short + " (must be forced) - image is being used by stopped container cccccccccccc"},
		"id, running container":    {[]string{"app:1"}, running, short, RemoveOptions{}, nil, "conflict: unable to delete " + short + " (cannot be forced) - image is being used by running container cccccccccccc"},
		"id, running, forced":      {[]string{"app:1"}, running, short, RemoveOptions{Force: true}, nil, "conflict: unable to delete " + short + " (cannot be forced) - image is being used by running container cccccccccccc"},
		"name, running, forced":    {[]string{"app:1"}, running, "app:1", RemoveOptions{Force: true}, []string{"Untagged: app:1"}, ""},
		"name, stopped, forced":    {[]string{"app:1"}, stopped, "app:1", RemoveOptions{Force: true}, append([]string{"Untagged: app:1"}, gone...), ""},
		"id, stopped, forced":      {[]string{"app:1"}, stopped, short, RemoveOptions{Force: true}, append([]string{"Untagged: app:1"}, gone...), ""},
		"tag takes its digest":     {[]string{"app:1", digested}, nil, "app:1", RemoveOptions{}, append([]string{"Untagged: app:1", "Untagged: " + digested}, gone...), ""},
		"tag beside digest of two": {[]string{"app:1", "app:2", digested}, nil, "app:1", RemoveOptions{}, []string{"Untagged: app:1"}, ""},
		"digest alone":             {[]string{"app:1", digested}, nil, digested, RemoveOptions{}, []string{"Untagged: " + digested}, ""},
		"id with tag and digest":   {[]string{"app:1", digested}, nil, short, RemoveOptions{}, append([]string{"Untagged: app:1", "Untagged: " + digested}, gone...), ""},
		"name that looks like hex": {[]string{"beef:latest", "app:1"}, nil, "beef", RemoveOptions{}, []string{"Untagged: beef:latest"}, ""},
		"not there":                {[]string{"app:1"}, nil, "none", RemoveOptions{}, nil, "No such image: none:latest"},
	} {
		h := open(t)
		h.load(a.dockerArchive(t))
		for _, n := range c.tags {
			r, err := ref.Parse(n)
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Point(digest.Digest(a.id()), "", r); err != nil {
				t.Fatal(err)
			}
		}
		h.uses[a.id()] = c.uses
		list, err := h.Remove(ctx, c.ref, c.o)
		switch {
		case c.err == "" && err != nil, c.err != "" && (err == nil || err.Error() != c.err):
			t.Errorf("%s:\n got %v\nwant %s", name, err, c.err)
		case c.err != "" && strings.HasPrefix(c.err, "conflict") && fault.KindOf(err) != fault.Conflict:
			t.Errorf("%s: kind %v", name, fault.KindOf(err))
		}
		same(t, name, removed(list), c.want)
		deleted := slices.Contains(c.want, gone[0])
		h.reopen()
		if _, err := h.Resolve(a.id()); (err != nil) != deleted {
			t.Errorf("%s: deleted %v, but after reopening: %v", name, deleted, err)
		}
		h.Layers().WaitTrash(ctx)
		if layers, docs := h.counts(); deleted && layers+docs != 0 {
			t.Errorf("%s: %d layers and %d documents stay", name, layers, docs)
		}
	}
}

func TestRemoveWithParents(t *testing.T) {
	h := open(t)
	base := small(t, "base", nil)
	h.load(base.dockerArchive(t, "base:1"))
	child := small(t, "child", nil)
	h.load(child.dockerArchive(t))
	parent := digest.Digest(base.id())
	if _, _, err := h.Register(ctx, Registration{Config: []byte(child.config), Parent: parent}); err != nil {
		t.Fatal(err)
	}
	short := hexOf(base.id())[:12]
	_, err := h.Remove(ctx, short, RemoveOptions{Force: true})
	if err == nil || err.Error() != "conflict: unable to delete "+short+" (cannot be forced) - image has dependent child images" {
		t.Errorf("%v", err)
	}
	list, err := h.Remove(ctx, "base:1", RemoveOptions{})
	same(t, "untagged only", removed(list), []string{"Untagged: base:1"})
	if err != nil {
		t.Error(err)
	}
	// The child takes its nameless parent along.
	list, err = h.Remove(ctx, child.id(), RemoveOptions{})
	same(t, "child and parent", removed(list), []string{"Deleted: " + child.id(), "Deleted: " + string(digest.FromBytes(child.layers[0])),
		"Deleted: " + base.id(), "Deleted: " + string(digest.FromBytes(base.layers[0]))})
	if err != nil || h.Count() != 0 {
		t.Errorf("%v, %d images left", err, h.Count())
	}
}

// Layers that another image has stay, and only chains that are gone are told.
func TestRemoveSharedLayers(t *testing.T) {
	h := open(t)
	bottom := tarOf(t, "bottom", "1")
	a := makeSample(t, nil, bottom, tarOf(t, "a", "1"))
	b := makeSample(t, nil, bottom, tarOf(t, "b", "1"))
	h.load(a.dockerArchive(t, "a:1"))
	h.load(b.dockerArchive(t, "b:1"))
	if layers, _ := h.counts(); layers != 3 {
		t.Errorf("%d layers on disk, want one copy of each", layers)
	}
	list, err := h.Remove(ctx, "a:1", RemoveOptions{})
	chains := chainIDs([]digest.Digest{digest.FromBytes(bottom), digest.FromBytes(a.layers[1])})
	same(t, "removed", removed(list), []string{"Untagged: a:1", "Deleted: " + a.id(), "Deleted: " + string(chains[1])})
	if err != nil {
		t.Error(err)
	}
	same(t, "the other", h.files("b:1"), []string{"b=1", "bottom=1"})
}

func TestListAndFilters(t *testing.T) {
	h := open(t)
	at := func(day int, labels map[string]string) func(*Document) {
		return func(d *Document) {
			c := time.Date(2024, 1, day, 0, 0, 0, 0, time.UTC)
			d.Created, d.Config.Labels = &c, labels
		}
	}
	one := small(t, "1", at(1, map[string]string{"k": "v", "tier": "web"}))
	two := small(t, "2", at(2, map[string]string{"k": "w"}))
	three := small(t, "3", at(3, nil))
	h.load(one.dockerArchive(t, "app:1", "me/app:1"))
	h.load(two.dockerArchive(t, "app:2"))
	h.load(three.dockerArchive(t))
	names := map[string]string{one.id(): "1", two.id(): "2", three.id(): "3"}
	for name, c := range map[string]struct {
		f    Filters
		want string
		err  string
	}{
		"all":              {nil, "321", ""},
		"dangling":         {Filters{"dangling": {"true"}}, "3", ""},
		"not dangling":     {Filters{"dangling": {"0"}}, "21", ""},
		"bad dangling":     {Filters{"dangling": {"maybe"}}, "", "invalid filter 'dangling=[maybe]'"},
		"unknown":          {Filters{"colour": {"red"}}, "", "invalid filter 'colour'"},
		"label":            {Filters{"label": {"k"}}, "21", ""},
		"label value":      {Filters{"label": {"k=v"}}, "1", ""},
		"two labels":       {Filters{"label": {"k", "tier=web"}}, "1", ""},
		"before":           {Filters{"before": {"app:2"}}, "1", ""},
		"since":            {Filters{"since": {"app:1"}}, "32", ""},
		"since and before": {Filters{"since": {"app:1"}, "before": {three.id()}}, "2", ""},
		"before nothing":   {Filters{"before": {"none"}}, "", "No such image: none:latest"},
		"until":            {Filters{"until": {"2024-01-02T12:00:00Z"}}, "21", ""},
		"until ago":        {Filters{"until": {"10m"}}, "321", ""},
		"bad until":        {Filters{"until": {"yesterday"}}, "", "failed to parse value as time or duration: \"yesterday\""},
		"reference":        {Filters{"reference": {"app"}}, "21", ""},
		"reference star":   {Filters{"reference": {"*/*:1"}}, "1", ""},
		"references":       {Filters{"reference": {"app:2", "me/*"}}, "21", ""},
		"bad reference":    {Filters{"reference": {"[a"}}, "", "invalid filter 'reference=[a'"},
	} {
		list, err := h.List(ctx, ListOptions{Filters: c.f, SharedSize: true, Containers: true})
		got := ""
		for _, s := range list {
			got += names[s.ID]
			if s.SharedSize != 0 || s.Containers != 0 {
				t.Errorf("%s: shared %d containers %d", name, s.SharedSize, s.Containers)
			}
		}
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%s: %q %v, want %q %q", name, got, err, c.want, c.err)
		}
	}
	list, _ := h.List(ctx, ListOptions{Filters: Filters{"reference": {"me/*"}}})
	same(t, "only the names that fit", list[0].RepoTags, []string{"me/app:1"})
}

func TestListSharedSizeAndContainers(t *testing.T) {
	h := open(t)
	bottom := tarOf(t, "bottom", "12345")
	a, b := makeSample(t, nil, bottom, tarOf(t, "a", "1")), makeSample(t, nil, bottom)
	h.load(a.dockerArchive(t, "a:1"))
	h.load(b.dockerArchive(t, "b:1"))
	h.uses[a.id()] = []Use{{"x", true}, {"y", false}}
	list, err := h.List(ctx, ListOptions{SharedSize: true, Containers: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		containers, size := 0, int64(5)
		if s.ID == a.id() {
			containers, size = 2, 6
		}
		if s.SharedSize != 5 || s.Containers != containers || s.Size != size {
			t.Errorf("%s: %d of %d shared, %d containers", s.RepoTags, s.SharedSize, s.Size, s.Containers)
		}
	}
}

func TestPrune(t *testing.T) {
	for name, c := range map[string]struct {
		f    Filters
		want []string // names of those that stay
		err  string
	}{
		"dangling": {nil, []string{"named", "used", "used-nameless"}, ""},
		"all":      {Filters{"dangling": {"false"}}, []string{"used", "used-nameless"}, ""},
		"label":    {Filters{"dangling": {"false"}, "label": {"keep"}}, []string{"nameless", "named", "used", "used-nameless"}, ""},
		"no label": {Filters{"dangling": {"false"}, "label!": {"keep"}}, []string{"used", "used-nameless"}, ""},
		"until":    {Filters{"dangling": {"false"}, "until": {"1990-01-01"}}, []string{"nameless", "named", "used", "used-nameless"}, ""},
		"two":      {Filters{"until": {"1h", "2h"}}, nil, "more than one until filter specified"},
		"unknown":  {Filters{"since": {"x"}}, nil, "invalid filter 'since'"},
	} {
		h := open(t)
		names := map[string]string{}
		for _, n := range []string{"nameless", "named", "used", "used-nameless"} {
			s := small(t, n, nil)
			names[s.id()] = n
			if n == "nameless" || n == "used-nameless" {
				h.load(s.dockerArchive(t))
			} else {
				h.load(s.dockerArchive(t, n+":1"))
			}
			if strings.HasPrefix(n, "used") {
				h.uses[s.id()] = []Use{{"c", false}}
			}
		}
		plan, perr := h.PlanPrune(c.f)
		report, err := h.Prune(ctx, c.f)
		if (perr == nil) != (err == nil) || perr != nil && perr.Error() != err.Error() {
			t.Errorf("%s: the plan says %v, the prune %v", name, perr, err)
		}
		if perr == nil {
			var drops []string
			for _, i := range plan.Remove {
				for _, id := range i.Drops {
					drops = append(drops, "Deleted: "+id)
				}
			}
			for _, id := range drops {
				if !slices.Contains(removed(report.Deleted), id) {
					t.Errorf("%s: the plan drops %s, the prune did not", name, id)
				}
			}
			if plan.Reclaimable != report.Reclaimed {
				t.Errorf("%s: the plan reclaims %d bytes, the prune %d", name, plan.Reclaimable, report.Reclaimed)
			}
		}
		if c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		list, _ := h.List(ctx, ListOptions{})
		var stay []string
		for _, i := range list {
			stay = append(stay, names[i.ID])
		}
		slices.Sort(stay)
		slices.Sort(c.want)
		same(t, name, stay, c.want)
		var size int64
		for id, n := range names {
			if !slices.Contains(c.want, n) {
				size += int64(len(n))
				if !slices.Contains(removed(report.Deleted), "Deleted: "+id) {
					t.Errorf("%s: %s is not told", name, n)
				}
			}
		}
		if err != nil || report.Reclaimed != size {
			t.Errorf("%s: reclaimed %d, want %d, %v", name, report.Reclaimed, size, err)
		}
	}
}

// An image that a container uses keeps all its names.
// An image that is used loses all tags but the last, and stays; nothing else about it goes.
func TestPruneLeavesAName(t *testing.T) {
	h := open(t)
	s := small(t, "a", nil)
	h.load(s.dockerArchive(t, "b:2", "a:1", "b:1"))
	h.uses[s.id()] = []Use{{"c", false}}
	if report, err := h.Prune(ctx, nil); err != nil || len(report.Deleted) != 0 {
		t.Errorf("a prune of what is dangling: %+v %v", report, err)
	}
	plan, err := h.PlanPrune(Filters{"dangling": {"false"}})
	if err != nil || plan.Reclaimable != 0 || len(plan.Spare) != 1 || plan.Spare[0].Name != "b:2" || len(plan.Remove) != 2 {
		t.Errorf("plan %+v %v", plan, err)
	}
	for _, i := range plan.Remove {
		if len(i.Drops) != 0 || i.Why != "the image is used and keeps another name" {
			t.Errorf("plan %+v", i)
		}
	}
	report, err := h.ApplyPrune(ctx, plan)
	if err != nil || len(report.Skipped) != 0 || report.Reclaimed != 0 {
		t.Errorf("%+v %v", report, err)
	}
	if !slices.Equal(report.Deleted, []Removed{{Untagged: "a:1"}, {Untagged: "b:1"}}) {
		t.Errorf("gone: %+v", report.Deleted)
	}
	if img, err := h.Resolve("b:2"); err != nil || len(img.RepoTags) != 1 {
		t.Errorf("%+v %v", img, err)
	}
	if report, err := h.Prune(ctx, Filters{"dangling": {"false"}}); err != nil || len(report.Deleted) != 0 {
		t.Errorf("the last tag: %+v %v", report, err)
	}
}

func TestHistory(t *testing.T) {
	h := open(t)
	s := makeSample(t, func(d *Document) {
		d.History = []HistoryLine{{CreatedBy: "ADD"}, {CreatedBy: "ENV", EmptyLayer: true}, {CreatedBy: "RUN", Comment: "c"}}
	}, tarOf(t, "a", "12345"), tarOf(t, "b", "123"))
	h.load(s.dockerArchive(t, "a:1"))
	steps, err := h.History("a:1")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, st := range steps {
		got = append(got, fmt.Sprintf("%s %s %d %v", st.ID, st.CreatedBy, st.Size, st.Tags))
	}
	same(t, "history", got, []string{s.id() + " RUN 3 [a:1]", "<missing> ENV 0 []", "<missing> ADD 5 []"})
	bad := makeSample(t, func(d *Document) { d.History = append(d.History, HistoryLine{CreatedBy: "more"}) }, tarOf(t, "x", "1"))
	h.load(bad.dockerArchive(t, "bad:1"))
	if _, err := h.History("bad:1"); err == nil {
		t.Error("a history longer than the layers")
	}
}

func TestEvents(t *testing.T) {
	h := open(t)
	s := small(t, "a", nil)
	h.load(s.dockerArchive(t, "a:1"))
	h.Tag("a:1", "b:1")
	h.Remove(ctx, "a:1", RemoveOptions{})
	h.Remove(ctx, "b:1", RemoveOptions{})
	h.Prune(ctx, nil)
	same(t, "events", h.events, []string{"load", "tag", "untag", "untag", "delete", "prune"})
}

// TestEventLabels: who filters events by label finds those of images, as long as the images are there.
func TestEventLabels(t *testing.T) {
	h := open(t)
	s := makeSample(t, func(d *Document) { d.Config.Labels = map[string]string{"made": "here", "reason": "label"} }, tarOf(t, "x", "1"))
	h.load(s.dockerArchive(t, "a:1"))
	h.Emit(Event{Action: "pull", ID: "a:1"})
	h.Remove(ctx, "a:1", RemoveOptions{Reason: "why"})
	var got []string
	for _, e := range h.told {
		got = append(got, fmt.Sprint(e.Action, " ", e.Attrs))
	}
	same(t, "events", got, []string{"load map[made:here reason:label]", "pull map[made:here reason:label]", "untag map[reason:why]", "delete map[reason:why]"})
}

// A process killed at any step must leave a store that opens and has each image whole or not at all.
func TestKilled(t *testing.T) {
	if root := os.Getenv("IMAGE_TEST_ROOT"); root != "" {
		failpoint.Arm(os.Getenv(failpoint.Env))
		s, err := Open(Config{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{"a", "b"} {
			archive := makeSample(t, nil, tarOf(t, n, n), tarOf(t, n+"2", n)).dockerArchive(t, n+":1")
			if _, err := s.Load(ctx, newReader(archive), LoadOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		s.Remove(ctx, "a:1", RemoveOptions{})
		return
	}
	for _, p := range []string{"blob/before-sync=kill:2", "blob/before-name=kill:2", "layer/before-sync=kill:2", "layer/before-rename=kill:3", "layer/after-rename=kill:4",
		"image/before-commit=kill:2", "image/after-commit=kill:2", "image/before-delete=kill"} {
		h := open(t)
		h.Close()
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "IMAGE_TEST_ROOT="+h.root, failpoint.Env+"="+p)
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Fatalf("%s: survived: %s", p, out)
		}
		h.Store = nil
		h.reopen()
		same(t, p, h.files("a:1"), []string{"a=a", "a2=a"})
		wantLayers, wantDocs := 2, 1
		if p == "image/after-commit=kill:2" || strings.HasPrefix(p, "image/before-delete") {
			same(t, p, h.files("b:1"), []string{"b=b", "b2=b"})
			wantLayers, wantDocs = 4, 2
		}
		h.Layers().WaitTrash(ctx)
		if layers, docs := h.counts(); layers != wantLayers || docs != wantDocs {
			t.Errorf("%s: %d layers and %d documents on disk, want %d and %d", p, layers, docs, wantLayers, wantDocs)
		}
	}
}

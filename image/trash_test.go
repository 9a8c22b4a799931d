package image

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/failpoint"
	"berth/base/fault"
	words "berth/base/removal"
)

// withTrash makes a store from which images go into the trash.
func withTrash(h *harness) *harness {
	h.Store.cfg.Trash = func() time.Duration { return time.Hour }
	return h
}

func TestTrash(t *testing.T) {
	h := withTrash(open(t))
	a, b := small(t, "a", nil), small(t, "b", nil)
	h.load(a.dockerArchive(t, "app:1", "team/app:2"))
	h.load(b.dockerArchive(t, "other:1"))
	before := toJSON(t, mustList(t, h))
	done, err := h.Remove(ctx, a.id(), RemoveOptions{Force: true})
	if err != nil || !slices.Contains(removed(done), "Deleted: "+a.id()) {
		t.Fatal(done, err)
	}
	if _, err := h.Resolve("app:1"); !fault.Is(err, fault.NotFound) || h.Count() != 1 {
		t.Error(err)
	}
	h.exactTrash(t)
	h.reopen()
	withTrash(h)
	h.exactTrash(t)
	list := h.Trashed()
	if len(list) != 1 || list[0].ID != a.id() || strings.Join(list[0].Names, " ") != "app:1 team/app:2" || list[0].Size != 1 {
		t.Fatalf("%+v", list)
	}
	r, err := h.RestoreTrashed(ctx, a.id())
	if err != nil || strings.Join(r.Now, " ") != "app:1 team/app:2" || len(r.Notes) > 0 {
		t.Errorf("%+v %v", r, err)
	}
	if after := toJSON(t, mustList(t, h)); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	if c, err := h.Fsck(ctx, nil); err != nil || !c.OK() {
		t.Errorf("%+v %v", c, err)
	}
	h.exactHolds()

	// A name that belongs to another image now stays with that; an image that came again is not there twice.
	for _, n := range []string{"app:1", "team/app:2"} {
		if _, err := h.Remove(ctx, n, RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Tag("other:1", "team/app:2"); err != nil {
		t.Fatal(err)
	}
	r, err = h.RestoreTrashed(ctx, a.id())
	if err != nil || strings.Join(r.Now, " ") != "team/app:2-restored" || len(r.Notes) != 1 {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := h.Remove(ctx, a.id(), RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	h.load(a.dockerArchive(t, "app:1"))
	if r, err := h.RestoreTrashed(ctx, a.id()); err != nil || h.Count() != 2 {
		t.Errorf("%+v %v", r, err)
	}
	h.exactHolds()

	// For good.
	if _, err := h.Remove(ctx, a.id(), RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	freed, err := h.DeleteTrashed(ctx, a.id())
	if err != nil || freed != 1 {
		t.Error(freed, err)
	}
	if _, err := h.RestoreTrashed(ctx, a.id()); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if _, err := h.Remove(ctx, b.id(), RemoveOptions{Force: true, ForGood: true}); err != nil || len(h.Trashed()) != 0 {
		t.Error(err)
	}
	h.Layers().WaitTrash(ctx)
	if layers, docs := h.counts(); layers+docs != 0 {
		t.Errorf("%d layers, %d documents left", layers, docs)
	}
}

func TestTrashCutOff(t *testing.T) {
	for _, point := range []string{"image/before-delete", "image/before-write", "image/before-restore", "image/before-empty"} {
		t.Run(point, func(t *testing.T) {
			h := withTrash(open(t))
			a := small(t, "a", nil)
			h.load(a.dockerArchive(t, "app:1"))
			t.Cleanup(func() { failpoint.Arm("") })
			fail := func(f func() error) {
				t.Helper()
				failpoint.Arm(point + "=error")
				if f() == nil {
					t.Error("no error")
				}
				failpoint.Arm("")
			}
			remove := func() error { _, err := h.Remove(ctx, "app:1", RemoveOptions{}); return err }
			switch point {
			case "image/before-restore":
				if err := remove(); err != nil {
					t.Fatal(err)
				}
				fail(func() error { _, err := h.RestoreTrashed(ctx, a.id()); return err })
			case "image/before-empty":
				if err := remove(); err != nil {
					t.Fatal(err)
				}
				fail(func() error { _, err := h.DeleteTrashed(ctx, a.id()); return err })
			default:
				fail(remove)
			}
			h.reopen()
			if len(h.Trashed())+h.Count() != 1 {
				t.Fatalf("%+v, %d images", h.Trashed(), h.Count())
			}
			if h.Count() == 0 {
				if _, err := h.RestoreTrashed(ctx, a.id()); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := h.Resolve("app:1"); err != nil {
				t.Error(err)
			}
			if c, err := h.Fsck(ctx, nil); err != nil || !c.OK() {
				t.Errorf("%+v %v", c, err)
			}
			h.exactHolds()
		})
	}
}

// A plan removes what it was made of, and nothing else.
func TestPlanIsAppliedExactly(t *testing.T) {
	h := open(t)
	ids := map[string]string{}
	for _, n := range []string{"same", "tagged", "used", "gone", "moved"} {
		s := small(t, n, nil)
		ids[n] = s.id()
		h.load(s.dockerArchive(t, n+":1"))
	}
	plan, err := h.PlanPrune(Filters{"dangling": {"false"}})
	if err != nil || len(plan.Remove) != 5 {
		t.Fatalf("%+v %v", plan, err)
	}
	if err := h.Tag("tagged:1", "tagged:2"); err != nil {
		t.Fatal(err)
	}
	h.uses[ids["used"]] = []Use{{"c", false}}
	if _, err := h.Remove(ctx, "gone:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	later := small(t, "later", nil)
	h.load(later.dockerArchive(t, "moved:1")) // the name means another image now; the old one has none
	report, err := h.ApplyPrune(ctx, plan)
	if err != nil || len(report.Skipped) != 4 || !slices.Contains(removed(report.Deleted), "Deleted: "+ids["same"]) {
		t.Errorf("%+v %v", report, err)
	}
	for _, n := range []string{"tagged:1", "tagged:2", "used:1", "moved:1", ids["moved"]} {
		if _, err := h.Resolve(n); err != nil {
			t.Error(err)
		}
	}
	if img, err := h.Resolve("moved:1"); err != nil || img.ID != later.id() {
		t.Error(img, err)
	}
}

func TestCollect(t *testing.T) {
	h := open(t)
	ids := map[string]string{}
	for _, n := range []string{"old", "young", "used", "base", "labelled"} {
		s := small(t, strings.Repeat(n[:1], 1000), func(d *Document) {
			if n == "labelled" {
				d.Config.Labels = map[string]string{"keep": "yes"}
			}
		})
		ids[n] = s.id()
		h.load(s.dockerArchive(t, n+":1", "reg.example/"+n+":x"))
	}
	h.uses[ids["used"]] = []Use{{"c", false}}
	h.Used(ids["young"])
	o := CollectOptions{Free: 1, Keep: []string{"base*", "label=keep=yes"}, Now: time.Now()}
	plan := h.PlanCollect(o)
	if len(plan.Remove) != 1 || plan.Remove[0].ID != ids["old"] || plan.Reclaimable != 1000 || len(plan.Spare) != 4 {
		t.Fatalf("%+v", plan)
	}
	var why []string
	for _, i := range plan.Spare {
		why = append(why, i.Why)
	}
	slices.Sort(why)
	if got := strings.Join(why, "; "); got != "enough is free without it; off limits: base*; off limits: label=keep=yes; used by container c" {
		t.Error(got)
	}
	o.Free = -1
	if all := h.PlanCollect(o); len(all.Remove) != 2 || all.Remove[1].ID != ids["young"] || all.Reclaimable != 2000 {
		t.Errorf("%+v", all)
	}
	o.MinAge = time.Hour
	if none := h.PlanCollect(o); len(none.Remove) != 0 {
		t.Errorf("%+v", none)
	}
	// When they were used outlives the store; what has come into use since the plan stays.
	h.reopen()
	if at := h.used.at(digest.Digest(ids["young"])); time.Since(at) > time.Minute {
		t.Errorf("last used %v", at)
	}
	o.MinAge = 0
	plan = h.PlanCollect(o)
	h.uses[ids["young"]] = []Use{{"d", true}}
	report := h.ApplyCollect(ctx, plan)
	if len(report.Skipped) != 1 || report.Skipped[0].ID != ids["young"] || report.Reclaimed != 1000 || h.Count() != 4 {
		t.Errorf("%+v", report)
	}
	if _, err := h.Resolve("old:1"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	for _, bad := range []string{"", "label=", "label==x", "[a"} {
		if CheckKeep(bad) == nil {
			t.Errorf("%q is taken for a pattern", bad)
		}
	}
	for _, good := range []string{"a*", "label=x", "sha256:abc", "*/base:*"} {
		if err := CheckKeep(good); err != nil {
			t.Error(err)
		}
	}
	if got := words.Of(plan.Remove, words.Volume); len(got) != 0 {
		t.Error(got)
	}
}

// What stands for an image of several platforms under one name is looked at as a whole.
func TestCollectPlatforms(t *testing.T) {
	h := open(t)
	m := makeSeveral(t, "1")
	h.load(m.archive("docker.io/library/app:1"))
	keep := CollectOptions{Free: -1, Now: time.Now(), Keep: []string{m.arm.id()}}
	if plan := h.PlanCollect(keep); len(plan.Remove) != 0 || plan.Spare[0].Why != "off limits: "+m.arm.id() {
		t.Errorf("one platform is off limits: %+v", plan)
	}
	h.Used(m.z.id())
	plan := h.PlanCollect(CollectOptions{Free: -1, Now: time.Now()})
	if len(plan.Remove) != 1 || len(plan.Remove[0].Drops) != 3 || !plan.Remove[0].LastUsed.Equal(h.used.at(digest.Digest(m.z.id()))) {
		t.Errorf("the last use of any platform is the image's: %+v", plan)
	}
	if h.ApplyCollect(ctx, plan); h.Count() != 0 {
		t.Errorf("%d images stay", h.Count())
	}
}

// No image goes that the plan does not name, though an ordinary removal would take it along.
func TestParentsOfPlans(t *testing.T) {
	h := open(t)
	base := small(t, "base", func(d *Document) { d.Config.Labels = map[string]string{"keep": "yes"} })
	child := small(t, "child", nil)
	register := func() {
		t.Helper()
		h.load(base.dockerArchive(t, "base:1"))
		h.load(child.dockerArchive(t))
		if _, _, err := h.Register(ctx, Registration{Config: []byte(child.config), Parent: digest.Digest(base.id())}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Remove(ctx, "base:1", RemoveOptions{}); err != nil { // it stays, without a name
			t.Fatal(err)
		}
	}
	register()
	plan, err := h.PlanPrune(Filters{})
	if err != nil || len(plan.Remove) != 1 || !slices.Equal(plan.Remove[0].Drops, []string{child.id(), base.id()}) || plan.Reclaimable != 9 {
		t.Errorf("%+v %v", plan, err)
	}
	h.uses[base.id()] = []Use{{"c", false}}
	if used, err := h.PlanPrune(Filters{}); err != nil || !slices.Equal(used.Remove[0].Drops, []string{child.id()}) {
		t.Errorf("a parent that is used: %+v %v", used, err)
	}
	delete(h.uses, base.id())
	plan.Remove[0].Drops = plan.Remove[0].Drops[:1]
	if report, err := h.ApplyPrune(ctx, plan); err != nil || len(report.Skipped) != 0 || h.Count() != 1 {
		t.Errorf("%+v %v, %d images", report, err, h.Count())
	}
	register()
	collected := h.PlanCollect(CollectOptions{Free: -1, Keep: []string{"label=keep"}, Now: time.Now()})
	if report := h.ApplyCollect(ctx, collected); len(report.Skipped) != 0 || h.Count() != 1 {
		t.Errorf("a parent that is off limits went with its child: %+v, %d images", report, h.Count())
	}
}

func mustList(t *testing.T, h *harness) []Summary {
	t.Helper()
	list, err := h.List(ctx, ListOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		list[i].Tagged, list[i].LastUsed = time.Time{}, time.Time{}
	}
	return list
}

// exactTrash checks that what is in the trash is held, and the database whole.
func (h *harness) exactTrash(t *testing.T) {
	t.Helper()
	if c, err := h.Fsck(ctx, nil); err != nil || !c.OK() {
		t.Errorf("%+v %v", c, err)
	}
}

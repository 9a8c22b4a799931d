package wait

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New()
		old := r.Begin("start", "c1")
		time.Sleep(time.Minute)
		From(With(t.Context(), old)).Step("volumes")
		behind := r.BeginBehind("remove", "c1", old.What())
		time.Sleep(time.Second)
		all := r.List(0)
		if len(all) != 2 || all[0].What != "start" || all[0].Step != "volumes" || all[0].StepSince.Sub(all[0].Since) != time.Minute || all[1].Behind != "start (volumes)" {
			t.Errorf("%+v", all)
		}
		if long := r.List(30 * time.Second); len(long) != 1 || long[0].On != "c1" {
			t.Errorf("%+v", long)
		}
		old.End()
		old.End()
		behind.End()
		if left := r.List(0); len(left) != 0 {
			t.Errorf("%+v", left)
		}
	})
}

func TestNobodyListens(t *testing.T) {
	var r *Registry
	w := r.Begin("x", "y")
	w.Step("z")
	w.End()
	if w.What() != "" || r.List(0) != nil || From(context.Background()) != nil || With(t.Context(), nil) != t.Context() {
		t.Error("nothing became something")
	}
}

func BenchmarkBegin(b *testing.B) {
	r := New()
	for b.Loop() {
		r.Begin("start", "c").End()
	}
}

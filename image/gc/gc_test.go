package gc

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"berth/base/removal"
	"berth/image"
	"berth/kernel/disk"
)

func TestLevels(t *testing.T) {
	s := disk.Space{Total: 1000, Free: 100}
	for _, tt := range []struct {
		l       Level
		over    bool
		missing int64
		text    string
	}{
		{Level{Used: 80}, true, 100, "80% used"},
		{Level{Used: 90}, false, 0, "90% used"},
		{Level{Used: 95}, false, 0, "95% used"},
		{Level{Free: 150}, true, 50, "150B free"},
		{Level{Free: 100}, false, 0, "100B free"},
		{Level{}, false, 0, "off"},
	} {
		if tt.l.Over(s) != tt.over || tt.l.Missing(s) != tt.missing || tt.l.String() != tt.text {
			t.Errorf("%+v: %v %d %q", tt.l, tt.l.Over(s), tt.l.Missing(s), tt.l)
		}
	}
}

// shelf is an image store of some images of ten bytes each.
type shelf struct {
	images, gone int
	asked        []int64
}

func (s *shelf) PlanCollect(o image.CollectOptions) *removal.Plan {
	s.asked = append(s.asked, o.Free)
	p := removal.NewPlan(o.Now)
	for i := range s.images {
		if o.Free >= 0 && p.Reclaimable >= o.Free {
			break
		}
		p.Remove = append(p.Remove, removal.Item{Kind: removal.Image, ID: fmt.Sprint(s.gone + i), Size: 10})
		p.Reclaimable += 10
	}
	return p
}

func (s *shelf) ApplyCollect(_ context.Context, p *removal.Plan) image.PruneReport {
	s.images -= len(p.Remove)
	s.gone += len(p.Remove)
	return image.PruneReport{Reclaimed: p.Reclaimable}
}

func (s *shelf) Settle(context.Context) error { return nil }

func TestCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{images: 8}
		other := int64(0)
		set := Settings{}
		c := Open(Config{Store: s, Settings: func() Settings { return set }, Space: func() (disk.Space, error) {
			return disk.Space{Total: 100, Free: 100 - other - int64(s.images)*10}, nil
		}})
		defer c.Close()
		time.Sleep(2 * time.Minute)
		if s.gone != 0 {
			t.Error("collected without being asked to")
		}
		if p, err := c.Plan(true); err != nil || len(p.Remove) != 8 || p.Due {
			t.Errorf("%+v %v", p, err)
		}
		set = Settings{High: Level{Used: 85}, Low: Level{Used: 50}}
		time.Sleep(2 * time.Minute)
		if s.gone != 0 {
			t.Error("collected below the high watermark")
		}
		if p, err := c.Plan(true); err != nil || len(p.Remove) != 3 {
			t.Errorf("%+v %v", p, err)
		}
		other = 10
		c.Look()
		synctest.Wait()
		if s.gone != 4 { // 90 used, 50 wanted
			t.Errorf("%d went", s.gone)
		}
		other = 60
		time.Sleep(time.Minute)
		if s.images != 0 {
			t.Errorf("%d stay although the disk is too full", s.images)
		}
		time.Sleep(10 * time.Minute) // nothing is left to go; it does not turn in circles
		if n := len(s.asked); n > 60 {
			t.Errorf("asked %d times", n)
		}
	})
}

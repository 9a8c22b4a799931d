package cache

import (
	"context"
	"testing"

	digest "github.com/opencontainers/go-digest"
)

// TestCheck: a record whose layer is gone is told, and a repair forgets it with what it held, and nothing else.
func TestCheck(t *testing.T) {
	b := open(t)
	b.put("whole", 1, 2)
	b.put("lacking", 2, 3)
	there := func(d digest.Digest) bool { return d != layerNo(3) }
	all := func(digest.Digest) bool { return true }
	if room := b.Check(context.Background(), false, all); len(room.Damages) != 0 || room.Checked[0].N != 2 {
		t.Errorf("nothing is wrong: %+v", room)
	}
	for _, repair := range []bool{false, true} {
		room := b.Check(context.Background(), repair, there)
		if len(room.Damages) != 1 || room.Damages[0].What != "lacks layer "+layerNo(3).String() || room.Damages[0].Repaired != repair {
			t.Errorf("repair %v: %+v", repair, room)
		}
	}
	if room := b.Check(context.Background(), false, there); !room.OK() || room.Checked[0].N != 1 {
		t.Errorf("after the repair: %+v", room)
	}
	if b.Lookup(key("whole")) == nil || b.Lookup(key("lacking")) != nil {
		t.Error("the wrong record was forgotten")
	}
	if got := b.holds(); got != "01100" {
		t.Errorf("held after the repair: %s", got)
	}
}

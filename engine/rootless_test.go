package engine

import (
	"testing"

	"berth/kernel/idmap"
)

func TestLastFromZero(t *testing.T) {
	for _, c := range []struct {
		m    idmap.Map
		want uint32
	}{
		{nil, 0},
		{idmap.Map{{Inside: 0, Outside: 1000, Size: 1}}, 0},
		{idmap.Map{{Inside: 0, Outside: 1000, Size: 1}, {Inside: 1, Outside: 100000, Size: 65536}}, 65536},
		{idmap.Map{{Inside: 1, Outside: 100000, Size: 65536}, {Inside: 0, Outside: 1000, Size: 1}}, 65536},
		{idmap.Map{{Inside: 0, Outside: 1000, Size: 1}, {Inside: 5, Outside: 100000, Size: 65536}}, 0},
		{idmap.Map{{Inside: 0, Outside: 0, Size: 4294967295}}, 4294967294},
	} {
		if got := lastFromZero(c.m); got != c.want {
			t.Errorf("%v: %d, want %d", c.m, got, c.want)
		}
	}
}

package step

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"berth/base/failpoint"
)

func TestRun(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		name   string
		fail   string // step that fails
		stick  string // step whose undo fails
		point  string
		cancel bool
		want   string
	}{
		{"all", "", "", "", false, "[do a do b do c] <nil>"},
		{"first fails", "a", "", "", false, "[do a] boom"},
		{"last fails", "c", "", "", false, "[do a do b do c undo a] boom"},
		{"undo fails", "c", "a", "", false, "[do a do b do c undo a] boom (and while undoing: a sticks)"},
		{"failpoint", "", "", "engine/x/c=error", false, "[do a do b undo a] failpoint engine/x/c"},
		{"cancelled", "", "", "", true, "[] context canceled"},
	} {
		var seen []string
		var steps []Step
		for _, name := range []string{"a", "b", "c"} {
			s := Step{Name: name, Do: func(context.Context) error {
				seen = append(seen, "do "+name)
				if name == c.fail {
					return boom
				}
				return nil
			}}
			if name != "b" {
				s.Undo = func() error {
					seen = append(seen, "undo "+name)
					if name == c.stick {
						return errors.New(name + " sticks")
					}
					return nil
				}
			}
			steps = append(steps, s)
		}
		failpoint.Arm(c.point)
		ctx, cancel := context.WithCancel(t.Context())
		if c.cancel {
			cancel()
		}
		err := Run(ctx, "x", steps...)
		cancel()
		failpoint.Arm("")
		if got := fmt.Sprint(seen, " ", err); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if c.fail != "" && !errors.Is(err, boom) {
			t.Errorf("%s: the cause is lost", c.name)
		}
	}
}

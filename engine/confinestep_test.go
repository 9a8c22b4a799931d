package engine

import (
	"context"
	"testing"
)

// Where no security module is at work, or its policy says nothing of containers, steps are not confined by it, which is no error.
func TestConfineStepWithout(t *testing.T) {
	e := &Engine{}
	for _, shared := range []bool{false, true} {
		c, err := e.ConfineStep(context.Background(), shared)
		if err != nil || c.AppArmor != "" || c.ProcessLabel != "" || c.MountLabel != "" || c.Free == nil {
			t.Errorf("shared %t: %+v %v", shared, c, err)
		}
	}
}

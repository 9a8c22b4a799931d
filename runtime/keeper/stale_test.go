package keeper

import (
	"testing"

	"berth/base/fault"
)

// A client that has not heard yet that a container ended must not bring a process into whatever has its process id now.
func TestNoProcessIsPutIntoAnEndedContainer(t *testing.T) {
	r := newRig(t)
	r.launch(Launch{ID: "box", Program: sh("exit 3")})
	if x := r.exit(); x.Code != 3 {
		t.Fatal(x)
	}
	// Not acknowledged: the engine does not know yet.
	_, err := r.c.Launch(r.ctx(), Launch{ID: "box", Proc: "exec", Program: sh("exit 0")})
	if !fault.Is(err, fault.Conflict) {
		t.Errorf("%v", err)
	}
}

package keeper

import (
	"os"
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

// A program that enters containers by their numbers is launched only while these numbers are theirs.
func TestNumbersOfEnteredContainers(t *testing.T) {
	r := newRig(t)
	box := r.launch(Launch{ID: "box", Stdin: true, Program: sh("read x; exit 3")})
	enter := func(x ...Entered) error {
		_, err := r.c.Launch(r.ctx(), Launch{ID: "other", Enters: x, Program: sh("exit 0")})
		if err == nil {
			r.exitOf("other", "")
			err = r.c.Ack(r.ctx(), "other", "")
		}
		return err
	}
	if err := enter(Entered{ID: "box", PID: box.PID}); err != nil || !r.c.Holds("box", box.PID) {
		t.Errorf("a container that runs: %v", err)
	}
	for _, x := range []Entered{{ID: "box", PID: os.Getpid()}, {ID: "none", PID: box.PID}, {ID: "box"}} {
		if err := enter(Entered{ID: "box", PID: box.PID}, x); !fault.Is(err, fault.Gone) {
			t.Errorf("%+v was entered: %v", x, err)
		}
		if r.c.Holds(x.ID, x.PID) {
			t.Errorf("%+v is held", x)
		}
	}
	if err := r.c.Signal(r.ctx(), "box", "", 9); err != nil {
		t.Fatal(err)
	}
	r.exitOf("box", "")
	if err := enter(Entered{ID: "box", PID: box.PID}); !fault.Is(err, fault.Gone) || r.c.Holds("box", box.PID) {
		t.Errorf("a container that has ended was entered: %v", err)
	}
}

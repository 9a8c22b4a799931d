package process

import (
	"os"
	"testing"
)

func TestKilled(t *testing.T) {
	if Killed(os.Getpid()) || Killed(0) || Killed(-1) {
		t.Error("taken for killed")
	}
	if !pending([]byte("Name:\tx\nSigPnd:\t0000000000000100\n"), "SigPnd:") || pending([]byte("\nSigPnd:\t0000000000000200\n"), "SigPnd:") {
		t.Error("pending SIGKILL misread")
	}
}

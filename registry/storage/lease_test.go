package storage

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// Digests that are nowhere are not remembered: anybody can ask for any number of them.
func TestPromisesTakenBack(t *testing.T) {
	l := &leases{grace: time.Hour}
	for i := range 5000 {
		l.promise(digest.FromString(fmt.Sprint(i)))()
	}
	if n := len(l.until); n != 0 {
		t.Errorf("%d digests are remembered", n)
	}
	d := digest.FromString("x")
	back := l.promise(d) // looks where it is not
	l.promise(d)         // is told by another repository that it is there
	l.promise(d)()       // looks where it is not, later
	back()
	if !l.leased(d) {
		t.Error("somebody else's promise was taken back")
	}
}

package secret

import (
	"context"
	"errors"
	"strings"
	"testing"

	"berth/base/fault"
)

func TestPasswords(t *testing.T) {
	hash, err := Hash("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if c, err := Cost(hash); c != Cheap || err != nil {
		t.Errorf("cost %d, %v", c, err)
	}
	for _, c := range []struct {
		hash, password string
		want           bool
	}{
		{hash, "correct horse", true}, {"$2y$" + hash[4:], "correct horse", true}, {hash, "wrong", false}, {hash, "", false},
		{hash[:59], "correct horse", false}, {hash + "x", "correct horse", false}, {"", "", false}, {"correct horse", "correct horse", false},
		{strings.Replace(hash, "$10$", "$31$", 1), "correct horse", false}, {decoy(Cheap), "", false},
	} {
		if ok, err := Match(t.Context(), c.hash, c.password); ok != c.want || err != nil {
			t.Errorf("%q by %q: %v, %v", c.password, c.hash, ok, err)
		}
	}
	for _, p := range []string{"", strings.Repeat("x", MaxPassword+1)} {
		if _, err := Hash(p); !fault.Is(err, fault.Invalid) {
			t.Errorf("a password of %d bytes: %v", len(p), err)
		}
	}
	if _, err := Cost(strings.Replace(hash, "$10$", "$16$", 1)); !fault.Is(err, fault.Invalid) {
		t.Errorf("a hash that takes seconds: %v", err)
	}
	// A decoy must be a hash, or an unknown name would cost nothing.
	for cost := 4; cost <= MaxCost; cost++ {
		if got, err := Cost(decoy(cost)); got != cost || err != nil {
			t.Errorf("decoy of cost %d: %d, %v", cost, got, err)
		}
	}
}

// Whoever waits for a processor gives up with his request.
func TestWaitingEnds(t *testing.T) {
	for range cap(turns) {
		turns <- struct{}{}
	}
	defer func() {
		for range cap(turns) {
			<-turns
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Waste(ctx, "x", Cheap); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestTokens(t *testing.T) {
	a, b := Token(), Token()
	if a == b || len(a) != 43 || len(Fingerprint(a)) != 64 || Fingerprint(a) == Fingerprint(b) || len(ID()) != 12 {
		t.Errorf("%q %q %q", a, b, Fingerprint(a))
	}
}

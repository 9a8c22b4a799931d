package peer

import (
	"strings"
	"testing"

	"berth/base/fault"
)

func TestAddress(t *testing.T) {
	for _, c := range []struct {
		text, want string
		insecure   bool
	}{
		{"quay.io", "quay.io", false}, {"https://quay.io/", "quay.io", false}, {"localhost:5000", "localhost:5000", false},
		{"http://10.0.0.1:5000", "10.0.0.1:5000", true}, {"[::1]:5000", "[::1]:5000", false},
	} {
		if got, insecure, err := Address(c.text); got != c.want || insecure != c.insecure || err != nil {
			t.Errorf("%q: %q %v %v", c.text, got, insecure, err)
		}
	}
	for _, text := range []string{"", "http://", "a b", "quay.io/prometheus", "user@quay.io", ":5000", "ftp://x", "a?b"} {
		if got, _, err := Address(text); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
}

func TestKeeps(t *testing.T) {
	a := Account{Registry: "quay.io", Username: "ann"}
	for b, want := range map[Account]bool{
		a:                                        true,
		{Registry: "quay.io"}:                    false,
		{Registry: "elsewhere", Username: "ann"}: false,
		{Registry: "quay.io", Username: "ann", Insecure: true}: false,
	} {
		if got := a.Keeps(b); got != want {
			t.Errorf("%+v: %v", b, got)
		}
	}
	a.Insecure = true
	if !a.Keeps(Account{Registry: "quay.io", Username: "ann"}) || !a.Keeps(a) {
		t.Error("an account that was insecure does not keep its password")
	}
}

func TestCheckName(t *testing.T) {
	for _, s := range []string{"hub", "a.b-c_d", "0", strings.Repeat("x", 63)} {
		if err := CheckName(s, "a mirror"); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []string{"", "Hub", "-a", "a/b", strings.Repeat("x", 64)} {
		if err := CheckName(s, "a mirror"); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "no name of a mirror") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

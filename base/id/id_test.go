package id

import "testing"

func TestNew(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		s := New()
		if !Valid(s) || seen[s] || allDecimal(Short(s)) {
			t.Fatalf("bad id %q", s)
		}
		seen[s] = true
	}
}

func TestShort(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "",
		"abc":                      "abc",
		"0123456789abcdef":         "0123456789ab",
		"sha256:0123456789abcdef":  "0123456789ab",
		"sha512:0123456789abcdef0": "0123456789ab",
	} {
		if got := Short(in); got != want {
			t.Errorf("Short(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestValid(t *testing.T) {
	for _, bad := range []string{"", "abc", New() + "0", "G" + New()[1:], "A" + New()[1:]} {
		if Valid(bad) {
			t.Errorf("%q taken for an id", bad)
		}
	}
	if IsHex("") || IsHex("xyz") || !IsHex("0af") {
		t.Error("IsHex")
	}
}

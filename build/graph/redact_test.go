package graph

import "testing"

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"https://u:p@x/a?b#c":   "https://xxxxx:xxxxx@x/a?b#c",
		"https://token@x/a":     "https://xxxxx@x/a",
		"https://:p@x/a":        "https://xxxxx:xxxxx@x/a",
		"https://x/a b%zz":      "https://x/a b%zz",
		"git@x:a/b":             "git@x:a/b",
		"ssh://git@x:22/a":      "ssh://xxxxx@x:22/a",
		"a text with an @ sign": "a text with an @ sign",
		"":                      "",
	} {
		if got := Redact(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

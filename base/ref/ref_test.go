package ref

import (
	"strings"
	"testing"

	"berth/base/fault"
)

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseAndPrint(t *testing.T) {
	for _, c := range []struct{ in, full, familiar, name string }{
		{"busybox", "docker.io/library/busybox", "busybox", "busybox"},
		{"busybox:1", "docker.io/library/busybox:1", "busybox:1", "busybox"},
		{"docker.io/busybox", "docker.io/library/busybox", "busybox", "busybox"},
		{"index.docker.io/library/busybox", "docker.io/library/busybox", "busybox", "busybox"},
		{"me/app", "docker.io/me/app", "me/app", "me/app"},
		{"library/a/b", "docker.io/library/a/b", "library/a/b", "library/a/b"},
		{"localhost/app", "localhost/app", "localhost/app", "localhost/app"},
		{"localhost:5000/app:x", "localhost:5000/app:x", "localhost:5000/app:x", "localhost:5000/app"},
		{"[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"},
		{"a.b/c:t@sha256:" + hex64, "a.b/c:t@sha256:" + hex64, "a.b/c:t@sha256:" + hex64, "a.b/c"},
	} {
		r, err := Parse(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if r.String() != c.full || r.Familiar() != c.familiar || r.FamiliarName() != c.name {
			t.Errorf("%s: %q %q %q", c.in, r.String(), r.Familiar(), r.FamiliarName())
		}
	}
}

func TestRefused(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "invalid reference format",
		"Busybox":                       "invalid reference format: repository name (library/Busybox) must be lowercase",
		"a:b:c":                         "invalid reference format",
		"a@sha256:12":                   "invalid reference format",
		hex64:                           "cannot specify 64-byte hexadecimal strings",
		"a/" + strings.Repeat("b", 300): "repository name must not be more than 255 characters",
		"../x":                          "invalid reference format",
	} {
		_, err := Parse(in)
		if err == nil || !strings.Contains(err.Error(), want) || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v (%v), want %q", in, err, fault.KindOf(err), want)
		}
	}
	if _, err := ParseTagged("a@sha256:" + hex64); err == nil {
		t.Error("a digest was taken for a tag")
	}
	if r, err := ParseTagged("a"); err != nil || r.Familiar() != "a:latest" {
		t.Errorf("%v %v", r, err)
	}
}

func TestWithTagAndDigest(t *testing.T) {
	r, _ := Parse("a:1")
	if x, err := r.WithTag("2"); err != nil || x.Familiar() != "a:2" {
		t.Errorf("%v %v", x, err)
	}
	if _, err := r.WithTag("-bad-"); err == nil {
		t.Error("bad tag taken")
	}
	if x := r.WithDigest("sha256:" + hex64); x.Familiar() != "a@sha256:"+hex64 {
		t.Errorf("%v", x)
	}
}

func TestMatch(t *testing.T) {
	r, _ := Parse("me/app:1.0")
	for pattern, want := range map[string]bool{
		"me/app": true, "me/*": true, "me/*:1.*": true, "*": false, "app": false, "*/*:1.0": true, "me/app:2": false,
	} {
		if got, err := r.Match(pattern); err != nil || got != want {
			t.Errorf("%s: %v %v", pattern, got, err)
		}
	}
	if _, err := r.Match("[a"); fault.KindOf(err) != fault.Invalid {
		t.Errorf("bad pattern: %v", err)
	}
}

func TestLooksLikeID(t *testing.T) {
	for in, want := range map[string]bool{"": false, "beef": true, "sha256:beef": true, hex64: true, hex64 + "0": false, "busybox": false, "sha256:": false} {
		if _, ok := LooksLikeID(in); ok != want {
			t.Errorf("%q: %v", in, ok)
		}
	}
}

// What parses must print to a form that parses to the same value.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"busybox", "a.b:5000/c/d:tag@sha256:" + hex64, "library/a", "docker.io/library/x", "localhost/a", "A/b", "[::1]:1/x", "a__b/c-d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			return
		}
		for _, printed := range []string{r.String(), r.Familiar()} {
			again, err := Parse(printed)
			if err != nil || again != r {
				t.Fatalf("%q printed %q: %+v %+v %v", s, printed, r, again, err)
			}
		}
	})
}

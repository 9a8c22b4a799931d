package registry

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"registry.example":        "//registry.example",
		"localhost:5000":          "//localhost:5000",
		"https://r.example/":      "https://r.example",
		"http://127.0.0.1:5000":   "http://127.0.0.1:5000",
		"[::1]:5000":              "//[::1]:5000",
		"":                        "",
		"ftp://r":                 "",
		"r.example/team":          "",
		"http://ann:secret@r:5":   "",
		"http://r?x=1":            "",
		"https://":                "",
		"http://r:port":           "",
		"https://r.example/v2/":   "",
		"https://r.example#piece": "",
	} {
		u, err := parseAddress(in)
		got := ""
		if err == nil {
			got = u.String()
		}
		if got != want {
			t.Errorf("%q is %q (%v), want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]string{"r:5000": "r:5000", "https://index.docker.io/v1/": "index.docker.io", "http://r/v2/": "r"} {
		if got := hostOf(in); got != want {
			t.Errorf("the host of %q is %q", in, got)
		}
	}
	for host, want := range map[string]bool{"localhost": true, "127.0.0.9": true, "::1": true, "r.localhost": true, "10.0.0.1": false, "localhost.example": false} {
		if loopback(host) != want {
			t.Errorf("%s is of this machine: %v", host, !want)
		}
	}
}

func TestBearerChallenge(t *testing.T) {
	for in, want := range map[string]string{
		`Bearer realm="https://r/token",service="r.example"`:          "https://r/token r.example",
		`bearer service=r, scope="a:b:c,d" , realm="https://r/token"`: "https://r/token r",
		`Basic realm="r"`: "",
		`Basic realm="r"` + "\n" + `Bearer realm="https://r/t\"x",service=""`: `https://r/t"x `,
		`Bearer`:          "",
		`Bearer realm`:    "",
		`Bearer realm=""`: "",
		`Bearer realm="x`: "x ",
	} {
		realm, service, ok := bearerChallenge(strings.Split(in, "\n"))
		got := ""
		if ok {
			got = realm + " " + service
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func FuzzBearerChallenge(f *testing.F) {
	for _, s := range []string{`Bearer realm="https://r/token",service="r"`, `Bearer a="\`, `Bearer ,,=,"`, `Bearer realm=x, realm=y`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if realm, _, ok := bearerChallenge([]string{header}); ok && realm == "" {
			t.Errorf("%q has an empty realm", header)
		}
	})
}

package wire

import (
	"strings"
	"testing"

	"berth/engine/container"
)

func TestBitRate(t *testing.T) {
	for text, want := range map[string]uint64{
		"1000": 1000, "10mbit": 10e6, "1.5gbit": 1.5e9, "500KBIT": 500e3, "1bps": 8, "2mbps": 16e6, " 3kbit ": 3000, "1tbit": 1e12,
	} {
		if got, ok := bitRate(text); !ok || got != want {
			t.Errorf("%q: %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "mbit", "0", "-1mbit", "1e3mbit", "0x10", "1_000", "1mb", "nan", "inf", "1 0mbit", "9999tbit", "0.1"} {
		if got, ok := bitRate(text); ok {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func TestParseLink(t *testing.T) {
	for text, want := range map[string]string{"db": "db:db", "db:sql": "db:sql", "/db:/web/sql": "db:sql"} {
		if got, err := parseLink(text); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "a:b:c", ":b", "a:"} {
		if got, err := parseLink(text); err == nil {
			t.Errorf("%q is %q", text, got)
		}
	}
}

// What -v says comes back from inspect, and means the same again.
func FuzzBind(f *testing.F) {
	for _, s := range []string{"/a:/b", "v:/b:ro,z", "/anon", "/a:/b:idmap,rshared", "v:/b:nocopy", "a:b:c:d", ":", "/a:/b:ro,rw", "v:/../b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		m, err := bind(raw)
		if err != nil {
			return
		}
		if !strings.HasPrefix(m.Target, "/") || m.Target == "/" || m.Type != "bind" && m.Type != "volume" || m.Type == "bind" && !strings.HasPrefix(m.Source, "/") {
			t.Fatalf("%q became %+v", raw, m)
		}
		back, _, _ := apiMounts([]container.Mount{m})
		again, err := bind(back[0])
		if err != nil {
			t.Fatalf("%q came back as %q: %v", raw, back[0], err)
		}
		if a, b := pretty(t, m), pretty(t, again); string(a) != string(b) {
			t.Fatalf("%q became %s, and %q %s", raw, a, back[0], b)
		}
	})
}

// What a client says of ports comes back, too.
func FuzzHostPorts(f *testing.F) {
	for _, s := range []string{"", "0", "80", "80-90", "90-80", "-", "65536", "1-65535", "0-5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		first, last, err := hostPorts(text)
		if err == nil && (last < first || first == 0 && last != 0) {
			t.Fatalf("%q is %d to %d", text, first, last)
		}
	})
}

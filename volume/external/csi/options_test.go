package csi

import (
	"path/filepath"
	"testing"
)

func FuzzOptions(f *testing.F) {
	for _, s := range [][2]string{{"endpoint", "unix:///run/x.sock"}, {"topology", "a=b;c=d|e=f"}, {"size", "10g"}, {"mode", "multi-node-multi-writer"}, {"o", "ro,noatime"}, {"kind", "fast"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		o, err := parse(map[string]string{key: value})
		if err != nil {
			return
		}
		if o.endpoint != "" && !filepath.IsAbs(o.endpoint) {
			t.Errorf("%q became the socket %q", value, o.endpoint)
		}
		o.capability(true)
		o.capacity()
	})
}

func TestSockets(t *testing.T) {
	for text, want := range map[string]string{"unix:///a/b.sock": "/a/b.sock", "unix:/a/b.sock": "/a/b.sock", "/a/../b.sock": "/b.sock", "tcp://h:1": "", "b.sock": "", "unix://b.sock": "", "": ""} {
		if got, err := socketOf(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

package bake

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestAccess(t *testing.T) {
	outside := t.TempDir()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	if err := os.Mkdir("sub", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, "link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(outside, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(outside, "dir"), "deep"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("git@x", 0o755); err != nil {
		t.Fatal(err)
	}
	text := func(s string) *string { return &s }
	out, err := filepath.EvalSymlinks(outside)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		target Target
		want   []string
	}{
		"inside":        {Target{Context: text("sub"), Dockerfile: text("../Dockerfile"), Outputs: []object{{"type": "local", "dest": "out"}}}, nil},
		"remote":        {Target{Context: text("https://example.com/x.git")}, nil},
		"context":       {Target{Context: text(outside)}, []string{"fs.read=" + out}},
		"link":          {Target{Context: text("link")}, []string{"fs.read=" + out}},
		"dockerfile":    {Target{Context: text("."), Dockerfile: text(outside + "/Dockerfile")}, []string{"fs.read=" + out + "/Dockerfile"}},
		"named context": {Target{Contexts: map[string]string{"a": outside, "b": "target:c", "d": "docker-image://x"}}, []string{"fs.read=" + out}},
		"secret":        {Target{Secrets: []object{{"id": "s", "src": outside + "/key"}}}, []string{"fs.read=" + out + "/key"}},
		"secret by id":  {Target{Secrets: []object{{"id": outside + "/key"}}}, []string{"fs.read=" + out + "/key"}},
		"other keys":    {Target{Secrets: []object{{"id": "s", "Source": outside + "/key"}}, Outputs: []object{{"type": "local", "DEST": outside}}}, []string{"fs.read=" + out + "/key", "fs.write=" + out}},
		"like a remote": {Target{Secrets: []object{{"id": "s", "src": "git@x/../link/key"}}}, []string{"fs.read=" + out + "/key"}},
		"up a link":     {Target{Secrets: []object{{"id": "s", "src": "deep/../key"}}}, []string{"fs.read=" + out + "/key"}},
		"secret of env": {Target{Secrets: []object{{"id": outside + "/key", "env": "X"}}}, nil},
		"agent":         {Target{SSH: []object{{"id": "default"}}}, []string{"ssh"}},
		"keys":          {Target{SSH: []object{{"id": "default", "paths": outside + "/id"}}}, []string{"fs.read=" + out + "/id"}},
		"output":        {Target{Outputs: []object{{"type": "tar", "dest": outside + "/new/x.tar"}}}, []string{"fs.write=" + out + "/new/x.tar"}},
		"cache":         {Target{CacheFrom: []object{{"type": "local", "src": outside}}, CacheTo: []object{{"type": "local", "dest": outside}}}, []string{"fs.read=" + out, "fs.write=" + out}},
		"privileges":    {Target{Entitlements: []string{"network.host", "security.insecure"}}, []string{"network.host", "security.insecure"}},
	} {
		a, err := ParseAccess(nil)
		if err != nil {
			t.Fatal(err)
		}
		targets := map[string]*Target{"t": &c.target}
		if got := a.Missing(targets); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if a, err = ParseAccess(c.want); err != nil {
			t.Fatal(err)
		}
		if got := a.Missing(targets); len(got) > 0 {
			t.Errorf("%s: with %q still %q", name, c.want, got)
		}
	}
	if _, err := ParseAccess([]string{"everything"}); err == nil || !strings.Contains(err.Error(), "unknown entitlement") {
		t.Error(err)
	}
}

package registry

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// open starts a registry on a directory and gives its HOST:PORT.
func open(t *testing.T, cfg Config) (*Registry, string) {
	t.Helper()
	if cfg.Root == "" {
		cfg.Root = t.TempDir()
	}
	r, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(r)
	t.Cleanup(func() {
		s.Close()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, strings.TrimPrefix(s.URL, "http://")
}

func TestPushAndPull(t *testing.T) {
	_, host := open(t, Config{})
	pushed, err := random.Image(100_000, 3)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(host + "/team/web:2")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, pushed); err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Image(tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(pulled); err != nil {
		t.Error(err)
	}
	want, _ := pushed.Digest()
	if got, _ := pulled.Digest(); got != want {
		t.Errorf("digest %s, pushed %s", got, want)
	}
}

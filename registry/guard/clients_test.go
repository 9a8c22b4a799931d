package guard_test

import (
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"berth/registry"
	"berth/registry/guard"
)

// oras's library, which asks for tokens by GET or, when it is told to, by POST, and mounts between repositories.
func TestOras(t *testing.T) {
	s := serve(t, registry.Config{Htpasswd: htpasswd(t, "alice", "bob"), Auth: guard.Config{Admins: []string{"bob"}}})
	s.must(201, "POST", "/orgs", "bob:bob-secret", m{"name": "team", "owners": []string{"bob"}}, nil)
	src := memory.New()
	layer, err := oras.PushBytes(t.Context(), src, ocispec.MediaTypeImageLayer, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := oras.PackManifest(t.Context(), src, oras.PackManifestVersion1_1, "application/x.test", oras.PackManifestOptions{Layers: []ocispec.Descriptor{layer}})
	if err == nil {
		err = src.Tag(t.Context(), manifest, "1")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, post := range []bool{false, true} {
		repository := func(user, name string) *remote.Repository {
			t.Helper()
			repo, err := remote.NewRepository(s.host + "/" + name)
			if err != nil {
				t.Fatal(err)
			}
			repo.PlainHTTP = true
			c := &auth.Client{Cache: auth.NewCache(), ForceAttemptOAuth2: post}
			if user != "" {
				c.Credential = auth.StaticCredential(s.host, auth.Credential{Username: user, Password: user + "-secret"})
			}
			repo.Client = c
			return repo
		}
		name := map[bool]string{false: "get", true: "post"}[post]
		if _, err := oras.Copy(t.Context(), src, "1", repository("alice", "free/"+name), "1", oras.DefaultCopyOptions); err != nil {
			t.Errorf("%s: alice pushes: %v", name, err)
		}
		if _, err := oras.Copy(t.Context(), repository("alice", "free/"+name), "1", repository("bob", "team/"+name), "1", oras.DefaultCopyOptions); err != nil {
			t.Errorf("%s: bob copies: %v", name, err)
		}
		if _, err := oras.Copy(t.Context(), src, "1", repository("alice", "team/"+name), "1", oras.DefaultCopyOptions); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("%s: alice pushes to what is bob's: %v", name, err)
		}
		if _, err := oras.Copy(t.Context(), repository("", "team/"+name), "1", memory.New(), "1", oras.DefaultCopyOptions); err == nil {
			t.Errorf("%s: nobody pulls what is private", name)
		}
	}
}

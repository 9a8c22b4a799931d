package guard_test

import (
	"os"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"

	"berth/auth/ldap"
	"berth/auth/ldap/live"
	"berth/kernel/netns/alone"
	"berth/registry"
	"berth/registry/guard"
)

// Samba's domain controller has fixed ports, so that the tests run in a network of their own.
func TestMain(m *testing.M) { os.Exit(alone.Main(m)) }

// directory checks what users of a directory may do at a registry whose organisation team has members by group. alice is in
// dev, which is in engineers, which is in staff; bob in neither.
func directory(t *testing.T, c ldap.Config, alice, bob authn.Authenticator, aliceName, bobName string) {
	s := serve(t, registry.Config{Auth: guard.Config{LDAP: []ldap.Config{c}, Admins: []string{"boss"}, Guarded: true}})
	key, err := os.ReadFile(s.root + "/auth/local.key")
	if err != nil {
		t.Fatal(err)
	}
	local := "@local:" + string(key[:len(key)-1])
	s.must(201, "POST", "/orgs", local, m{"name": "team", "owners": []string{"boss"}}, nil)
	if e := s.push(alice, "team/web"); e == "" {
		t.Error("alice pushes before anybody gave her group a right")
	}
	s.must(204, "PUT", "/access", local, m{"organisation": "team", "to": "@Staff", "role": "writer"}, nil)
	if e := s.push(alice, "team/web"); e != "" {
		t.Errorf("alice is in staff, through two other groups: %s", e)
	}
	if e := s.pull(alice, "team/web"); e != "" {
		t.Error(e)
	}
	for what, e := range map[string]string{"bob pushes": s.push(bob, "team/other"), "bob pulls": s.pull(bob, "team/web"), "nobody pushes": s.push(as(""), "team/other"), "nobody pulls": s.pull(as(""), "team/web")} {
		if e == "" {
			t.Errorf("%s what is not his", what)
		}
	}
	s.must(204, "PUT", "/access", local, m{"repository": "team/web", "to": bobName, "role": "reader"}, nil)
	if e := s.pull(bob, "team/web"); e != "" {
		t.Errorf("bob, entitled: %s", e)
	}
	if e := s.push(bob, "team/other"); e == "" {
		t.Error("bob pushes with the right to pull elsewhere")
	}
	var v struct{ Allowed bool }
	s.must(200, "GET", "/access/explain?user="+aliceName+"&repository=team/web&action=push", local, nil, &v)
	if !v.Allowed {
		t.Error("alice's groups are looked up to explain")
	}
	// What docker login stores is good for users of a directory too.
	basic, _ := alice.Authorization()
	var a struct {
		Refresh string `json:"refresh_token"`
	}
	s.do("GET", "/token?offline_token=true", basic.Username+":"+basic.Password, nil, &a)
	if e := s.push(authn.FromConfig(authn.AuthConfig{IdentityToken: a.Refresh}), "team/stored"); e != "" {
		t.Errorf("alice's stored sign-in: %s", e)
	}
	// An account cannot take over a name that the directory has.
	s.must(409, "POST", "/users", local, m{"name": aliceName, "password": "x"}, nil)
}

func TestSlapdUsers(t *testing.T) {
	d := live.Slapd(t)
	directory(t, ldap.Config{
		URLs: []string{d.Encrypted}, CA: d.CA, BindDN: "cn=berth," + live.Suffix, BindPassword: "service",
		UserBase: "ou=people," + live.Suffix, GroupBase: "ou=groups," + live.Suffix, Nested: true, GroupNames: map[string]string{"operators": "ops"},
	}, as("Alice"), as("carol"), "alice", "carol")
}

func TestSambaUsers(t *testing.T) {
	ca := live.Samba(t)
	directory(t, ldap.Config{
		Kind: "ad", URLs: []string{"ldaps://127.0.0.1"}, CA: ca, BindDN: live.DCAccount, BindPassword: live.DCPassword,
		UserBase: live.DCBase, Domains: []string{"corp.example", "CORP"}, Nested: true,
	}, &authn.Basic{Username: "alice.archer@corp.example", Password: "Al1ce!secret"}, &authn.Basic{Username: `CORP\bob`, Password: "B0b!secret"}, "alice", "bob")
}

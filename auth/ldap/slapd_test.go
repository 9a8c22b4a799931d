package ldap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/auth"
	"berth/auth/ldap/live"
	"berth/base/fault"
)

func configOf(s *live.Server) Config {
	return Config{
		URLs: []string{s.Plain}, BindDN: "cn=berth," + live.Suffix, BindPassword: "service", Timeout: 5,
		UserBase: "ou=people," + live.Suffix, GroupBase: "ou=groups," + live.Suffix, Log: slog.New(slog.DiscardHandler),
	}
}

func open(t *testing.T, c Config) *Directory {
	t.Helper()
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// short leaves the names of groups that are no DN.
func short(u auth.User) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(u.Groups), func(g string) bool { return strings.Contains(g, "=") }), " ")
}

func TestSlapd(t *testing.T) {
	s := live.Slapd(t)
	t.Run("sign in", func(t *testing.T) { signIn(t, s) })
	t.Run("injection", func(t *testing.T) { injection(t, s) })
	t.Run("groups", func(t *testing.T) { groups(t, s) })
	t.Run("direct bind", func(t *testing.T) { directBind(t, s) })
	t.Run("encryption", func(t *testing.T) { encryption(t, s) })
	t.Run("lookup", func(t *testing.T) { lookups(t, s) })
	t.Run("servers that fail", func(t *testing.T) { failOver(t, s) }) // last: it stops the server
}

func signIn(t *testing.T, s *live.Server) {
	d := open(t, configOf(s))
	for _, c := range []struct {
		login, password string
		name            string
		err             error
	}{
		{"Alice", "Alice-secret", "alice", nil},
		{"ALICE", "Alice-secret", "alice", nil},
		{"bob", "bob-secret", "bob", nil},
		{"jsmith", "jsmith-secret", "jsmith", nil},
		{`odd(*)\name`, `odd(*)\name-secret`, "", auth.ErrNoUser}, // "odd(*)" would be a domain
		{"bob", "Alice-secret", "", auth.ErrPassword},
		{"bob", "", "", auth.ErrPassword},
		{"nopassword", "x", "", auth.ErrPassword},
		{"nobody", "x", "", auth.ErrNoUser},
		{"", "x", "", auth.ErrPassword},
		{"twin", "twin-secret", "", auth.ErrPassword},
		{"bob@corp.example", "bob-secret", "", auth.ErrNoUser},
	} {
		u, err := d.Password(t.Context(), c.login, c.password)
		if !errors.Is(err, c.err) || u.Name != c.name {
			t.Errorf("%s/%s: %q, %v; want %q, %v", c.login, c.password, u.Name, err, c.name, c.err)
		}
	}
	if n := len(d.pool.idle); n != 1 {
		t.Errorf("%d connections of the service account are kept, want 1 used again and again", n)
	}

	c := configOf(s)
	c.Domains = []string{"corp.example", "CORP"}
	d = open(t, c)
	for login, want := range map[string]error{
		"bob@CORP.example": nil, `corp\bob`: nil, "bob": nil, `OTHER\bob`: auth.ErrNoUser, "bob@other.example": auth.ErrNoUser, `CORP\`: auth.ErrNoUser,
	} {
		if _, err := d.Password(t.Context(), login, "bob-secret"); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", login, err, want)
		}
	}

	c = configOf(s)
	c.BindPassword = "wrong"
	if _, err := open(t, c).Password(t.Context(), "bob", "bob-secret"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a service account that may not bind: %v, want Unavailable and no word about bob's password", err)
	}
}

// injection sends logins that would change the question if they were not escaped.
func injection(t *testing.T, s *live.Server) {
	d := open(t, configOf(s))
	direct := configOf(s)
	direct.BindTemplates = []string{"uid={user},ou=people," + live.Suffix}
	bound := open(t, direct)
	for _, login := range []string{
		"*", "bo*", "b*b", "bob)(uid=*", "bob)(|(uid=*)", "*)(uid=bob", "bob)(userPassword=*", "(uid=bob)", `\62ob`, `b\6fb`, "bob\x00",
		"bob)(objectClass=*))(|(uid=bob", "bob,ou=people", "bob,ou=people," + live.Suffix, "bob+cn=bob", "#04036f6f", "bob\n", " bob ", `"bob"`, "bob;cn=x",
	} {
		for what, d := range map[string]*Directory{"search": d, "direct": bound} {
			u, err := d.Password(t.Context(), login, "bob-secret")
			// LDAP compares without regard to spaces around a value: " bob " is bob (RFC 4518 section 2.6.1).
			if strings.TrimSpace(login) == "bob" && login == " bob " {
				if err == nil && u.Name != "bob" {
					t.Errorf("%s: %q signed in as %q", what, login, u.Name)
				}
				continue
			}
			if !fault.Is(err, fault.Unauthorized) {
				t.Errorf("%s: %q: %+v, %v; want it refused", what, login, u, err)
			}
		}
	}
	c := configOf(s)
	c.UserFilter = "(uid={login})"
	c.Domains = []string{"odd(*)"}
	if u, err := open(t, c).Password(t.Context(), `odd(*)\name`, `odd(*)\name-secret`); err != nil || u.Name != `odd(*)\name` {
		t.Errorf("a name of special characters is looked for as it is: %+v, %v", u, err)
	}
}

func groups(t *testing.T, s *live.Server) {
	sign := func(c Config, login string) (auth.User, error) {
		return open(t, c).Password(t.Context(), login, login+"-secret")
	}
	for _, c := range []struct {
		what   string
		change func(*Config)
		login  string
		want   string
		err    error
	}{
		{"direct", func(c *Config) {}, "Alice", "dev", nil},
		{"a DN with a comma", func(c *Config) {}, "jsmith", "dev", nil},
		{"nested, in a circle", func(c *Config) { c.Nested = true }, "Alice", "dev engineers staff", nil},
		{"nested, by search only", func(c *Config) { c.Nested = true; c.GroupFilter = "(member={dn})" }, "Alice", "dev engineers staff", nil},
		{"memberUid", func(c *Config) {}, "bob", "operators staff unix", nil},
		{"elsewhere", func(c *Config) {}, "carol", "", nil},
		{"everywhere", func(c *Config) { c.GroupBase = live.Suffix }, "carol", "admins", nil},
		{"renamed", func(c *Config) {
			c.GroupNames = map[string]string{"dev": "team", "CN=Dev, OU=groups," + live.Suffix: "by-dn"}
		}, "Alice", "by-dn team", nil},
		{"required", func(c *Config) { c.Require = []string{"dev"} }, "Alice", "dev", nil},
		{"required and not in it", func(c *Config) { c.Require = []string{"dev"} }, "bob", "", auth.ErrPassword},
		{"required by DN, nested", func(c *Config) { c.Nested = true; c.Require = []string{"cn=Staff,ou=groups," + live.Suffix} }, "Alice", "dev engineers staff", nil},
	} {
		mine := configOf(s)
		c.change(&mine)
		u, err := sign(mine, c.login)
		if short(u) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %s is in %q (%v), want %q (%v)", c.what, c.login, short(u), err, c.want, c.err)
		}
	}
	c := configOf(s)
	c.Admins = []string{"Operators"}
	if u, err := sign(c, "bob"); err != nil || !u.Admin {
		t.Errorf("bob is an operator and so an administrator: %+v, %v", u, err)
	}
	if u, err := sign(c, "Alice"); err != nil || u.Admin {
		t.Errorf("alice is none: %+v, %v", u, err)
	}
	if u, _ := sign(configOf(s), "Alice"); !slices.Contains(u.Groups, "cn=dev,ou=groups,"+live.Suffix) {
		t.Errorf("rights can be given to a group's DN as well: %q", u.Groups)
	}
}

func directBind(t *testing.T, s *live.Server) {
	c := configOf(s)
	c.BindDN, c.BindPassword = "", ""
	c.BindTemplates = []string{"cn={user},ou=nowhere," + live.Suffix, "uid={user},ou=people," + live.Suffix}
	d := open(t, c)
	if u, err := d.Password(t.Context(), "Alice", "Alice-secret"); err != nil || u.Name != "alice" || short(u) != "dev" {
		t.Errorf("%+v, %v; her own entry tells her group by memberOf", u, err)
	}
	if _, err := d.Password(t.Context(), "Alice", "wrong"); !fault.Is(err, fault.Unauthorized) {
		t.Errorf("wrong password: %v", err)
	}
	if _, err := d.Lookup(t.Context(), "alice"); !fault.Is(err, fault.NotImplemented) {
		t.Errorf("lookup without a service account: %v", err)
	}
}

func encryption(t *testing.T, s *live.Server) {
	dir := t.TempDir()
	live.Certificates(t, dir)
	other := filepath.Join(dir, "ca.pem")
	for _, c := range []struct {
		what   string
		change func(*Config)
		ok     bool
	}{
		{"ldaps", func(c *Config) { c.URLs, c.CA = []string{s.Encrypted}, s.CA }, true},
		{"ldaps, the system's CAs", func(c *Config) { c.URLs = []string{s.Encrypted} }, false},
		{"ldaps, another CA", func(c *Config) { c.URLs, c.CA = []string{s.Encrypted}, other }, false},
		{"ldaps, another name", func(c *Config) { c.URLs, c.CA, c.ServerName = []string{s.Encrypted}, s.CA, "other.example" }, false},
		{"ldaps, its other name", func(c *Config) { c.URLs, c.CA, c.ServerName = []string{s.Encrypted}, s.CA, "ldap.corp.example" }, true},
		{"StartTLS", func(c *Config) { c.StartTLS, c.CA = true, s.CA }, true},
		{"StartTLS, another CA", func(c *Config) { c.StartTLS, c.CA = true, other }, false},
	} {
		mine := configOf(s)
		c.change(&mine)
		_, err := open(t, mine).Password(t.Context(), "bob", "bob-secret")
		if c.ok && err != nil || !c.ok && !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func lookups(t *testing.T, s *live.Server) {
	d := open(t, configOf(s))
	u, err := d.Lookup(t.Context(), "BOB")
	if err != nil || u.Name != "bob" || short(u) != "operators staff unix" {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := d.Lookup(t.Context(), "b*"); !errors.Is(err, auth.ErrNoUser) {
		t.Errorf("b*: %v", err)
	}
}

func failOver(t *testing.T, s *live.Server) {
	c := configOf(s)
	c.Timeout = 2
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c.URLs = []string{"ldap://" + live.FreePort(t), "ldap://" + silent.Addr().String(), s.Plain}
	c.StartTLS, c.CA = true, s.CA // the silent one is found out before it is asked anything
	d := open(t, c)
	if _, err := d.Password(t.Context(), "bob", "bob-secret"); err != nil {
		t.Errorf("the third server answers: %v", err)
	}
	start := time.Now()
	if _, err := d.Password(t.Context(), "bob", "bob-secret"); err != nil || time.Since(start) > 1900*time.Millisecond {
		t.Errorf("servers that did not answer are asked last: %v after %v", err, time.Since(start))
	}

	d = open(t, configOf(s))
	if _, err := d.Password(t.Context(), "bob", "bob-secret"); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if _, err := d.Password(t.Context(), "bob", "bob-secret"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("no server: %v, want Unavailable", err)
	}
	s.Start(t)
	if _, err := d.Password(t.Context(), "bob", "bob-secret"); err != nil {
		t.Errorf("the server is back: %v", err)
	}
	s.Stop()
	s.Start(t) // the kept connection is dead, which shows only when it is used
	if _, err := d.Password(t.Context(), "bob", "bob-secret"); err != nil {
		t.Errorf("the server was restarted: %v", err)
	}

	c = configOf(s)
	c.URLs, c.Timeout = []string{"ldap://" + silent.Addr().String()}, 1
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	start = time.Now()
	if _, err := open(t, c).Password(ctx, "bob", "bob-secret"); !fault.Is(err, fault.Unavailable) || time.Since(start) > 5*time.Second {
		t.Errorf("a silent server: %v after %v", err, time.Since(start))
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	c.Timeout = 30
	start = time.Now()
	if _, err := open(t, c).Password(short, "bob", "bob-secret"); err == nil || time.Since(start) > 5*time.Second {
		t.Errorf("a request that is given up: %v after %v", err, time.Since(start))
	}
}

func TestConfigIsChecked(t *testing.T) {
	ok := Config{URLs: []string{"ldaps://dc.corp.example"}, UserBase: live.Suffix}
	for what, change := range map[string]func(*Config){
		"no URL":                   func(c *Config) { c.URLs = nil },
		"a URL of something else":  func(c *Config) { c.URLs = []string{"http://x"} },
		"unencrypted":              func(c *Config) { c.URLs = []string{"ldap://dc.corp.example"} },
		"no base":                  func(c *Config) { c.UserBase = "" },
		"bind without password":    func(c *Config) { c.BindDN = "cn=x" },
		"filter without user":      func(c *Config) { c.UserFilter = "(objectClass=person)" },
		"filter that is none":      func(c *Config) { c.UserFilter = "(uid={user}" },
		"template without user":    func(c *Config) { c.BindTemplates = []string{"uid=x"} },
		"kind that does not exist": func(c *Config) { c.Kind = "nis" },
	} {
		c := ok
		change(&c)
		if _, err := New(c); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want Invalid", what, err)
		}
	}
	for what, change := range map[string]func(*Config){
		"as it is":             func(c *Config) {},
		"StartTLS":             func(c *Config) { c.URLs, c.StartTLS = []string{"ldap://dc.corp.example"}, true },
		"unencrypted, allowed": func(c *Config) { c.URLs, c.PlainText = []string{"ldap://dc.corp.example"}, true },
	} {
		c := ok
		change(&c)
		if _, err := New(c); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestDNs(t *testing.T) {
	for _, c := range []struct {
		dn, base string
		want     bool
	}{
		{"cn=dev,ou=groups,dc=x", "ou=groups,dc=x", true},
		{"CN=Dev, OU=Groups, DC=x", "ou=groups,dc=x", true},
		{"cn=dev,ou=groups,dc=x", "", true},
		{"cn=dev,ou=other,dc=x", "ou=groups,dc=x", false},
		{"ou=groups,dc=x", "ou=groups,dc=x", true},
		{`cn=a\,ou=groups\,dc=x,dc=y`, "ou=groups,dc=x", false},
		{"no dn", "dc=x", false},
	} {
		if got := below(c.dn, c.base); got != c.want {
			t.Errorf("below(%q, %q) = %v", c.dn, c.base, got)
		}
	}
	if key("CN=Dev, OU=Groups") != key("cn=dev,ou=groups") {
		t.Error("equal DNs have different keys")
	}
	if got := fmt.Sprintf("%q", firstValue(`cn=Smith\2c John,ou=x`, "CN")); got != `"Smith, John"` {
		t.Error(got)
	}
	sid, ok := primaryGroup([]byte{1, 2, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 9, 0, 0, 0}, "513")
	if !ok || sid[12] != 1 || sid[13] != 2 {
		t.Errorf("%v %v: 513 is 0x0201", sid, ok)
	}
	if _, ok := primaryGroup([]byte{1, 9, 0}, "513"); ok {
		t.Error("a damaged SID")
	}
}

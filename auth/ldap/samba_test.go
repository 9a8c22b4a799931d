package ldap

import (
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"

	"berth/auth"
	"berth/auth/ldap/live"
	"berth/base/fault"
	"berth/kernel/netns/alone"
)

// Samba's domain controller has fixed ports, so that the tests run in a network of their own.
func TestMain(m *testing.M) { os.Exit(alone.Main(m)) }

func TestSambaDomainController(t *testing.T) {
	ca := live.Samba(t)
	base := func() Config {
		return Config{
			Kind: "ad", URLs: []string{"ldaps://127.0.0.1"}, CA: ca, Timeout: 10,
			BindDN: live.DCAccount, BindPassword: live.DCPassword,
			UserBase: live.DCBase, Domains: []string{"corp.example", "CORP"}, Nested: true, Log: slog.New(slog.DiscardHandler),
		}
	}
	for _, c := range []struct {
		what            string
		change          func(*Config)
		login, password string
		name, groups    string // of groups those named here
		err             error
	}{
		{"account name", func(*Config) {}, "Alice", "Al1ce!secret", "alice", "dev engineers staff everybody", nil},
		{"NAME\\user", func(*Config) {}, `CORP\ALICE`, "Al1ce!secret", "alice", "dev engineers staff everybody", nil},
		{"user principal name", func(*Config) {}, "alice.archer@corp.example", "Al1ce!secret", "alice", "dev engineers staff everybody", nil},
		{"implicit principal name", func(*Config) {}, "alice@CORP.EXAMPLE", "Al1ce!secret", "alice", "dev engineers staff everybody", nil},
		{"principal name of another suffix", func(*Config) {}, "bob@mail.example", "B0b!secret", "bob", "everybody", nil},
		{"StartTLS", func(c *Config) { c.URLs, c.StartTLS = []string{"ldap://127.0.0.1"}, true }, "bob", "B0b!secret", "bob", "everybody", nil},
		{"not nested", func(c *Config) { c.Nested = false }, "Alice", "Al1ce!secret", "alice", "dev", nil},
		{"required, nested", func(c *Config) { c.Require = []string{"Staff"} }, "Alice", "Al1ce!secret", "alice", "dev engineers staff everybody", nil},
		{"required and not in it", func(c *Config) { c.Require = []string{"Staff"} }, "bob", "B0b!secret", "", "", auth.ErrPassword},
		{"wrong password", func(*Config) {}, "Alice", "B0b!secret", "", "", auth.ErrPassword},
		{"empty password", func(*Config) {}, "Alice", "", "", "", auth.ErrPassword},
		{"disabled", func(*Config) {}, "gone", "G0ne!secret", "", "", auth.ErrNoUser},
		{"a machine is no user", func(*Config) {}, "DC1$", "x", "", "", auth.ErrNoUser},
		{"another domain", func(*Config) {}, `OTHER\Alice`, "Al1ce!secret", "", "", auth.ErrNoUser},
		{"a pattern", func(*Config) {}, "Ali*", "Al1ce!secret", "", "", auth.ErrNoUser},
		{"direct bind by principal name", directAD("{user}@corp.example"), "Alice", "Al1ce!secret", "alice", "dev engineers staff everybody", nil},
		{"direct bind by NAME\\user", directAD(`CORP\{user}`), "bob", "B0b!secret", "bob", "everybody", nil},
		{"direct bind, wrong password", directAD(`CORP\{user}`), "bob", "Al1ce!secret", "", "", auth.ErrNoUser},
		{"direct bind, disabled", directAD(`CORP\{user}`), "gone", "G0ne!secret", "", "", auth.ErrNoUser},
		{"direct bind, another domain's", directAD(`CORP\{user}`), `x@y\bob`, "B0b!secret", "", "", auth.ErrNoUser},
	} {
		config := base()
		c.change(&config)
		u, err := open(t, config).Password(t.Context(), c.login, c.password)
		if !errors.Is(err, c.err) || u.Name != c.name || !sameWords(only(short(u), "dev", "engineers", "staff", "everybody"), c.groups) {
			t.Errorf("%s: %s is %q in %q, %v; want %q in %q, %v", c.what, c.login, u.Name, short(u), err, c.name, c.groups, c.err)
		}
	}

	config := base()
	config.URLs, config.StartTLS = []string{"ldap://127.0.0.1"}, false
	if _, err := open(t, config).Password(t.Context(), "bob", "B0b!secret"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("the controller refuses passwords unencrypted: %v", err)
	}

	d := open(t, base())
	before, err := d.Lookup(t.Context(), "alice")
	if err != nil || before.Stamp == "" || !strings.Contains(short(before), "Domain Users") {
		t.Errorf("lookup: %+v, %v", before, err)
	}
	if _, err := d.Lookup(t.Context(), "gone"); !errors.Is(err, auth.ErrNoUser) {
		t.Errorf("lookup of a disabled user: %v", err)
	}
}

func directAD(template string) func(*Config) {
	return func(c *Config) { c.BindDN, c.BindPassword, c.BindTemplates = "", "", []string{template} }
}

// only leaves the wanted ones of words.
func only(words string, wanted ...string) string {
	var kept []string
	for _, w := range strings.Fields(words) {
		for _, want := range wanted {
			if w == want {
				kept = append(kept, w)
			}
		}
	}
	return strings.Join(kept, " ")
}

func sameWords(a, b string) bool {
	return strings.Join(auth.Groups(strings.Fields(a)), " ") == strings.Join(auth.Groups(strings.Fields(b)), " ")
}

package ldap

import (
	"strings"
	"testing"

	ldapv3 "github.com/go-ldap/ldap/v3"

	"berth/auth"
)

func TestParseLogin(t *testing.T) {
	domains := []string{"corp.example", "CORP"}
	for _, c := range []struct {
		kind, login string
		user        string // "" when it is no user of this directory
	}{
		{"ldap", "alice", "alice"}, {"ldap", "alice@corp.example", "alice"}, {"ldap", "alice@CORP.EXAMPLE", "alice"}, {"ldap", `corp\alice`, "alice"},
		{"ldap", "alice@other.example", ""}, {"ad", "alice@other.example", "alice@other.example"}, {"ad", `OTHER\alice`, ""}, {"ad", `CORP\alice@x`, ""},
		{"ad", `\alice`, ""}, {"ad", `CORP\`, ""}, {"ad", "@corp.example", ""}, {"ad", "alice@", ""}, {"ad", `CORP\a\b`, ""}, {"ad", "a@b@corp.example", "a@b"},
	} {
		config := Config{Kind: c.kind, Domains: domains}
		l, ok := config.parseLogin(c.login)
		if ok != (c.user != "") || l.user != c.user {
			t.Errorf("%s: %q is %q (%v), want %q", c.kind, c.login, l.user, ok, c.user)
		}
	}
	if l, ok := (&Config{}).parseLogin("alice@corp.example"); !ok || l.user != "alice@corp.example" {
		t.Errorf("without domains an @ belongs to the name: %+v, %v", l, ok)
	}
}

// Whatever is typed stays one value: of a filter, and of a DN.
func FuzzLogin(f *testing.F) {
	for _, s := range []string{"alice", `CORP\alice`, "a@corp.example", "*)(uid=*", "a,ou=x", "#04", " a ", `"a"`, "a+b=c", "ä", `a\2c`, "a\x00"} {
		f.Add(s)
	}
	c := Config{Kind: "ad", Domains: []string{"corp.example", "CORP"}}
	f.Fuzz(func(t *testing.T, text string) {
		if auth.Check(text, "x") != nil {
			return
		}
		l, ok := c.parseLogin(text)
		if !ok {
			return
		}
		for _, template := range []string{"(&(a=b)(uid={user}))", "(|(uid={login})(mail=x))"} {
			packet, err := ldapv3.CompileFilter(expand(template, l.whole, l.user, ""))
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			if len(packet.Children) != 2 {
				t.Errorf("%q makes a filter of %d parts", text, len(packet.Children))
			}
			for _, part := range packet.Children {
				if len(part.Children) != 2 || strings.HasPrefix(part.Children[0].Data.String(), "uid") && part.Tag != ldapv3.FilterEqualityMatch {
					t.Errorf("%q makes a filter of another kind", text)
				}
			}
		}
		name, ok := bindName("uid={user},ou=people,dc=x", l)
		dn, err := ldapv3.ParseDN(name)
		if !ok || err != nil {
			t.Fatalf("%q: %q %v %v", text, name, ok, err)
		}
		if len(dn.RDNs) != 3 || len(dn.RDNs[0].Attributes) != 1 || dn.RDNs[0].Attributes[0].Value != l.user {
			t.Errorf("%q makes the DN %q of %d elements, whose first is %q", text, name, len(dn.RDNs), dn.RDNs[0].Attributes[0].Value)
		}
		if upn, ok := bindName("{user}@corp.example", l); ok && strings.Count(upn, "@") != 1 {
			t.Errorf("%q makes the principal name %q", text, upn)
		}
	})
}

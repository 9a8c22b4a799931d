package ldap

import (
	"strings"

	ldapv3 "github.com/go-ldap/ldap/v3"
)

// login is what a person typed, taken apart.
type login struct {
	whole string // CORP\alice, alice@corp.example, alice
	user  string // alice
}

// parseLogin takes a login apart; false when it is of a domain that is not this directory's.
func (c *Config) parseLogin(text string) (login, bool) {
	if domain, user, ok := strings.Cut(text, `\`); ok {
		if !c.owns(domain) || user == "" || strings.ContainsAny(user, `\@/`) {
			return login{}, false
		}
		return login{whole: text, user: user}, true
	}
	i := strings.LastIndexByte(text, '@')
	switch {
	case i < 0:
		return login{whole: text, user: text}, true
	case i == 0 || i == len(text)-1:
		return login{}, false
	case c.owns(text[i+1:]):
		return login{whole: text, user: text[:i]}, true
	case c.Kind == "ad" || len(c.Domains) == 0:
		// A user principal name may have any suffix that the forest knows, and an uid may hold an @.
		return login{whole: text, user: text}, true
	}
	return login{}, false
}

func (c *Config) owns(domain string) bool {
	for _, d := range c.Domains {
		if strings.EqualFold(d, domain) {
			return true
		}
	}
	return false
}

// bindName puts a login into a template of a direct bind; false when it does not fit without changing its meaning.
func bindName(template string, l login) (string, bool) {
	if strings.Contains(template, "=") { // a DN (RFC 4514)
		return strings.NewReplacer("{user}", ldapv3.EscapeDN(l.user), "{login}", ldapv3.EscapeDN(l.whole)).Replace(template), true
	}
	if strings.Contains(template, "{user}") && strings.ContainsAny(l.user, `@\/,=`) {
		return "", false // would name a user of another domain
	}
	return strings.NewReplacer("{user}", l.user, "{login}", l.whole).Replace(template), true
}

// key gives a DN in a form that equal DNs share: types and values in lower case, spaces as RFC 4514 writes them. One that
// cannot be parsed stands for itself.
func key(dn string) string {
	parsed, err := ldapv3.ParseDN(dn)
	if err != nil {
		return strings.ToLower(dn)
	}
	return strings.ToLower(parsed.String())
}

// below reports whether a DN is base or below it.
func below(dn, base string) bool {
	if base == "" {
		return true
	}
	d, err := ldapv3.ParseDN(dn)
	if err != nil {
		return false
	}
	b, err := ldapv3.ParseDN(base)
	return err == nil && (b.EqualFold(d) || b.AncestorOfFold(d))
}

// firstValue gives the value of a DN's first element when it is of the type: dev of cn=dev,ou=groups.
func firstValue(dn, attribute string) string {
	d, err := ldapv3.ParseDN(dn)
	if err != nil || len(d.RDNs) == 0 {
		return ""
	}
	for _, a := range d.RDNs[0].Attributes {
		if strings.EqualFold(a.Type, attribute) {
			return a.Value
		}
	}
	return ""
}

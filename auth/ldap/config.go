package ldap

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	ldapv3 "github.com/go-ldap/ldap/v3"

	"berth/base/fault"
)

// Config describes a directory. Only URLs and, of BindDN with UserBase or BindTemplates, one is needed.
//
// In filters and templates {login} stands for what was typed, {user} for it without its domain, {dn} for the DN of
// the entry whose groups are looked for. What is put in is escaped.
type Config struct {
	Name     string   `json:"name,omitempty"`     // shown in logs; "" means "ldap"
	Kind     string   `json:"kind,omitempty"`     // "ldap" (also ""), or "ad" for Active Directory and Samba
	URLs     []string `json:"urls"`               // ldaps://HOST[:PORT] or ldap://HOST[:PORT], tried in order
	StartTLS bool     `json:"startTLS,omitempty"` // on ldap://
	CA       string   `json:"ca,omitempty"`       // file of PEM certificates; "" means those of the system
	// ServerName is the name that the certificate must be for; "" means the URL's host.
	ServerName string `json:"serverName,omitempty"`
	// PlainText allows passwords over ldap:// without StartTLS to another machine.
	PlainText bool `json:"plainText,omitempty"`
	Timeout   int  `json:"timeoutSeconds,omitempty"` // for connecting and for each operation; 0 means 5

	BindDN           string   `json:"bindDN,omitempty"` // the service account; "" with UserBase means that anonymous may search
	BindPassword     string   `json:"bindPassword,omitempty"`
	BindPasswordFile string   `json:"bindPasswordFile,omitempty"` // read at each bind, so that it can be changed
	BindTemplates    []string `json:"bindTemplates,omitempty"`    // direct bind: uid={user},ou=people,dc=corp,dc=example · {user}@corp.example · CORP\{user}

	UserBase      string   `json:"userBase,omitempty"`
	UserFilter    string   `json:"userFilter,omitempty"`    // "" means (uid={user}) of persons, for AD sAMAccountName and userPrincipalName of users that are not disabled
	UserAttribute string   `json:"userAttribute,omitempty"` // gives the user's name here, in lower case; "" means uid, for AD sAMAccountName
	Domains       []string `json:"domains,omitempty"`       // NAME\user and user@NAME are users of this directory; those of others are not looked for

	GroupBase      string            `json:"groupBase,omitempty"`      // groups elsewhere do not count; "" means UserBase for AD, and no groups by search for others
	GroupFilter    string            `json:"groupFilter,omitempty"`    // "" means groups by member, uniqueMember and memberUid
	GroupAttribute string            `json:"groupAttribute,omitempty"` // gives the group's name; "" means cn
	Nested         bool              `json:"nested,omitempty"`         // also the groups of groups
	GroupNames     map[string]string `json:"groupNames,omitempty"`     // name or DN in the directory → the name that rights are given to
	Require        []string          `json:"require,omitempty"`        // who is in none of these groups may not sign in
	Admins         []string          `json:"admins,omitempty"`         // members of these groups administrate the site

	Log *slog.Logger `json:"-"`
}

const (
	// inChain makes the server follow membership through groups (MS-ADTS 3.1.1.3.4.4.3, LDAP_MATCHING_RULE_TRANSITIVE_EVAL).
	inChain = "1.2.840.113556.1.4.1941"
	// bitAnd compares bits of an integer; bit 2 of userAccountControl is "disabled" (MS-ADTS 2.2.16).
	bitAnd = "1.2.840.113556.1.4.803"

	filterPerson = "(&(|(objectClass=inetOrgPerson)(objectClass=posixAccount)(objectClass=person))(uid={user}))"
	filterAD     = "(&(objectCategory=person)(objectClass=user)(!(userAccountControl:" + bitAnd + ":=2))(|(sAMAccountName={user})(userPrincipalName={login})))"
	filterGroup  = "(|(&(objectClass=groupOfNames)(member={dn}))(&(objectClass=groupOfUniqueNames)(uniqueMember={dn}))(&(objectClass=posixGroup)(memberUid={user})))"
)

// prepare fills in what is left out and refuses what cannot work.
func (c *Config) prepare() error {
	invalid := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "directory "+c.Name+": "+format, args...)
	}
	if c.Name == "" {
		c.Name = "ldap"
	}
	if c.Kind == "" {
		c.Kind = "ldap"
	}
	if c.Kind != "ldap" && c.Kind != "ad" {
		return invalid("kind %q: ldap or ad", c.Kind)
	}
	if len(c.URLs) == 0 {
		return invalid("no URL of a server")
	}
	for _, u := range c.URLs {
		if err := c.checkURL(u); err != nil {
			return invalid("%v", err)
		}
	}
	if c.UserBase == "" && len(c.BindTemplates) == 0 {
		return invalid("say userBase, where users are searched for, or bindTemplates")
	}
	if c.BindDN != "" && c.BindPassword == "" && c.BindPasswordFile == "" {
		return invalid("bindDN without a password: servers take that for an anonymous bind")
	}
	for _, t := range c.BindTemplates {
		if strings.Count(t, "{user}")+strings.Count(t, "{login}") != 1 {
			return invalid("bind template %q must hold {user} or {login} once", t)
		}
	}
	ad := c.Kind == "ad"
	fill(&c.UserFilter, ad, filterAD, filterPerson)
	fill(&c.UserAttribute, ad, "sAMAccountName", "uid")
	fill(&c.GroupAttribute, ad, "cn", "cn")
	fill(&c.GroupFilter, ad, "(&(objectClass=group)(member={dn}))", filterGroup)
	if ad && c.GroupBase == "" {
		c.GroupBase = c.UserBase
	}
	if !strings.Contains(c.UserFilter, "{user}") && !strings.Contains(c.UserFilter, "{login}") {
		return invalid("userFilter %q does not ask for {user} or {login}: everybody would be found", c.UserFilter)
	}
	for what, filter := range map[string]string{"userFilter": c.UserFilter, "groupFilter": c.GroupFilter} {
		if _, err := ldapv3.CompileFilter(expand(filter, "x", "x", "cn=x")); err != nil {
			return invalid("%s %q: %v", what, filter, err)
		}
	}
	if c.Timeout <= 0 {
		c.Timeout = 5
	}
	return nil
}

func fill(field *string, ad bool, forAD, other string) {
	switch {
	case *field != "":
	case ad:
		*field = forAD
	default:
		*field = other
	}
}

// checkURL refuses what is no server, and a server that passwords would be sent to for anybody to read.
func (c *Config) checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return err
	case u.Scheme != "ldap" && u.Scheme != "ldaps" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "":
		return fault.New(fault.Invalid, "%q is no ldap://HOST[:PORT] or ldaps://HOST[:PORT]", text)
	case u.Scheme == "ldap" && !c.StartTLS && !c.PlainText && !loopback(u.Hostname()):
		return fault.New(fault.Invalid, "%s would send passwords unencrypted: use ldaps://, or startTLS, or allow it with plainText", text)
	}
	return nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

func (c *Config) timeout() time.Duration { return time.Duration(c.Timeout) * time.Second }

// tls gives what a connection to the server is checked by.
func (c *Config) tls(host string) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if c.ServerName != "" {
		t.ServerName = c.ServerName
	}
	if c.CA == "" {
		return t, nil
	}
	text, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, err
	}
	t.RootCAs = x509.NewCertPool()
	if !t.RootCAs.AppendCertsFromPEM(text) {
		return nil, fault.New(fault.Invalid, "%s holds no certificate in PEM", c.CA)
	}
	return t, nil
}

// password gives that of the service account.
func (c *Config) password() (string, error) {
	if c.BindPasswordFile == "" {
		return c.BindPassword, nil
	}
	text, err := os.ReadFile(c.BindPasswordFile)
	p := strings.TrimRight(string(text), "\r\n")
	if err == nil && p == "" {
		err = fault.New(fault.Invalid, "%s is empty", c.BindPasswordFile)
	}
	return p, err
}

// expand puts a login, the user of it and a DN into a filter, escaped (RFC 4515).
func expand(filter, login, user, dn string) string {
	return strings.NewReplacer(
		"{login}", ldapv3.EscapeFilter(login),
		"{user}", ldapv3.EscapeFilter(user),
		"{dn}", ldapv3.EscapeFilter(dn)).Replace(filter)
}

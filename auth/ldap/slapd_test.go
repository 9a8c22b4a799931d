package ldap

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	ldapv3 "github.com/go-ldap/ldap/v3"

	"berth/auth"
	"berth/base/fault"
)

const suffix = "dc=corp,dc=example"

// server is a slapd of this test's own, on loopback.
type server struct {
	dir              string
	plain, encrypted string // URLs
	ca               string // file
	process          *exec.Cmd
}

// slapd starts a server with people and groups, and ends it with the test.
func slapd(t *testing.T) *server {
	t.Helper()
	path := lookup("slapd")
	if path == "" {
		t.Skip("needs slapd: Debian package slapd")
	}
	if _, err := os.Stat("/etc/ldap/schema/inetorgperson.schema"); err != nil {
		t.Skip("needs slapd's schemas: Debian package slapd")
	}
	s := &server{dir: t.TempDir()}
	s.certificates(t)
	if err := os.Mkdir(filepath.Join(s.dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := strings.NewReplacer("DIR", s.dir, "SUFFIX", suffix).Replace(`
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
moduleload refint
pidfile DIR/pid
TLSCACertificateFile DIR/ca.pem
TLSCertificateFile DIR/server.pem
TLSCertificateKeyFile DIR/server.key
database mdb
suffix "SUFFIX"
rootdn "cn=root,SUFFIX"
rootpw root
directory DIR/db
overlay memberof
overlay refint
refint_attributes member memberOf
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="cn=berth,SUFFIX" read by self read by * none
`)
	if err := os.WriteFile(filepath.Join(s.dir, "slapd.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s.plain, s.encrypted = "ldap://"+freePort(t), "ldaps://"+freePort(t)
	s.start(t)
	t.Cleanup(func() { s.stop() })
	s.fill(t)
	return s
}

func lookup(name string) string {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/lib/openldap") {
		if path := filepath.Join(dir, name); exec.Command("test", "-x", path).Run() == nil {
			return path
		}
	}
	return ""
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *server) start(t *testing.T) {
	t.Helper()
	var out strings.Builder
	s.process = exec.Command(lookup("slapd"), "-d", "0", "-f", filepath.Join(s.dir, "slapd.conf"), "-h", s.plain+" "+s.encrypted)
	s.process.Stderr, s.process.Stdout = &out, &out
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.plain, "ldap://"))
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(end) {
			s.stop()
			t.Fatalf("slapd does not answer: %v\n%s", err, out.String())
		}
	}
}

func (s *server) stop() {
	if s.process != nil {
		s.process.Process.Kill()
		s.process.Wait()
		s.process = nil
	}
}

// certificates makes a CA and a server's certificate for 127.0.0.1.
func (s *server) certificates(t *testing.T) {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	write := func(name, kind string, der []byte) {
		text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
		if err := os.WriteFile(filepath.Join(s.dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	make := func(c, parent *x509.Certificate, pub *ecdsa.PublicKey, by *ecdsa.PrivateKey) []byte {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, by)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	caKey, serverKey := key(), key()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	write("ca.pem", "CERTIFICATE", make(ca, ca, &caKey.PublicKey, caKey))
	write("server.pem", "CERTIFICATE", make(&x509.Certificate{SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"ldap.corp.example"}}, ca, &serverKey.PublicKey, caKey))
	der, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		t.Fatal(err)
	}
	write("server.key", "PRIVATE KEY", der)
	s.ca = filepath.Join(s.dir, "ca.pem")
}

// root gives a connection that may write.
func (s *server) root(t *testing.T) *ldapv3.Conn {
	t.Helper()
	conn, err := ldapv3.DialURL(s.plain)
	if err == nil {
		err = conn.Bind("cn=root,"+suffix, "root")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// fill writes the entries over the protocol: the overlay keeps memberOf only then.
func (s *server) fill(t *testing.T) {
	t.Helper()
	conn := s.root(t)
	add := func(dn string, attributes ...string) {
		t.Helper()
		r := ldapv3.NewAddRequest(dn+","+suffix, nil)
		values := map[string][]string{}
		var order []string
		for _, a := range attributes {
			k, v, _ := strings.Cut(a, "=")
			if values[k] == nil {
				order = append(order, k)
			}
			values[k] = append(values[k], strings.ReplaceAll(v, "SUFFIX", suffix))
		}
		for _, k := range order {
			r.Attribute(k, values[k])
		}
		if err := conn.Add(r); err != nil {
			t.Fatalf("%s: %v", dn, err)
		}
	}
	root := ldapv3.NewAddRequest(suffix, nil)
	root.Attribute("objectClass", []string{"domain"})
	if err := conn.Add(root); err != nil {
		t.Fatal(err)
	}
	for _, ou := range []string{"people", "groups", "other"} {
		add("ou="+ou, "objectClass=organizationalUnit")
	}
	person := func(dn, uid string) {
		t.Helper()
		add(dn, "objectClass=inetOrgPerson", "cn="+uid, "sn="+uid, "uid="+uid, "userPassword="+uid+"-secret")
	}
	add("cn=berth", "objectClass=organizationalRole", "objectClass=simpleSecurityObject", "userPassword=service")
	person("uid=Alice,ou=people", "Alice")
	person("uid=bob,ou=people", "bob")
	person("uid=carol,ou=people", "carol")
	person(`uid=odd(\2a)\5cname,ou=people`, `odd(*)\name`)
	person("uid=twin,ou=people", "twin")
	person("cn=twin2,ou=people", "twin")
	person(`cn=Smith\2c John,ou=people`, "jsmith")
	add("cn=nopassword,ou=people", "objectClass=inetOrgPerson", "sn=x", "uid=nopassword")

	group := func(dn string, members ...string) {
		t.Helper()
		attributes := []string{"objectClass=groupOfNames"}
		for _, m := range members {
			attributes = append(attributes, "member="+m+",SUFFIX")
		}
		add(dn, attributes...)
	}
	// dev holds Alice; engineers hold dev; staff hold engineers; and dev holds staff again: a circle.
	group("cn=dev,ou=groups", "uid=Alice,ou=people", `cn=Smith\2c John,ou=people`)
	group("cn=engineers,ou=groups", "cn=dev,ou=groups")
	group("cn=staff,ou=groups", "cn=engineers,ou=groups", "uid=bob,ou=people")
	modify := ldapv3.NewModifyRequest("cn=dev,ou=groups,"+suffix, nil)
	modify.Add("member", []string{"cn=staff,ou=groups," + suffix})
	if err := conn.Modify(modify); err != nil {
		t.Fatal(err)
	}
	group("cn=admins,ou=other", "uid=carol,ou=people") // outside of the groups' base
	add("cn=unix,ou=groups", "objectClass=posixGroup", "gidNumber=1000", "memberUid=bob")
	group("cn=operators,ou=groups", "uid=bob,ou=people")
	add("cn=elsewhere,ou=people", "objectClass=referral", "objectClass=extensibleObject", "ref=ldap://127.0.0.1:1/ou=people,SUFFIX")
}

func (s *server) config() Config {
	return Config{
		URLs: []string{s.plain}, BindDN: "cn=berth," + suffix, BindPassword: "service", Timeout: 5,
		UserBase: "ou=people," + suffix, GroupBase: "ou=groups," + suffix, Log: slog.New(slog.DiscardHandler),
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
	s := slapd(t)
	t.Run("sign in", func(t *testing.T) { signIn(t, s) })
	t.Run("injection", func(t *testing.T) { injection(t, s) })
	t.Run("groups", func(t *testing.T) { groups(t, s) })
	t.Run("direct bind", func(t *testing.T) { directBind(t, s) })
	t.Run("encryption", func(t *testing.T) { encryption(t, s) })
	t.Run("lookup", func(t *testing.T) { lookups(t, s) })
	t.Run("servers that fail", func(t *testing.T) { failOver(t, s) }) // last: it stops the server
}

func signIn(t *testing.T, s *server) {
	d := open(t, s.config())
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

	c := s.config()
	c.Domains = []string{"corp.example", "CORP"}
	d = open(t, c)
	for login, want := range map[string]error{
		"bob@CORP.example": nil, `corp\bob`: nil, "bob": nil, `OTHER\bob`: auth.ErrNoUser, "bob@other.example": auth.ErrNoUser, `CORP\`: auth.ErrNoUser,
	} {
		if _, err := d.Password(t.Context(), login, "bob-secret"); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", login, err, want)
		}
	}

	c = s.config()
	c.BindPassword = "wrong"
	if _, err := open(t, c).Password(t.Context(), "bob", "bob-secret"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a service account that may not bind: %v, want Unavailable and no word about bob's password", err)
	}
}

// injection sends logins that would change the question if they were not escaped.
func injection(t *testing.T, s *server) {
	d := open(t, s.config())
	direct := s.config()
	direct.BindTemplates = []string{"uid={user},ou=people," + suffix}
	bound := open(t, direct)
	for _, login := range []string{
		"*", "bo*", "b*b", "bob)(uid=*", "bob)(|(uid=*)", "*)(uid=bob", "bob)(userPassword=*", "(uid=bob)", `\62ob`, `b\6fb`, "bob\x00",
		"bob)(objectClass=*))(|(uid=bob", "bob,ou=people", "bob,ou=people," + suffix, "bob+cn=bob", "#04036f6f", "bob\n", " bob ", `"bob"`, "bob;cn=x",
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
	c := s.config()
	c.UserFilter = "(uid={login})"
	c.Domains = []string{"odd(*)"}
	if u, err := open(t, c).Password(t.Context(), `odd(*)\name`, `odd(*)\name-secret`); err != nil || u.Name != `odd(*)\name` {
		t.Errorf("a name of special characters is looked for as it is: %+v, %v", u, err)
	}
}

func groups(t *testing.T, s *server) {
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
		{"everywhere", func(c *Config) { c.GroupBase = suffix }, "carol", "admins", nil},
		{"renamed", func(c *Config) {
			c.GroupNames = map[string]string{"dev": "team", "CN=Dev, OU=groups," + suffix: "by-dn"}
		}, "Alice", "by-dn team", nil},
		{"required", func(c *Config) { c.Require = []string{"dev"} }, "Alice", "dev", nil},
		{"required and not in it", func(c *Config) { c.Require = []string{"dev"} }, "bob", "", auth.ErrPassword},
		{"required by DN, nested", func(c *Config) { c.Nested = true; c.Require = []string{"cn=Staff,ou=groups," + suffix} }, "Alice", "dev engineers staff", nil},
	} {
		config := s.config()
		c.change(&config)
		u, err := sign(config, c.login)
		if short(u) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %s is in %q (%v), want %q (%v)", c.what, c.login, short(u), err, c.want, c.err)
		}
	}
	c := s.config()
	c.Admins = []string{"Operators"}
	if u, err := sign(c, "bob"); err != nil || !u.Admin {
		t.Errorf("bob is an operator and so an administrator: %+v, %v", u, err)
	}
	if u, err := sign(c, "Alice"); err != nil || u.Admin {
		t.Errorf("alice is none: %+v, %v", u, err)
	}
	if u, _ := sign(s.config(), "Alice"); !slices.Contains(u.Groups, "cn=dev,ou=groups,"+suffix) {
		t.Errorf("rights can be given to a group's DN as well: %q", u.Groups)
	}
}

func directBind(t *testing.T, s *server) {
	c := s.config()
	c.BindDN, c.BindPassword = "", ""
	c.BindTemplates = []string{"cn={user},ou=nowhere," + suffix, "uid={user},ou=people," + suffix}
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

func encryption(t *testing.T, s *server) {
	other := &server{dir: t.TempDir()}
	other.certificates(t)
	for _, c := range []struct {
		what   string
		change func(*Config)
		ok     bool
	}{
		{"ldaps", func(c *Config) { c.URLs, c.CA = []string{s.encrypted}, s.ca }, true},
		{"ldaps, the system's CAs", func(c *Config) { c.URLs = []string{s.encrypted} }, false},
		{"ldaps, another CA", func(c *Config) { c.URLs, c.CA = []string{s.encrypted}, other.ca }, false},
		{"ldaps, another name", func(c *Config) { c.URLs, c.CA, c.ServerName = []string{s.encrypted}, s.ca, "other.example" }, false},
		{"ldaps, its other name", func(c *Config) { c.URLs, c.CA, c.ServerName = []string{s.encrypted}, s.ca, "ldap.corp.example" }, true},
		{"StartTLS", func(c *Config) { c.StartTLS, c.CA = true, s.ca }, true},
		{"StartTLS, another CA", func(c *Config) { c.StartTLS, c.CA = true, other.ca }, false},
	} {
		config := s.config()
		c.change(&config)
		_, err := open(t, config).Password(t.Context(), "bob", "bob-secret")
		if c.ok && err != nil || !c.ok && !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func lookups(t *testing.T, s *server) {
	d := open(t, s.config())
	u, err := d.Lookup(t.Context(), "BOB")
	if err != nil || u.Name != "bob" || short(u) != "operators staff unix" {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := d.Lookup(t.Context(), "b*"); !errors.Is(err, auth.ErrNoUser) {
		t.Errorf("b*: %v", err)
	}
}

func failOver(t *testing.T, s *server) {
	c := s.config()
	c.Timeout = 1
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c.URLs = []string{"ldap://" + freePort(t), "ldap://" + silent.Addr().String(), s.plain}
	c.StartTLS, c.CA = true, s.ca // the silent one is found out before it is asked anything
	d := open(t, c)
	if _, err := d.Password(t.Context(), "bob", "bob-secret"); err != nil {
		t.Errorf("the third server answers: %v", err)
	}
	start := time.Now()
	if _, err := d.Password(t.Context(), "bob", "bob-secret"); err != nil || time.Since(start) > 900*time.Millisecond {
		t.Errorf("servers that did not answer are asked last: %v after %v", err, time.Since(start))
	}

	d = open(t, s.config())
	if _, err := d.Password(t.Context(), "bob", "bob-secret"); err != nil {
		t.Fatal(err)
	}
	s.stop()
	if _, err := d.Password(t.Context(), "bob", "bob-secret"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("no server: %v, want Unavailable", err)
	}
	s.start(t)
	if _, err := d.Password(t.Context(), "bob", "bob-secret"); err != nil {
		t.Errorf("the server is back: %v", err)
	}
	s.stop()
	s.start(t) // the kept connection is dead, which shows only when it is used
	if _, err := d.Password(t.Context(), "bob", "bob-secret"); err != nil {
		t.Errorf("the server was restarted: %v", err)
	}

	c = s.config()
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
	ok := Config{URLs: []string{"ldaps://dc.corp.example"}, UserBase: suffix}
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

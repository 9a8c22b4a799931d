package live

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	ldapv3 "github.com/go-ldap/ldap/v3"
)

// Suffix is the base of the entries of Slapd.
const Suffix = "dc=corp,dc=example"

// Server is a slapd of this test's own, on loopback.
type Server struct {
	Plain, Encrypted string // URLs: ldap://, ldaps://
	CA               string // file of the certificate of who signed the server's

	dir     string
	process *exec.Cmd
}

// Slapd starts a server with people and groups, and ends it with the test.
func Slapd(t *testing.T) *Server {
	t.Helper()
	path := Lookup("slapd")
	if path == "" {
		t.Skip("needs slapd: Debian package slapd")
	}
	if _, err := os.Stat("/etc/ldap/schema/inetorgperson.schema"); err != nil {
		t.Skip("needs slapd's schemas: Debian package slapd")
	}
	s := &Server{dir: t.TempDir()}
	Certificates(t, s.dir)
	s.CA = filepath.Join(s.dir, "ca.pem")
	if err := os.Mkdir(filepath.Join(s.dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := strings.NewReplacer("DIR", s.dir, "SUFFIX", Suffix).Replace(`
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
	s.Plain, s.Encrypted = "ldap://"+FreePort(t), "ldaps://"+FreePort(t)
	s.Start(t)
	t.Cleanup(func() { s.Stop() })
	s.fill(t)
	return s
}

// Lookup gives the path of a program, also of those that are not on everybody's path; "" when there is none.
func Lookup(name string) string {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/lib/openldap") {
		if path := filepath.Join(dir, name); exec.Command("test", "-x", path).Run() == nil {
			return path
		}
	}
	return ""
}

// FreePort gives a HOST:PORT of loopback where nobody listens.
func FreePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Start starts it, again after Stop.
func (s *Server) Start(t *testing.T) {
	t.Helper()
	var out strings.Builder
	s.process = exec.Command(Lookup("slapd"), "-d", "0", "-f", filepath.Join(s.dir, "slapd.conf"), "-h", s.Plain+" "+s.Encrypted)
	s.process.Stderr, s.process.Stdout = &out, &out
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.Plain, "ldap://"))
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(end) {
			s.Stop()
			t.Fatalf("slapd does not answer: %v\n%s", err, out.String())
		}
	}
}

// Stop kills it. Its entries stay.
func (s *Server) Stop() {
	if s.process != nil {
		s.process.Process.Kill()
		s.process.Wait()
		s.process = nil
	}
}

// Certificates makes a CA (ca.pem) and a certificate of it for 127.0.0.1 (server.pem, server.key) in a directory.
func Certificates(t testing.TB, dir string) {
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
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
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
}

// root gives a connection that may write.
func (s *Server) root(t *testing.T) *ldapv3.Conn {
	t.Helper()
	conn, err := ldapv3.DialURL(s.Plain)
	if err == nil {
		err = conn.Bind("cn=root,"+Suffix, "root")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// fill writes the entries over the protocol: the overlay keeps memberOf only then.
func (s *Server) fill(t *testing.T) {
	t.Helper()
	conn := s.root(t)
	add := func(dn string, attributes ...string) {
		t.Helper()
		r := ldapv3.NewAddRequest(dn+","+Suffix, nil)
		values := map[string][]string{}
		var order []string
		for _, a := range attributes {
			k, v, _ := strings.Cut(a, "=")
			if values[k] == nil {
				order = append(order, k)
			}
			values[k] = append(values[k], strings.ReplaceAll(v, "SUFFIX", Suffix))
		}
		for _, k := range order {
			r.Attribute(k, values[k])
		}
		if err := conn.Add(r); err != nil {
			t.Fatalf("%s: %v", dn, err)
		}
	}
	root := ldapv3.NewAddRequest(Suffix, nil)
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
	modify := ldapv3.NewModifyRequest("cn=dev,ou=groups,"+Suffix, nil)
	modify.Add("member", []string{"cn=staff,ou=groups," + Suffix})
	if err := conn.Modify(modify); err != nil {
		t.Fatal(err)
	}
	group("cn=admins,ou=other", "uid=carol,ou=people") // outside of the groups' base
	add("cn=unix,ou=groups", "objectClass=posixGroup", "gidNumber=1000", "memberUid=bob")
	group("cn=operators,ou=groups", "uid=bob,ou=people")
	add("cn=elsewhere,ou=people", "objectClass=referral", "objectClass=extensibleObject", "ref=ldap://127.0.0.1:1/ou=people,SUFFIX")
}

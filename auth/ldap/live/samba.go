package live

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	ldapv3 "github.com/go-ldap/ldap/v3"

	"berth/kernel/netns/alone"
)

// What Samba's domain has.
const (
	DCBase     = "DC=corp,DC=example"
	DCAccount  = "berth@corp.example" // may search
	DCPassword = "S3rvice!pw"         // of DCAccount

	dcRealm = "CORP.EXAMPLE"
	dcAdmin = "Passw0rd!x"
	dcUsers = "CN=Users," + DCBase
)

// Samba provisions and starts a domain controller with users and groups, and gives the file of its CA. Its ports are those of
// LDAP on loopback: the tests of the package must run in a network of their own (alone.Main). It takes some ten seconds.
func Samba(t *testing.T) (ca string) {
	t.Helper()
	ca = startSamba(t)
	fillDC(t, ca)
	return ca
}

func startSamba(t *testing.T) string {
	t.Helper()
	alone.Need(t)
	for _, program := range []string{"samba", "samba-tool"} {
		if Lookup(program) == "" {
			t.Skipf("needs Samba's AD DC: no %s (Debian packages samba-ad-dc and samba-ad-provision)", program)
		}
	}
	dir, err := os.MkdirTemp("", "dc") // a path short enough for its sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	Certificates(t, dir)
	options := []string{
		"--option=interfaces=lo", "--option=bind interfaces only=yes", "--option=pid directory=" + dir, "--option=ncalrpc dir=" + dir + "/ncalrpc",
		"--option=log file=" + dir + "/log.%m", "--option=panic action=",
	}
	provision := exec.Command(Lookup("samba-tool"), append([]string{"domain", "provision", "--realm=" + dcRealm, "--domain=CORP", "--server-role=dc",
		"--dns-backend=NONE", "--adminpass=" + dcAdmin, "--targetdir=" + dir, "--host-name=dc1", "--host-ip=127.0.0.1"}, options...)...)
	provision.Dir = dir
	if out, err := provision.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "ERROR(<class 'NameError'>)") || strings.Contains(string(out), "ModuleNotFoundError") || strings.Contains(string(out), "setup/") {
			t.Skipf("needs samba-tool domain provision (Debian package samba-ad-provision): %s", out)
		}
		t.Fatalf("provision: %v\n%s", err, out)
	}
	var out strings.Builder
	dc := exec.Command(Lookup("samba"), append([]string{"--foreground", "--no-process-group", "--model=single", "--debug-stdout", "-s", dir + "/etc/smb.conf",
		"--option=server services=ldap", "--option=lock directory=" + dir + "/lock",
		"--option=tls cafile=" + dir + "/ca.pem", "--option=tls certfile=" + dir + "/server.pem", "--option=tls keyfile=" + dir + "/server.key"}, options...)...)
	dc.Stdout, dc.Stderr = &out, &out
	dc.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := dc.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-dc.Process.Pid, syscall.SIGKILL)
		dc.Wait()
	})
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("tcp", "127.0.0.1:636")
		if err == nil {
			conn.Close()
			return filepath.Join(dir, "ca.pem")
		}
		if time.Now().After(end) {
			t.Fatalf("samba does not answer: %v\n%s", err, out.String())
		}
	}
}

// fillDC makes users and groups as an administrator would.
func fillDC(t *testing.T, ca string) {
	t.Helper()
	text, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	conn, err := ldapv3.DialURL("ldaps://127.0.0.1", ldapv3.DialWithTLSConfig(&tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}))
	if err == nil {
		defer conn.Close()
		err = conn.Bind("administrator@corp.example", dcAdmin)
	}
	if err != nil {
		t.Fatal(err)
	}
	add := func(dn string, attributes map[string][]string) {
		t.Helper()
		r := ldapv3.NewAddRequest(dn, nil)
		for k, v := range attributes {
			r.Attribute(k, v)
		}
		if err := conn.Add(r); err != nil {
			t.Fatalf("%s: %v", dn, err)
		}
	}
	person := func(name, upn, password, control string) {
		t.Helper()
		add("CN="+name+","+dcUsers, map[string][]string{
			"objectClass": {"user"}, "sAMAccountName": {name}, "userPrincipalName": {upn},
			"unicodePwd": {quoted(password)}, "userAccountControl": {control},
		})
	}
	person("berth", "berth@corp.example", DCPassword, "512")
	person("Alice", "alice.archer@corp.example", "Al1ce!secret", "512")
	person("bob", "bob@mail.example", "B0b!secret", "512")
	person("gone", "gone@corp.example", "G0ne!secret", "514") // disabled
	group := func(name string, members ...string) {
		t.Helper()
		for i, m := range members {
			members[i] = "CN=" + m + "," + dcUsers
		}
		add("CN="+name+","+dcUsers, map[string][]string{"objectClass": {"group"}, "sAMAccountName": {name}, "member": members})
	}
	group("dev", "Alice")
	group("engineers", "dev")
	group("staff", "engineers")
	modify := ldapv3.NewModifyRequest("CN=dev,"+dcUsers, nil)
	modify.Add("member", []string{"CN=staff," + dcUsers}) // a circle
	if err := conn.Modify(modify); err != nil {
		t.Fatal(err)
	}
	group("everybody", "Domain Users") // holds the primary group of all
}

// quoted writes a password as AD's unicodePwd takes it (MS-ADTS 3.1.1.3.1.5).
func quoted(password string) string {
	var b strings.Builder
	for _, u := range utf16.Encode([]rune(`"` + password + `"`)) {
		b.WriteByte(byte(u))
		b.WriteByte(byte(u >> 8))
	}
	return b.String()
}

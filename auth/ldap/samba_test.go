package ldap

import (
	"errors"
	"log/slog"
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

	"berth/auth"
	"berth/base/fault"
	"berth/kernel/netns/alone"
)

// Samba's domain controller has fixed ports, so that the tests run in a network of their own.
func TestMain(m *testing.M) { os.Exit(alone.Main(m)) }

const (
	realm     = "CORP.EXAMPLE"
	dcAdmin   = "Passw0rd!x"
	dcUsers   = "CN=Users,DC=corp,DC=example"
	dcAccount = "S3rvice!pw"
)

// samba provisions and starts a domain controller, and gives the file of its CA.
func samba(t *testing.T) string {
	t.Helper()
	alone.Need(t)
	for _, program := range []string{"samba", "samba-tool"} {
		if lookup(program) == "" {
			t.Skipf("needs Samba's AD DC: no %s (Debian packages samba-ad-dc and samba-ad-provision)", program)
		}
	}
	dir, err := os.MkdirTemp("", "dc") // a path short enough for its sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	keys := &server{dir: dir}
	keys.certificates(t)
	options := []string{
		"--option=interfaces=lo", "--option=bind interfaces only=yes", "--option=pid directory=" + dir, "--option=ncalrpc dir=" + dir + "/ncalrpc",
		"--option=log file=" + dir + "/log.%m", "--option=panic action=",
	}
	provision := exec.Command(lookup("samba-tool"), append([]string{"domain", "provision", "--realm=" + realm, "--domain=CORP", "--server-role=dc",
		"--dns-backend=NONE", "--adminpass=" + dcAdmin, "--targetdir=" + dir, "--host-name=dc1", "--host-ip=127.0.0.1"}, options...)...)
	provision.Dir = dir
	if out, err := provision.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "ERROR(<class 'NameError'>)") || strings.Contains(string(out), "ModuleNotFoundError") || strings.Contains(string(out), "setup/") {
			t.Skipf("needs samba-tool domain provision (Debian package samba-ad-provision): %s", out)
		}
		t.Fatalf("provision: %v\n%s", err, out)
	}
	var out strings.Builder
	dc := exec.Command(lookup("samba"), append([]string{"--foreground", "--no-process-group", "--model=single", "--debug-stdout", "-s", dir + "/etc/smb.conf",
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
	c := Config{CA: ca}
	tls, err := c.tls("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ldapv3.DialURL("ldaps://127.0.0.1", ldapv3.DialWithTLSConfig(tls))
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
	person("berth", "berth@corp.example", dcAccount, "512")
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

func TestSambaDomainController(t *testing.T) {
	ca := samba(t)
	fillDC(t, ca)
	base := func() Config {
		return Config{
			Kind: "ad", URLs: []string{"ldaps://127.0.0.1"}, CA: ca, Timeout: 10,
			BindDN: "berth@corp.example", BindPassword: dcAccount,
			UserBase: "DC=corp,DC=example", Domains: []string{"corp.example", "CORP"}, Nested: true, Log: slog.New(slog.DiscardHandler),
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

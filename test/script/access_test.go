package script

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/test/live"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestAccess tries the ways to an engine: access sockets, TCP with certificates, ssh.
func TestAccess(t *testing.T) {
	if *against != "" {
		t.Skip("needs an engine of ours: Docker has no access sockets")
	}
	certs := t.TempDir()
	if err := makeCerts(certs); err != nil {
		t.Fatal(err)
	}
	e := start(t, "-H", "tcp://127.0.0.1:2376", "--tlsverify", "--tlscacert", certs+"/ca.pem", "--tlscert", certs+"/server.pem", "--tlskey", certs+"/server.key", "--audit")
	ownScripts(t, "access", e, func(env *testscript.Env) {
		env.Setenv("CERTS", certs)
		env.Setenv("SSHD", sshd())
	}, map[string]bool{"sshd": sshd() != ""})
}

// TestRuntimes has the same containers served by every OCI runtime of this machine.
func TestRuntimes(t *testing.T) {
	if *against != "" {
		t.Skip("needs an engine of ours, which is told of runtimes")
	}
	if lacks := live.Lacks(); lacks != "" {
		t.Skip(lacks)
	}
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{"oci": filepath.Join(bin, "berth-oci"), "runc": "", "crun": ""}
	dir := t.TempDir()
	for _, name := range []string{"runc", "crun"} {
		path, err := exec.LookPath(name)
		if err != nil {
			if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
				delete(paths, name)
				t.Run(name, func(t *testing.T) { t.Skipf("needs %s: install the package of that name", name) })
				continue
			}
		}
		// They refuse a machine that has both versions of cgroups mounted, unless they do not see the second.
		wrapper := filepath.Join(dir, name)
		text := "#!/bin/sh\nexec unshare -m sh -c 'umount -l /sys/fs/cgroup/unified 2>/dev/null; exec " + path + " \"$@\"' " + name + " \"$@\"\n"
		if err := os.WriteFile(wrapper, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		paths[name] = wrapper
	}
	if err := os.WriteFile(filepath.Join(dir, "broken"), []byte("#!/bin/sh\necho out of order >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"--add-runtime", "gone=/nonexistent/runc", "--add-runtime", "broken=" + filepath.Join(dir, "broken")}
	for name, path := range paths {
		args = append(args, "--add-runtime", name+"="+path)
	}
	e := start(t, args...)
	for name := range paths {
		t.Run(name, func(t *testing.T) {
			ownScripts(t, "runtimes", e, func(env *testscript.Env) { env.Setenv("RUNTIME", name) }, nil)
		})
	}
}

// ownScripts runs the scripts of a directory, one after the other: they may kill the engine that they share.
func ownScripts(t *testing.T, dir string, e *live.Engine, more func(*testscript.Env), have map[string]bool) {
	t.Helper()
	scripts, err := filepath.Glob("testdata/" + dir + "/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	verbs := places(e.World)
	verbs["engine"] = func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 1 {
			ts.Fatalf("usage: engine kill | run | restart | kill-keeper")
		}
		ts.Check(engine(e, args[0]))
	}
	for _, file := range scripts {
		// In a test of its own, which waits for the script: scripts of one Run go on side by side.
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Files:         []string{file},
				UpdateScripts: *update,
				Condition: func(cond string) (bool, error) {
					if is, known := have[cond]; known {
						return is, nil
					}
					return conditions("berth")(cond)
				},
				Cmds: verbs,
				Setup: func(env *testscript.Env) error {
					prepare(env, "berth", filepath.Join(e.Bin, "berth"), e.Host)
					env.Setenv("ACCESS", filepath.Join(e.Dir, "run", "access"))
					env.Setenv("ENGINE_DIR", e.Dir)
					more(env)
					return nil
				},
			})
		})
	}
}

// sshd finds Debian's OpenSSH server; "" where there is none.
func sshd() string {
	for _, path := range []string{os.Getenv("SSHD"), "sshd", "/usr/sbin/sshd"} {
		if path == "" {
			continue
		}
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	return ""
}

// makeCerts makes a CA, a server's certificate, and clients' good and bad ones.
func makeCerts(dir string) error {
	now := time.Now()
	ca, other := &authority{}, &authority{}
	for name, a := range map[string]*authority{"ca": ca, "otherca": other} {
		if err := a.make(dir, name); err != nil {
			return err
		}
	}
	server := &x509.Certificate{
		Subject: pkix.Name{CommonName: "engine"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}
	client := func(name string, until time.Time) *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: name, Organization: []string{"operators"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			NotBefore: now.Add(-2 * time.Hour), NotAfter: until,
		}
	}
	for _, c := range []struct {
		name string
		by   *authority
		cert *x509.Certificate
	}{
		{"server", ca, server}, {"alice", ca, client("alice", now.Add(time.Hour))}, {"expired", ca, client("expired", now.Add(-time.Hour))}, {"stranger", other, client("alice", now.Add(time.Hour))},
		{"servers", ca, server}, // a server's certificate is none of a client
	} {
		if err := c.by.sign(dir, c.name, c.cert); err != nil {
			return err
		}
	}
	return nil
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (a *authority) make(dir, name string) (err error) {
	a.cert = &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-3 * time.Hour), NotAfter: time.Now().Add(3 * time.Hour),
	}
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return write(dir, name, a.cert, a.cert, a.key, a.key)
}

func (a *authority) sign(dir, name string, cert *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return write(dir, name, cert, a.cert, key, a.key)
}

func write(dir, name string, cert, by *x509.Certificate, key, signs *ecdsa.PrivateKey) error {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return err
	}
	cert.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, cert, by, &key.PublicKey, signs)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", name, err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "EC PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

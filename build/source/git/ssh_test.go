package git

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/solver/pb"

	"berth/base/fault"
	"berth/build/graph"
	"berth/build/session"
	"berth/build/solver"
)

// keygen makes a key and gives its file.
func keygen(t *testing.T) string {
	t.Helper()
	bin, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("needs ssh-keygen: install the package openssh-client")
	}
	file := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command(bin, "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return file
}

// sshd serves the machine to one key and gives its address and the line that it is known by.
func sshd(t *testing.T, authorized string) (addr, known string) {
	t.Helper()
	bin := "/usr/sbin/sshd" // which wants to be called by its full path
	if _, err := os.Stat(bin); err != nil {
		t.Skip("needs sshd: install the package openssh-server")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	need(t, err)
	addr = l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(addr)
	host := keygen(t)
	if err := os.Mkdir("/run/sshd", 0o755); err == nil { // it insists on the directory
		t.Cleanup(func() { _ = os.Remove("/run/sshd") })
	}
	cmd := exec.Command(bin, "-D", "-e", "-f", "/dev/null", "-h", host, "-p", port, "-o", "ListenAddress=127.0.0.1", "-o", "AuthorizedKeysFile="+authorized,
		"-o", "StrictModes=no", "-o", "UsePAM=no", "-o", "PidFile=none", "-o", "PermitRootLogin=yes", "-o", "PasswordAuthentication=no")
	var out strings.Builder
	cmd.Stderr = &out
	need(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("sshd: %s", out.String())
		}
	})
	for range 3000 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			pub, err := os.ReadFile(host + ".pub")
			need(t, err)
			return addr, fmt.Sprintf("[127.0.0.1]:%s %s", port, pub)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Skip("needs sshd: it does not start here: " + out.String())
	return "", ""
}

// TestSSH fetches with the client's agent, out of the box that git is in, from the server that the client knows and from no other.
func TestSSH(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("needs ssh: install the package openssh-client")
	}
	key := keygen(t)
	addr, known := sshd(t, key+".pub")
	agent, err := sshprovider.NewSSHAgentProvider([]sshprovider.AgentConfig{{ID: "default", Paths: []string{key}}})
	need(t, err)
	m := session.NewManager(nil)
	defer m.Close()
	id, end, err := m.Local(t.Context(), "k", agent)
	need(t, err)
	defer end()
	b := open(t, m)
	b.repo("inner")
	inner := b.commit("inner", "i=I")
	b.repo("r")
	b.commit("r", "a=1")
	b.link("r", "m", inner, "[submodule \"m\"]\n\tpath = m\n\turl = ../inner\n")
	full := "ssh://root@" + addr + b.root + "/r"
	pin := func(attrs map[string]string) (string, error) {
		attrs[pb.AttrFullRemoteURL] = full
		src, err := b.s.Source(&graph.Vertex{Op: &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "git://" + addr + b.root + "/r", Attrs: attrs}}}})
		if err != nil {
			return "", err
		}
		p, err := src.Pin(t.Context(), &solver.Run{Sessions: session.NewGroup(id), Stderr: &b.log, Progress: quiet{}})
		if err != nil {
			return "", err
		}
		return b.files(p)
	}
	if got, err := pin(map[string]string{pb.AttrMountSSHSock: "default"}); err != nil || !strings.Contains(got, "a 1") || !strings.Contains(got, "m/i I") {
		t.Errorf("%v: %s", err, got)
	}
	for name, attrs := range map[string]map[string]string{
		"without the agent":          {},
		"an agent that is not there": {pb.AttrMountSSHSock: "other"},
		"another server":             {pb.AttrMountSSHSock: "default", pb.AttrKnownSSHHosts: strings.Replace(known, "AAAAC3NzaC1lZDI1NTE5AAAAI", "AAAAC3NzaC1lZDI1NTE5AAAAJ", 1)},
	} {
		need(t, os.RemoveAll(b.s.cfg.Root))
		b.commit("r", "n="+name) // nothing that was told before
		if got, err := pin(attrs); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
	need(t, os.RemoveAll(b.s.cfg.Root))
	if got, err := pin(map[string]string{pb.AttrMountSSHSock: "default", pb.AttrKnownSSHHosts: known}); err != nil || !strings.Contains(got, "a 1") {
		t.Errorf("the server that is known: %v: %s", err, got)
	}
}

// TestSignatures takes versions that are signed with the key that the build wants, and no others.
func TestSignatures(t *testing.T) {
	key, other := keygen(t), keygen(t)
	b := open(t)
	b.repo("r")
	sign := []string{"-c", "gpg.format=ssh", "-c", "user.signingkey=" + key}
	signed := func(args ...string) { b.git("r", append(append([]string{}, sign...), args...)...) }
	b.commit("r", "a=1")
	plain := b.git("r", "rev-parse", "HEAD")
	signed("tag", "-s", "-m", "x", "signed-tag")
	b.git("r", "tag", "-a", "-m", "x", "plain-tag")
	signed("commit", "-S", "--allow-empty", "-q", "-m", "signed")
	b.git("r", "tag", "-a", "-m", "x", "plain-tag-of-signed")
	public := func(key string) string {
		text, err := os.ReadFile(key + ".pub")
		need(t, err)
		return "git.sig.pubkey=" + string(text)
	}
	for _, tt := range []struct {
		fragment string
		attrs    []string
		ok       bool
	}{
		{"#main", []string{public(key)}, true},
		{"#main", []string{public(other)}, false},
		{"#main", []string{public(key), "git.sig.requiresignedtag=true"}, false},
		{"#" + plain, []string{public(key)}, false},
		{"#signed-tag", []string{public(key)}, true},
		{"#signed-tag", []string{public(key), "git.sig.requiresignedtag=true"}, true},
		{"#signed-tag", []string{public(key), "git.sig.ignoresignedtag=true"}, false},
		{"#signed-tag", []string{public(other)}, false},
		{"#plain-tag", []string{public(key)}, false},
		{"#plain-tag-of-signed", []string{public(key)}, true},
		{"#plain-tag-of-signed", []string{public(key), "git.sig.requiresignedtag=true"}, false},
	} {
		p, err := b.pin("r", tt.fragment, tt.attrs...)
		var got string
		if err == nil {
			got, err = b.files(p)
		}
		if (err == nil) != tt.ok || err == nil && got != "a 1" || err != nil && !fault.Is(err, fault.Forbidden) {
			t.Errorf("%s %.60q: %v: %s", tt.fragment, tt.attrs, err, got)
		}
	}
}

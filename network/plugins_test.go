package network

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/base/fault"
)

// TestCNI runs Debian's plugins as a network of ours: they set addresses and map ports, and names are ours.
func TestCNI(t *testing.T) {
	for _, need := range []string{"/usr/lib/cni/bridge", "/usr/lib/cni/portmap", "/usr/lib/cni/host-local"} {
		if _, err := os.Stat(need); err != nil {
			t.Skipf("needs CNI plugins (Debian: containernetworking-plugins): %v", err)
		}
	}
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("needs iptables: the plugin portmap runs it")
	}
	h := newRoom(t, nil)
	conf := `{"cniVersion": "1.0.0", "name": "chain", "plugins": [
		{"type": "bridge", "bridge": "cni7", "isGateway": true, "ipMasq": false,
		 "ipam": {"type": "host-local", "dataDir": "` + t.TempDir() + `", "ranges": [[{"subnet": "10.22.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
		{"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}]}`
	h.create(CreateRequest{Name: "chain", Driver: "cni", Options: map[string]string{"conf": conf}})
	before := h.links()
	a, b := want("a", "chain"), want("b", "chain")
	a.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8080}}
	sa, sb := h.join(a), h.join(b)
	h.serve(sa, ":80", "a")
	e := sa.Endpoints[0]
	if e.IPv4 != prefix("10.22.0.2/24") || len(sa.Ports) != 1 || sa.Ports[0].Target != addr("10.22.0.2") {
		t.Error(show(sa))
	}
	if got, err := h.askFrom(sb, "10.22.0.2:80"); !strings.HasPrefix(got, "a ") {
		t.Errorf("container to container: %q %v", got, err)
	}
	if got, err := ask("127.0.0.1:8080"); !strings.HasPrefix(got, "a ") {
		t.Errorf("published: %q %v", got, err)
	}
	if v4, _, known := h.Lookup(sb.ID, "a"); !known || !slices.Equal(v4, mustAddrs("10.22.0.2")) {
		t.Error(v4, known)
	}
	c := want("c", "chain")
	c.Ports = a.Ports
	_, err := h.Join(ctx, c)
	fails(t, err, fault.Conflict, "port is already allocated (by container a)")
	if _, err := h.Publish(ctx, a, []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8081}}, []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8080}}); err != nil {
		t.Fatal(err)
	}
	if got, err := ask("127.0.0.1:8081"); !strings.HasPrefix(got, "a ") {
		t.Errorf("published live: %q %v", got, err)
	}
	h.reopen(a.ContainerID)
	if err := h.Leave(ctx, a.ContainerID); err != nil {
		t.Error(err)
	}
	if got, err := ask("127.0.0.1:8081"); err == nil {
		t.Errorf("after it left: %q", got)
	}
	soon(t, "links are as before", func() bool {
		return len(slices.DeleteFunc(h.links(), func(l string) bool { return l == "cni7" || slices.Contains(before, l) })) == 0
	})
	if err := h.Remove(ctx, "chain"); err != nil {
		t.Error(err)
	}
	exec.Command("ip", "link", "del", "cni7").Run()
}

// plug is a network and IPAM plugin that notes what it is asked.
type plug struct {
	mu    sync.Mutex
	calls []string
	next  int
	hang  chan struct{} // CreateNetwork does not answer before it is closed
}

func startPlug(t *testing.T, dir, name string) *plug {
	t.Helper()
	p := &plug{next: 1}
	l, err := net.Listen("unix", filepath.Join(dir, name+".sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: p}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return p
}

func (p *plug) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, ".CreateNetwork") && p.hang != nil {
		<-p.hang
	}
	var body struct{ PoolID, Address, Pool string }
	json.NewDecoder(r.Body).Decode(&body)
	p.mu.Lock()
	defer p.mu.Unlock()
	method := strings.TrimPrefix(r.URL.Path, "/")
	p.calls = append(p.calls, method)
	answer := map[string]any{}
	switch method {
	case "Plugin.Activate":
		answer["Implements"] = []string{"NetworkDriver", "IpamDriver"}
	case "NetworkDriver.GetCapabilities":
		answer["Scope"] = "local"
	case "IpamDriver.GetDefaultAddressSpaces":
		answer["LocalDefaultAddressSpace"] = "here"
	case "IpamDriver.RequestPool":
		answer["PoolID"], answer["Pool"] = "pool1", "10.66.0.0/24"
	case "IpamDriver.RequestAddress":
		a := body.Address
		if a == "" {
			a = "10.66.0." + string(rune('0'+p.next))
			p.next++
		}
		answer["Address"] = a + "/24"
	}
	json.NewEncoder(w).Encode(answer)
}

func (p *plug) called(method string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.calls {
		if strings.HasSuffix(c, "."+method) {
			n++
		}
	}
	return n
}

// TestPlugins makes a bridge network with addresses of a plugin, and a network of a plugin.
func TestPlugins(t *testing.T) {
	dir := t.TempDir()
	h := newRoom(t, func(c *Config) { c.PluginSockets, c.PluginSpecs = dir, []string{} })
	p := startPlug(t, dir, "plug")
	n := h.create(CreateRequest{Name: "lent", IPAM: IPAM{Driver: "plug"}})
	if got := n.IPAM.Pools[0]; got.Subnet != prefix("10.66.0.0/24") || got.Gateway != addr("10.66.0.1") {
		t.Error(show(n))
	}
	a := want("a", "lent")
	if s := h.join(a); s.Endpoints[0].IPv4 != prefix("10.66.0.2/24") {
		t.Error(show(s))
	}
	h.reopen(a.ContainerID)
	if err := h.Leave(ctx, a.ContainerID); err != nil {
		t.Error(err)
	}
	if p.called("ReleaseAddress") != 1 {
		t.Errorf("calls: %v", p.calls)
	}
	if err := h.Remove(ctx, "lent"); err != nil || p.called("ReleasePool") != 1 || p.called("ReleaseAddress") != 2 {
		t.Errorf("%v, calls: %v", err, p.calls)
	}
	h.create(CreateRequest{Name: "theirs", Driver: "plug", IPAM: subnet("10.7.0.0/24")})
	b := want("b", "theirs")
	b.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8080}}
	s := h.join(b)
	if s.Endpoints[0].IPv4 != prefix("10.7.0.2/24") || p.called("ProgramExternalConnectivity") != 1 {
		t.Error(show(s), p.calls)
	}
	h.reopen(b.ContainerID)
	if err := h.Leave(ctx, b.ContainerID); err != nil {
		t.Error(err)
	}
	if err := h.Remove(ctx, "theirs"); err != nil {
		t.Error(err)
	}
	for _, m := range []string{"CreateNetwork", "CreateEndpoint", "Join", "Leave", "DeleteEndpoint", "RevokeExternalConnectivity", "DeleteNetwork"} {
		if p.called(m) != 1 {
			t.Errorf("%s: %d calls", m, p.called(m))
		}
	}
}

// TestHangingPlugin lets a plugin hang at a creation: another is not held up for longer than it wants to wait, and what
// runs not at all.
func TestHangingPlugin(t *testing.T) {
	dir := t.TempDir()
	h := newRoom(t, func(c *Config) { c.PluginSockets, c.PluginSpecs = dir, []string{} })
	p := startPlug(t, dir, "plug")
	p.hang = make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, _, err := h.Create(ctx, CreateRequest{Name: "theirs", Driver: "plug"})
		done <- err
	}()
	soon(t, "a network is being made", func() bool { return len(h.changing) == 1 })
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, _, err := h.Create(short, CreateRequest{Name: "own"})
	fails(t, err, fault.Deadline, "wait for another change of networks")
	h.join(want("a", "bridge"))
	close(p.hang)
	if err := <-done; err != nil {
		t.Error(err)
	}
	h.create(CreateRequest{Name: "own"})
}

// TestDyingPlugin starts without a plugin whose network there is: all else works, and it says what is missing.
func TestDyingPlugin(t *testing.T) {
	dir := t.TempDir()
	h := newRoom(t, func(c *Config) { c.PluginSockets, c.PluginSpecs = dir, []string{} })
	startPlug(t, dir, "plug")
	h.create(CreateRequest{Name: "theirs", Driver: "plug"})
	w := want("a", "theirs")
	h.join(w)
	if err := os.Remove(filepath.Join(dir, "plug.sock")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	h.reopen(w.ContainerID)
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("the engine's start takes %s", d)
	}
	_, err := h.Join(ctx, want("b", "theirs"))
	fails(t, err, fault.NotFound, "plug")
	h.join(want("c", "bridge"))
	if err := h.Leave(ctx, w.ContainerID); err == nil {
		t.Error("nobody hears that the plugin was not told")
	}
	if _, ok := h.Sandbox(w.ContainerID); ok {
		t.Error("the sandbox stays")
	}
	if err := h.Remove(ctx, "theirs"); err != nil {
		t.Error(err)
	}
}

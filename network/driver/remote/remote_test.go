package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/base/fault"
	"berth/base/plugin"
	"berth/kernel/link"
	"berth/kernel/netns"
	"berth/kernel/netns/alone"
	"berth/network/driver"
)

func TestMain(m *testing.M) { os.Exit(alone.Main(m)) }

// fake is a plugin: it answers methods from a table and remembers what it was asked.
type fake struct {
	mu      sync.Mutex
	asked   []string
	answers map[string]string // JSON by method; absent: {}; "hang" and "die" do so
	on      map[string]func() // called before the answer
	server  *http.Server
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	method := strings.TrimPrefix(r.URL.Path, "/")
	short := strings.TrimPrefix(method, "NetworkDriver.")
	f.mu.Lock()
	f.asked = append(f.asked, strings.TrimSpace(short+" "+string(body)))
	answer, on := f.answers[short], f.on[short]
	f.mu.Unlock()
	if on != nil {
		on()
	}
	switch answer {
	case "":
		answer = "{}"
	case "lack":
		http.NotFound(w, r)
		return
	case "die":
		panic(http.ErrAbortHandler)
	case "hang":
		select {
		case <-r.Context().Done():
		case <-time.After(time.Minute):
		}
		return
	}
	io.WriteString(w, answer)
}

// set changes an answer and gives the one before.
func (f *fake) set(method, answer string) (old string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old, f.answers[method] = f.answers[method], answer
	return old
}

func (f *fake) methods() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for _, a := range f.asked {
		m, _, _ := strings.Cut(a, " ")
		list = append(list, m)
	}
	return list
}

// request gives the last request of the method.
func (f *fake) request(t *testing.T, method string) map[string]any {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range slices.Backward(f.asked) {
		if m, body, _ := strings.Cut(a, " "); m == method {
			var v map[string]any
			if err := json.Unmarshal([]byte(body), &v); err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("%s was not asked", method)
	return nil
}

func start(t *testing.T) (*fake, *Driver) {
	t.Helper()
	return startFor(t, time.Minute) // an answer comes within that on any machine
}

// startFor is start where a plugin that hangs is given up after patience.
func startFor(t *testing.T, patience time.Duration) (*fake, *Driver) {
	t.Helper()
	alone.Need(t)
	dir := t.TempDir()
	f := &fake{answers: map[string]string{
		"Plugin.Activate": `{"Implements":["NetworkDriver"]}`,
		"GetCapabilities": `{"Scope":"local"}`,
	}, on: map[string]func(){}}
	l, err := net.Listen("unix", filepath.Join(dir, "fake.sock"))
	if err != nil {
		t.Fatal(err)
	}
	f.server = &http.Server{Handler: f}
	go f.server.Serve(l)
	t.Cleanup(func() { f.server.Close() })
	plugins := plugin.New(plugin.Config{Sockets: dir, Specs: []string{}, Wait: 3 * time.Second, Timeout: patience})
	t.Cleanup(plugins.Close)
	d, err := New(Config{Name: "fake", Plugins: plugins, Dir: filepath.Join(dir, "told")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return f, d
}

var testNetwork = driver.Network{ID: strings.Repeat("1", 64), Name: "blue", IPv4: true, IPv6: true, Internal: true,
	Options: map[string]string{"colour": "blue"},
	Pools: []driver.Pool{
		{Subnet: netip.MustParsePrefix("10.9.0.0/24"), Gateway: netip.MustParseAddr("10.9.0.1"), Aux: map[string]netip.Addr{"nas": netip.MustParseAddr("10.9.0.7")}},
		{Subnet: netip.MustParsePrefix("fd09::/64"), Gateway: netip.MustParseAddr("fd09::1")},
	}}

func TestNetwork(t *testing.T) {
	f, d := start(t)
	ctx := context.Background()
	for range 2 { // the second is the next start of the engine
		if err := d.Create(ctx, testNetwork); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := json.Marshal(f.request(t, "CreateNetwork"))
	want := `{"IPv4Data":[{"AddressSpace":"LocalDefault","AuxAddresses":{"nas":"10.9.0.7/24"},"Gateway":"10.9.0.1/24","Pool":"10.9.0.0/24"}],` +
		`"IPv6Data":[{"AddressSpace":"LocalDefault","Gateway":"fd09::1/64","Pool":"fd09::/64"}],"NetworkID":"` + testNetwork.ID + `",` +
		`"Options":{"com.docker.network.enable_ipv4":true,"com.docker.network.enable_ipv6":true,"com.docker.network.generic":{"colour":"blue"},"com.docker.network.internal":true}}`
	if string(got) != want {
		t.Errorf("CreateNetwork\n%s\nwant\n%s", got, want)
	}
	for range 2 {
		if err := d.Delete(ctx, testNetwork); err != nil {
			t.Fatal(err)
		}
	}
	wanted := []string{"Plugin.Activate", "GetCapabilities", "CreateNetwork", "DeleteNetwork"}
	if m := f.methods(); !slices.Equal(m, wanted) {
		t.Errorf("asked %v, want %v", m, wanted)
	}
}

func TestRefusals(t *testing.T) {
	f, d := start(t)
	ctx := context.Background()
	for _, c := range []struct {
		method, answer, text string
		kind                 fault.Kind
	}{
		{"GetCapabilities", `{"Scope":"global"}`, "is not initialized", fault.Forbidden},
		{"GetCapabilities", `{"Scope":"odd"}`, "invalid capability", fault.Invalid},
		{"CreateNetwork", `{"Err":"no room"}`, "remote: no room", fault.Internal},
		{"CreateNetwork", "die", "CreateNetwork", fault.Unavailable},
	} {
		old := f.set(c.method, c.answer)
		err := d.Create(ctx, testNetwork)
		if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s %s: %v", c.method, c.answer, err)
		}
		f.set(c.method, old)
	}
	hangs, hasty := startFor(t, 3*time.Second)
	hangs.set("CreateNetwork", "hang")
	if err := hasty.Create(ctx, testNetwork); !fault.Is(err, fault.Deadline) || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("a plugin that hangs: %v", err)
	}
	f.server.Close()
	startTime := time.Now()
	if err := d.Create(ctx, testNetwork); err == nil || time.Since(startTime) > 30*time.Second {
		t.Errorf("a dead plugin: %v after %v", err, time.Since(startTime))
	}
	none, err := New(Config{Name: "none", Plugins: plugin.New(plugin.Config{Sockets: t.TempDir(), Specs: []string{}}), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close()
	if err := none.Create(ctx, testNetwork); !fault.Is(err, fault.NotFound) || err.Error() != `plugin "none" not found` {
		t.Errorf("no plugin: %v", err)
	}
}

// container is a namespace with what a driver is given of it.
func container(t *testing.T) driver.Request {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ns")
	if err := netns.CreateWith(path, alone.LoopbackUp); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Remove(path) })
	ns, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	in, err := link.DialIn(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	v4, v6 := netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("fd09::2/64")
	return driver.Request{EndpointID: strings.Repeat("e", 64), Key: path, NS: ns, In: in, Interface: "eth0", IPv4: v4, IPv6: v6,
		MAC: driver.MACOf(v4.Addr(), v6.Addr()), Ports: []driver.Port{{Proto: "tcp", HostPort: 8080, Port: 80}}}
}

func left(r driver.Request, a driver.Attachment) driver.Left {
	return driver.Left{EndpointID: r.EndpointID, Key: r.Key, NS: r.NS, Interface: a.Interface, Keep: a.Keep}
}

// veth makes a pair on the host, as a plugin does in CreateEndpoint.
func veth(t *testing.T, name string) {
	t.Helper()
	c, err := link.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Do(link.Add(link.Link{Name: name, Kind: "veth", Peer: &link.Link{Name: name + "p"}})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c, err := link.Dial()
		if err == nil {
			c.Do(link.DeleteNamed(name + "p").IfThere())
			c.Close()
		}
	})
}

func TestEndpoint(t *testing.T) {
	f, d := start(t)
	ctx := context.Background()
	r := container(t)
	veth(t, "fake0")
	f.set("CreateEndpoint", `{"Interface":{"MacAddress":"02:00:00:00:00:09"}}`)
	f.set("Join", `{"InterfaceName":{"SrcName":"fake0","DstPrefix":"weave"},"Gateway":"10.9.0.1","GatewayIPv6":"fd09::1",
		"StaticRoutes":[{"Destination":"10.10.0.0/16","RouteType":0,"NextHop":"10.9.0.3"},{"Destination":"10.11.0.0/16","RouteType":1}]}`)
	a, err := d.Join(ctx, testNetwork, r)
	if err != nil {
		t.Fatal(err)
	}
	want := `{weave0 fake0}  10.9.0.2/24 fd09::2/64 10.9.0.1 fd09::1 [{10.10.0.0/16 10.9.0.3} {10.11.0.0/16 invalid IP}] 02:00:00:00:00:09`
	got := fmt.Sprint("{", a.Interface, " ", a.Keep["link"], "} ", a.HostLink, " ", a.IPv4, " ", a.IPv6, " ", a.Gateway4, " ", a.Gateway6, " ", a.Routes, " ", a.MAC)
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	l, err := r.In.ByName("weave0")
	if err != nil || l.MAC.String() != "02:00:00:00:00:09" {
		t.Errorf("in the container: %+v, %v", l, err)
	}
	create := f.request(t, "CreateEndpoint")
	if i := fmt.Sprint(create["Interface"]); i != "map[Address:10.9.0.2/24 AddressIPv6:fd09::2/64 MacAddress:]" {
		t.Errorf("CreateEndpoint was told %s", i)
	}
	if o := fmt.Sprint(create["Options"].(map[string]any)[keyPortMap]); o != "[map[HostIP: HostPort:8080 HostPortEnd:8080 IP: Port:80 Proto:6]]" {
		t.Errorf("ports: %s", o)
	}
	if k := f.request(t, "Join")["SandboxKey"]; k != r.Key {
		t.Errorf("key %v", k)
	}
	for range 2 {
		if err := d.Leave(ctx, testNetwork, left(r, a)); err != nil {
			t.Error(err)
		}
	}
	if _, err := d.host.ByName("fake0"); err != nil {
		t.Errorf("the link did not come back: %v", err)
	}
	if m := f.methods(); !slices.Equal(m[len(m)-4:], []string{"Leave", "DeleteEndpoint", "Leave", "DeleteEndpoint"}) {
		t.Errorf("%v", m)
	}
}

// What fails in the middle is taken back, and the plugin's link is where it was.
func TestJoinUndone(t *testing.T) {
	for _, c := range []struct {
		what, create, join string
		undone             []string
	}{
		{"other address", `{"Interface":{"Address":"10.9.0.99/24"}}`, ``, []string{"CreateEndpoint", "DeleteEndpoint"}},
		{"bad address", `{"Interface":{"MacAddress":"x"}}`, ``, []string{"CreateEndpoint", "DeleteEndpoint"}},
		{"refused create", `{"Err":"no"}`, ``, []string{"CreateEndpoint"}},
		{"refused join", ``, `{"Err":"no"}`, []string{"CreateEndpoint", "Join", "DeleteEndpoint"}},
		{"no such link", ``, `{"InterfaceName":{"SrcName":"nolink"}}`, []string{"CreateEndpoint", "Join", "Leave", "DeleteEndpoint"}},
		{"bad gateway", ``, `{"Gateway":"x"}`, []string{"CreateEndpoint", "Join", "Leave", "DeleteEndpoint"}},
		{"bad route", ``, `{"StaticRoutes":[{"Destination":"1.2.3.0/24"}]}`, []string{"CreateEndpoint", "Join", "Leave", "DeleteEndpoint"}},
		{"dead in join", ``, `die`, []string{"CreateEndpoint", "Join", "DeleteEndpoint"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			f, d := start(t)
			f.set("CreateEndpoint", c.create)
			f.set("Join", c.join)
			if _, err := d.Join(context.Background(), testNetwork, container(t)); err == nil {
				t.Fatal("no error")
			}
			if m := f.methods()[1:]; !slices.Equal(m, c.undone) {
				t.Errorf("%v, want %v", m, c.undone)
			}
		})
	}
}

func TestWithoutLinkAndPorts(t *testing.T) {
	f, d := start(t)
	ctx := context.Background()
	r := container(t)
	a, err := d.Join(ctx, testNetwork, r)
	if err != nil || a.Interface != "" {
		t.Fatalf("%+v, %v", a, err)
	}
	if err := d.Publish(ctx, testNetwork, left(r, a), r.Ports); err != nil {
		t.Error(err)
	}
	f.request(t, "ProgramExternalConnectivity")
	f.set("RevokeExternalConnectivity", "lack")
	if err := d.Publish(ctx, testNetwork, left(r, a), nil); err != nil {
		t.Error(err)
	}
	f.request(t, "RevokeExternalConnectivity")
	f.set("EndpointOperInfo", `{"Value":{"a":"b"}}`)
	if info, err := d.Info(ctx, testNetwork.ID, r.EndpointID); err != nil || info["a"] != "b" {
		t.Errorf("%v %v", info, err)
	}
	if err := d.Discover(ctx, Node{Address: "10.0.0.1"}, false); err != nil {
		t.Error(err)
	}
	f.request(t, "DiscoverNew")
	f, d = startFor(t, 3*time.Second)
	f.set("Leave", "hang")
	begin := time.Now()
	if err := d.Leave(ctx, testNetwork, left(r, a)); !fault.Is(err, fault.Deadline) || time.Since(begin) > 30*time.Second {
		t.Errorf("a plugin that hangs: %v after %v", err, time.Since(begin))
	}
}

func TestFinder(t *testing.T) {
	f, d := start(t)
	ctx := context.Background()
	finder := NewFinder(d.cfg.Plugins, t.TempDir(), nil)
	defer finder.Close()
	if _, err := finder.Find(ctx, "nobody"); !fault.Is(err, fault.NotFound) || err.Error() != `plugin "nobody" not found` {
		t.Errorf("%v", err)
	}
	one, err := finder.Find(ctx, "fake")
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Create(ctx, testNetwork); err != nil {
		t.Error(err)
	}
	f.server.Close() // the plugin is away, the driver stays
	if two, err := finder.Find(ctx, "fake"); err != nil || two != one {
		t.Errorf("%v %v", two, err)
	}
}

package cni

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"berth/base/fault"
	"berth/kernel/link"
	"berth/kernel/netns"
	"berth/kernel/netns/alone"
	"berth/network/driver"
)

const debianPlugins = "/usr/lib/cni"

func TestMain(m *testing.M) { os.Exit(alone.Main(m)) }

// world is a driver with a plugin directory of the test's own beside Debian's.
type world struct {
	*testing.T
	d       *Driver
	dir     string // for data
	plugins string // directory of the test's own plugins
}

func newWorld(t *testing.T, timeout time.Duration) *world {
	t.Helper()
	alone.Need(t)
	dir := t.TempDir()
	w := &world{T: t, dir: dir, plugins: filepath.Join(dir, "bin")}
	os.Mkdir(w.plugins, 0o755)
	d, err := New(Config{Dir: filepath.Join(dir, "conf"), RunDir: filepath.Join(dir, "run"), Path: []string{w.plugins, debianPlugins},
		ConfDir: filepath.Join(dir, "net.d"), Timeout: timeout, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	w.d = d
	return w
}

// need skips the test where a plugin or program is missing.
func (w *world) need(plugins ...string) {
	w.Helper()
	for _, p := range plugins {
		if _, err := os.Stat(filepath.Join(debianPlugins, p)); err != nil {
			w.Skipf("needs the CNI plugin %s (Debian: containernetworking-plugins): %v", p, err)
		}
	}
}

// script makes a plugin of a shell script.
func (w *world) script(name, text string) {
	w.Helper()
	if err := os.WriteFile(filepath.Join(w.plugins, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		w.Fatal(err)
	}
}

func (w *world) network(name, conf string) driver.Network {
	return driver.Network{ID: name + strings.Repeat("0", 64-len(name)), Name: name, Options: map[string]string{OptConf: strings.ReplaceAll(conf, "DATA", w.dir)}}
}

func (w *world) create(name, conf string) driver.Network {
	w.Helper()
	n := w.network(name, conf)
	if err := w.d.Check(n, nil); err != nil {
		w.Fatal(err)
	}
	if err := w.d.Create(context.Background(), n); err != nil {
		w.Fatal(err)
	}
	return n
}

// container makes a namespace and what is asked for in it.
func (w *world) container(id string) driver.Request {
	w.Helper()
	path := filepath.Join(w.TempDir(), id)
	if err := netns.CreateWith(path, alone.LoopbackUp); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { netns.Remove(path) })
	ns, err := netns.Open(path)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { ns.Close() })
	return driver.Request{SandboxID: id, ContainerID: id, EndpointID: id, Key: path, NS: ns, Interface: "eth0", MAC: driver.MACOf(netip.Addr{}, netip.Addr{})}
}

func (w *world) join(n driver.Network, r driver.Request) (driver.Attachment, driver.Left) {
	w.Helper()
	a, err := w.d.Join(context.Background(), n, r)
	if err != nil {
		w.Fatal(err)
	}
	if !a.Done {
		w.Error("the network would set what the plugins have set")
	}
	return a, left(r, a)
}

func left(r driver.Request, a driver.Attachment) driver.Left {
	return driver.Left{EndpointID: r.EndpointID, SandboxID: r.SandboxID, ContainerID: r.ContainerID, Key: r.Key, NS: r.NS,
		Interface: a.Interface, HostLink: a.HostLink, Keep: a.Keep}
}

func (w *world) leave(n driver.Network, l driver.Left) {
	w.Helper()
	for range 2 {
		if err := w.d.Leave(context.Background(), n, l); err != nil {
			w.Error(err)
		}
	}
}

// in runs a function in the container's namespace.
func in(r driver.Request, f func() error) error { return netns.Do(r.NS, f) }

// dial connects from the container (nil: the host) to a TCP address and gives what is said there.
func hear(r *driver.Request, addr string) (string, error) {
	var c net.Conn
	connect := func() (err error) {
		c, err = net.DialTimeout("tcp", addr, 2*time.Second)
		return err
	}
	err := error(nil)
	if r == nil {
		err = connect()
	} else {
		err = in(*r, connect)
	}
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	b, err := io.ReadAll(c)
	return string(b), err
}

// talk listens in the container and tells everybody who connects his address.
func (w *world) talk(r driver.Request, addr string) {
	w.Helper()
	var l net.Listener
	err := in(r, func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "hello")
			c.Close()
		}
	}()
}

func (w *world) links() []link.Info {
	w.Helper()
	c, err := link.Dial()
	if err != nil {
		w.Fatal(err)
	}
	defer c.Close()
	list, err := c.Links()
	if err != nil {
		w.Fatal(err)
	}
	return list
}

// Debian's bridge, host-local and tuning, in all versions of the specification that they speak.
func TestBridge(t *testing.T) {
	for i, v := range []string{"0.3.1", "0.4.0", "1.0.0"} {
		t.Run(v, func(t *testing.T) {
			w := newWorld(t, time.Minute)
			w.need("bridge", "host-local", "tuning")
			n := w.create("br", fmt.Sprintf(`{"cniVersion":"%s","name":"br%d","plugins":[
				{"type":"bridge","bridge":"cbr%[2]d","isGateway":true,"isDefaultGateway":true,
				 "ipam":{"type":"host-local","dataDir":"DATA/lib","ranges":[[{"subnet":"10.8%[2]d.0.0/24"}],[{"subnet":"fd8%[2]d::/64"}]]},
				 "dns":{"nameservers":["10.0.0.53"],"search":["example"]}},
				{"type":"tuning","mtu":1300,"capabilities":{"mac":true},"dataDir":"DATA/tuning"}]}`, v, i))
			one, two := w.container("one"), w.container("two")
			two.MAC = net.HardwareAddr{2, 0, 0, 0, 0, 9}
			a1, l1 := w.join(n, one)
			a2, l2 := w.join(n, two)
			want := fmt.Sprintf("10.8%[1]d.0.2/24 fd8%[1]d::2/64 10.8%[1]d.0.1 fd8%[1]d::1 eth0 [10.0.0.53] [example]", i)
			if got := fmt.Sprint(a1.IPv4, a1.IPv6, a1.Gateway4, a1.Gateway6, a1.Interface, a1.DNS, a1.Search); strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
				t.Errorf("%s\nwant %s", got, want)
			}
			if a1.HostLink == "" || a1.HostLink == a2.HostLink || len(a1.MAC) != 6 {
				t.Errorf("host links %q %q, MAC %v", a1.HostLink, a2.HostLink, a1.MAC)
			}
			if got := a2.MAC.String(); got != "02:00:00:00:00:09" {
				t.Errorf("MAC %s", got)
			}
			w.talk(two, "0.0.0.0:80")
			if got, err := hear(&one, net.JoinHostPort(a2.IPv4.Addr().String(), "80")); got != "hello" {
				t.Errorf("from one to the other: %q, %v", got, err)
			}
			if got, err := hear(nil, net.JoinHostPort(a2.IPv4.Addr().String(), "80")); got != "hello" {
				t.Errorf("from the host: %q, %v", got, err)
			}
			err := w.d.Verify(context.Background(), n, l1)
			if wrong := v == "0.3.1" && !fault.Is(err, fault.NotImplemented) || v != "0.3.1" && err != nil; wrong {
				t.Errorf("CHECK: %v", err)
			}
			w.leave(n, l1)
			if v != "0.3.1" {
				if err := w.d.Verify(context.Background(), n, l1); err == nil {
					t.Error("CHECK of what is gone found nothing")
				}
			}
			gone := l2
			gone.NS = nil
			w.leave(n, gone)
			if leases, _ := filepath.Glob(w.dir + "/lib/*/10.*"); len(leases) != 0 {
				t.Errorf("addresses still taken: %v", leases)
			}
			if err := w.d.Delete(context.Background(), n); err != nil {
				t.Error(err)
			}
		})
	}
}

// A second network leaves the first one its default route.
func TestDefaultRoute(t *testing.T) {
	w := newWorld(t, time.Minute)
	w.need("bridge", "host-local")
	r := w.container("one")
	c, err := link.DialIn(r.NS)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r.In = c
	for i, first := range []bool{true, false} {
		n := w.create(fmt.Sprint("dr", i), fmt.Sprintf(`{"cniVersion":"1.0.0","name":"dr%[1]d","type":"bridge","bridge":"cbrdr%[1]d","isGateway":true,"isDefaultGateway":true,
			"ipam":{"type":"host-local","dataDir":"DATA/lib","subnet":"10.7%[1]d.0.0/24"}}`, i))
		r.Interface, r.Default = fmt.Sprint("eth", i), first
		a, l := w.join(n, r)
		defer w.leave(n, l)
		if !a.Gateway4.IsValid() {
			t.Error("the gateway is forgotten: it may be needed when the other network goes")
		}
	}
	routes, err := c.Routes()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range routes {
		if x.To.Bits() == 0 {
			got = append(got, x.Via.String())
		}
	}
	if fmt.Sprint(got) != "[10.70.0.1]" {
		t.Errorf("default routes %v", got)
	}
}

func TestStaticAddress(t *testing.T) {
	w := newWorld(t, time.Minute)
	w.need("bridge", "host-local", "static")
	n := w.create("st", `{"cniVersion":"1.0.0","name":"st","type":"bridge","bridge":"cbrs",
		"ipam":{"type":"host-local","dataDir":"DATA/lib","subnet":"10.87.0.0/24"}}`)
	r := w.container("one")
	r.IPv4 = netip.MustParsePrefix("10.87.0.77/32")
	a, l := w.join(n, r)
	if a.IPv4.String() != "10.87.0.77/24" || a.Gateway4.IsValid() {
		t.Errorf("%v, gateway %v", a.IPv4, a.Gateway4)
	}
	w.leave(n, l)

	n = w.create("sa", `{"cniVersion":"1.0.0","name":"sa","plugins":[{"type":"bridge","bridge":"cbrt","capabilities":{"ips":true},"ipam":{"type":"static"}}]}`)
	r = w.container("two")
	r.IPv4, r.IPv6 = netip.MustParsePrefix("10.88.0.5/24"), netip.MustParsePrefix("fd88::5/64")
	a, l = w.join(n, r)
	if a.IPv4 != r.IPv4 || a.IPv6 != r.IPv6 {
		t.Errorf("%v %v", a.IPv4, a.IPv6)
	}
	w.leave(n, l)
}

func TestMacvlanAndPtp(t *testing.T) {
	w := newWorld(t, time.Minute)
	w.need("macvlan", "ptp", "host-local")
	c, err := link.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Do(link.Add(link.Link{Name: "cnim0", Kind: "veth", Peer: &link.Link{Name: "cnim1"}})); err != nil {
		t.Fatal(err)
	}
	defer c.Do(link.DeleteNamed("cnim0").IfThere())
	for _, name := range []string{"cnim0", "cnim1"} {
		l, err := c.ByName(name)
		if err != nil {
			t.Fatal(err)
		}
		c.Do(link.Set(l.Index, link.Change{Up: true}))
	}
	n := w.create("mv", `{"cniVersion":"1.0.0","name":"mv","type":"macvlan","master":"cnim0","mode":"bridge",
		"ipam":{"type":"host-local","dataDir":"DATA/lib","subnet":"10.89.0.0/24"}}`)
	one, two := w.container("one"), w.container("two")
	_, l1 := w.join(n, one)
	a2, l2 := w.join(n, two)
	w.talk(two, "0.0.0.0:80")
	if got, err := hear(&one, net.JoinHostPort(a2.IPv4.Addr().String(), "80")); got != "hello" {
		t.Errorf("macvlan: %q, %v", got, err)
	}
	w.leave(n, l1)
	w.leave(n, l2)

	n = w.create("pp", `{"cniVersion":"1.0.0","name":"pp","type":"ptp","ipam":{"type":"host-local","dataDir":"DATA/lib","subnet":"10.90.0.0/24"}}`)
	r := w.container("three")
	a, l := w.join(n, r)
	w.talk(r, "0.0.0.0:80")
	if got, err := hear(nil, net.JoinHostPort(a.IPv4.Addr().String(), "80")); got != "hello" {
		t.Errorf("ptp: %q, %v", got, err)
	}
	w.leave(n, l)
}

// portmap, firewall and bandwidth need iptables and tc of the kernel.
func TestPortsFirewallBandwidth(t *testing.T) {
	w := newWorld(t, time.Minute)
	w.need("bridge", "host-local", "portmap", "firewall", "bandwidth")
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skipf("needs iptables: %v", err)
	}
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(w.dir, "lock"))
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet"} {
		os.WriteFile("/proc/sys/"+key, []byte("1"), 0o644) // of our own namespace
	}
	n := w.create("pm", `{"cniVersion":"1.0.0","name":"pm","plugins":[
		{"type":"bridge","bridge":"cbrp","isGateway":true,"isDefaultGateway":true,"ipMasq":true,"hairpinMode":true,
		 "ipam":{"type":"host-local","dataDir":"DATA/lib","subnet":"10.91.0.0/24"}},
		{"type":"firewall","backend":"iptables"},
		{"type":"portmap","capabilities":{"portMappings":true},"snat":true},
		{"type":"bandwidth","capabilities":{"bandwidth":true}}]}`)
	r := w.container("one")
	r.Ports = []driver.Port{{Proto: "tcp", HostPort: 8081, Port: 80}}
	r.Rate = 10_000_000
	a, err := w.d.Join(context.Background(), n, r)
	if err != nil && strings.Contains(err.Error(), "ptables") {
		t.Skipf("needs iptables that works here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	l := left(r, a)
	w.talk(r, "0.0.0.0:80")
	gateway := a.Gateway4.String()
	if got, err := hear(nil, gateway+":8081"); got != "hello" {
		t.Errorf("the published port: %q, %v", got, err)
	}
	shaped := false
	for _, l := range w.links() {
		shaped = shaped || strings.HasPrefix(l.Name, "bwp")
	}
	if !shaped {
		t.Error("no link of the bandwidth plugin")
	}
	ctx := context.Background()
	if err := w.d.Publish(ctx, n, l, []driver.Port{{Proto: "tcp", HostPort: 8082, Port: 80}}); err != nil {
		t.Fatal(err)
	}
	if got, err := hear(nil, gateway+":8082"); got != "hello" {
		t.Errorf("the port published later: %q, %v", got, err)
	}
	if got, err := hear(nil, gateway+":8081"); err == nil {
		t.Errorf("the port published before: %q", got)
	}
	w.leave(n, l)
	out, err := exec.Command("iptables", "-t", "nat", "-S").CombinedOutput()
	if err != nil || regexp.MustCompile(`\b8082\b`).Match(out) { // not within the name of a chain
		t.Errorf("rules are left: %v\n%s", err, out)
	}
	if _, err := w.d.Join(ctx, w.create("np", `{"cniVersion":"1.0.0","name":"np","type":"bridge"}`), r); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), capPorts) {
		t.Errorf("ports without portmap: %v", err)
	}
}

func TestDHCP(t *testing.T) {
	w := newWorld(t, 30*time.Second)
	w.need("bridge", "dhcp")
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skipf("needs busybox with udhcpd: %v", err)
	}
	if out, _ := exec.Command(busybox, "--list").Output(); !strings.Contains(string(out), "udhcpd") {
		t.Skip("needs busybox with udhcpd")
	}
	c, err := link.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Do(link.Add(link.Link{Name: "cbrd", Kind: "bridge", Bridge: &link.BridgeOptions{}})); err != nil {
		t.Fatal(err)
	}
	defer c.Do(link.DeleteNamed("cbrd").IfThere())
	l, err := c.ByName("cbrd")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Do(link.Set(l.Index, link.Change{Up: true}), link.AddAddress(l.Index, netip.MustParsePrefix("10.92.0.1/24"))); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(w.dir, "udhcpd.conf")
	os.WriteFile(conf, []byte("start 10.92.0.20\nend 10.92.0.30\ninterface cbrd\nlease_file "+w.dir+"/leases\npidfile "+w.dir+"/pid\noption subnet 255.255.255.0\noption router 10.92.0.1\noption lease 600\n"), 0o644)
	os.WriteFile(filepath.Join(w.dir, "leases"), nil, 0o644)
	socket := filepath.Join(w.dir, "dhcp.sock")
	for _, args := range [][]string{{busybox, "udhcpd", "-f", conf}, {debianPlugins + "/dhcp", "daemon", "-socketpath", socket}} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stderr = t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			cmd.Process.Kill()
			cmd.Wait()
		}()
	}
	for range 3000 {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	n := w.create("dh", `{"cniVersion":"1.0.0","name":"dh","type":"bridge","bridge":"cbrd","ipam":{"type":"dhcp","daemonSocketPath":"DATA/dhcp.sock"}}`)
	a, left := w.join(n, w.container("one"))
	if !netip.MustParsePrefix("10.92.0.0/24").Contains(a.IPv4.Addr()) {
		t.Errorf("address %v", a.IPv4)
	}
	w.leave(n, left)
}

// An engine that died has left attachments: GC gives their addresses back, and plugins of 1.1 are told who is left.
func TestGCAndStatus(t *testing.T) {
	w := newWorld(t, time.Minute)
	w.need("host-local")
	w.script("new", `in=$(cat)
echo "$CNI_COMMAND $CNI_CONTAINERID $in" >> `+w.dir+`/log
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}' ;;
ADD) echo '{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"x"}],"ips":[{"address":"10.93.0.5/24","interface":0}]}' ;;
STATUS) [ -e `+w.dir+`/ready ] || { echo '{"cniVersion":"1.1.0","code":50,"msg":"not yet"}'; exit 1; } ;;
esac
`)
	conf := `{"cniVersion":"1.1.0","name":"new","plugins":[{"type":"new"}]}`
	ctx := context.Background()
	if err := w.d.Create(ctx, w.network("new", conf)); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "not yet") {
		t.Errorf("a plugin that is not ready: %v", err)
	}
	os.WriteFile(w.dir+"/ready", nil, 0o644)
	n := w.create("new", conf)
	if err := w.d.Status(ctx, n); err != nil {
		t.Error(err)
	}
	one, two := w.container("one"), w.container("two")
	_, l1 := w.join(n, one)
	w.join(n, two)
	if err := w.d.GC(ctx, n, []driver.Left{l1}); err != nil {
		t.Fatal(err)
	}
	log, _ := os.ReadFile(w.dir + "/log")
	for _, want := range []string{"DEL two ", `"cni.dev/valid-attachments":[{"containerID":"one","ifname":"eth0"}]`} {
		if !strings.Contains(string(log), want) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
	if strings.Contains(string(log), "DEL one") {
		t.Error("who is left was removed")
	}
	w.leave(n, l1)
}

// A reboot ends containers without DEL: their addresses are given back before the next ADD, and only then.
func TestReboot(t *testing.T) {
	w := newWorld(t, time.Minute)
	w.need("bridge", "host-local")
	n := w.create("rb", `{"cniVersion":"0.3.1","name":"rb","type":"bridge","bridge":"cbrrb","isGateway":true,
		"ipam":{"type":"host-local","dataDir":"DATA/lib","ranges":[[{"subnet":"10.69.0.0/29"}]]}}`)
	for i := range 4 { // of the five addresses that there are
		r := w.container(fmt.Sprint("old", i))
		w.join(n, r)
		r.NS.Close()
		netns.Remove(r.Key)
	}
	again := func() *Driver {
		d, err := New(w.d.cfg)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	w.d = again() // the engine's restart
	_, l := w.join(n, w.container("restarted"))
	w.leave(n, l)
	if leases, _ := filepath.Glob(w.dir + "/lib/rb/10.*"); len(leases) != 4 {
		t.Errorf("a restart of the engine took addresses away: %v are left", leases)
	}
	os.RemoveAll(w.d.cfg.RunDir) // the machine's
	w.d = again()
	errs := make(chan error)
	for i := range 4 {
		r := w.container(fmt.Sprint("new", i))
		go func() {
			_, err := w.d.Join(context.Background(), n, r)
			errs <- err
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if leases, _ := filepath.Glob(w.dir + "/lib/rb/10.*"); len(leases) != 4 {
		t.Errorf("addresses taken: %v", leases)
	}
}

// Plugins that hang, die, babble or refuse: bounded, clear, and DEL is called.
func TestBadPlugins(t *testing.T) {
	w := newWorld(t, time.Minute)
	w.script("bad", `in=$(cat)
echo "$CNI_COMMAND" >> `+w.dir+`/log
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}' ;;
ADD) `+"case \"$CNI_CONTAINERID\" in"+`
  hang) sleep 60 & wait ;;
  die) kill -9 $$ ;;
  babble) yes ;;
  nonsense) echo '<html>' ;;
  refuse) echo '{"cniVersion":"1.0.0","code":11,"msg":"come back","details":"later"}'; exit 1 ;;
  noise) echo "iptables is missing" >&2; exit 1 ;;
  other) echo '{"cniVersion":"9.9.9"}' ;;
  background) echo '{"cniVersion":"1.0.0"}'; sleep 90 & ;;
  esac ;;
esac
`)
	n := w.create("bad", `{"cniVersion":"1.0.0","name":"bad","plugins":[{"type":"bad"}]}`)
	for _, c := range []struct {
		id, text string
		kind     fault.Kind
	}{
		{"hang", "not done within", fault.Deadline},
		{"die", "killed", fault.Internal},
		{"babble", "answered more than", fault.Deadline},
		{"nonsense", "invalid character", fault.Internal},
		{"refuse", "come back; later", fault.Unavailable},
		{"noise", "iptables is missing", fault.Internal},
		{"other", "9.9.9", fault.Internal},
	} {
		os.Remove(w.dir + "/log")
		w.d.cfg.Timeout = time.Minute // in which a plugin answers, on any machine
		if c.kind == fault.Deadline {
			w.d.cfg.Timeout = 3 * time.Second // in which it is asked, and nobody knows when it would be done
		}
		start := time.Now()
		_, err := w.d.Join(context.Background(), n, w.container(c.id))
		if c.id == "babble" && fault.Is(err, fault.Deadline) {
			c.text = "not done within" // nobody ends it but we
		}
		if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v (%v)", c.id, err, fault.KindOf(err))
		}
		if d := time.Since(start); d > 30*time.Second {
			t.Errorf("%s took %v", c.id, d)
		}
		if log, _ := os.ReadFile(w.dir + "/log"); !strings.HasSuffix(string(log), "ADD\nDEL\n") {
			t.Errorf("%s: not taken back: %q", c.id, log)
		}
	}
	w.d.cfg.Timeout = time.Minute
	if a, err := w.d.Join(context.Background(), n, w.container("background")); err != nil || a.Interface != "" {
		t.Errorf("a plugin that leaves a child behind: %+v, %v", a, err)
	}
}

func TestBadConfigurations(t *testing.T) {
	w := newWorld(t, time.Minute)
	w.script("old", `echo '{"cniVersion":"0.3.0","supportedVersions":["0.3.0"]}'`)
	os.MkdirAll(w.d.cfg.ConfDir, 0o755)
	os.WriteFile(filepath.Join(w.d.cfg.ConfDir, "10-found.conflist"), []byte(`{"cniVersion":"1.0.0","name":"found","plugins":[{"type":"loopback"}]}`), 0o644)
	os.WriteFile(filepath.Join(w.dir, "one.conf"), []byte(`{"cniVersion":"1.0.0","name":"one","type":"loopback"}`), 0o644)
	for _, c := range []struct{ conf, want string }{
		{`{`, "unexpected end"},
		{`{}`, "missing 'type'"},
		{`{"cniVersion":"1.0.0","type":"loopback"}`, "no name"},
		{`{"cniVersion":"1.0.0","plugins":[{"type":"loopback"}]}`, "no name"},
		{`{"cniVersion":"1.0.0","name":"x","plugins":[]}`, "no plugins"},
		{`{"cniVersion":"1.0.0","name":"x","plugins":[{}]}`, "missing 'type'"},
		{`{"cniVersion":"0.2.0","name":"x","type":"loopback"}`, "known are 0.3.1 to 1.1.0"},
		{`{"name":"x","type":"loopback"}`, "version 0.1.0"},
		{`{"cniVersion":"2.0.0","name":"x","type":"loopback"}`, "known are"},
		{`{"cniVersion":"new","name":"x","type":"loopback"}`, "new"},
		{`{"cniVersion":"1.0.0","name":"x","type":"../../bin/sh"}`, "no name of a plugin"},
		{`{"cniVersion":"1.0.0","name":"x","type":"absent"}`, `failed to find plugin "absent"`},
		{`{"cniVersion":"1.0.0","name":"x","type":"old"}`, "does not support"},
		{"/nowhere/x.conf", "no such file"},
		{"nobody", `no CNI configuration "nobody"`},
		{"", `no CNI configuration "net"`},
	} {
		n := w.network("net", c.conf)
		err := w.d.Create(context.Background(), n)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.conf, err, c.want)
		}
		if _, err := w.d.Join(context.Background(), n, driver.Request{}); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: something was made: %v", c.conf, err)
		}
	}
	if _, err := os.Stat(debianPlugins + "/loopback"); err == nil {
		for _, conf := range []string{"found", "DATA/one.conf"} {
			w.create(strings.ReplaceAll(conf, "/", ""), conf)
		}
		w.create("found", "")
	}
}

func TestArguments(t *testing.T) {
	got, err := arguments("A=b;C=d=e;")
	if err != nil || fmt.Sprint(got) != "[[A b] [C d=e]]" {
		t.Errorf("%v %v", got, err)
	}
	if _, err := arguments("A"); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func FuzzConfAndResult(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"bridge"}]}`))
	f.Add([]byte(`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"x"}],"ips":[{"address":"10.0.0.5/24","interface":0}],"routes":[{"dst":"0.0.0.0/0"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		parse(b)
		var r current.Result
		if json.Unmarshal(b, &r) == nil {
			r.CNIVersion = "1.0.0"
			attachment(types.Result(&r), driver.Request{Interface: "eth0"})
		}
	})
}

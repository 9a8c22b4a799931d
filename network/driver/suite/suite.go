// Package suite is what every network driver must do, as tests that each driver's package runs.
package suite

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/base/fault"
	"berth/base/id"
	"berth/kernel/link"
	"berth/kernel/netns"
	"berth/kernel/netns/alone"
	"berth/network/driver"
)

// Setup is a driver with a network that it can make. Network's pools have room for the two endpoints .2 and .3.
type Setup struct {
	Driver  driver.Driver
	Network driver.Network
}

// Run tests a driver; setup is called for each test, in a namespace that is the test's own.
func Run(t *testing.T, setup func(t *testing.T) Setup) {
	for name, f := range map[string]func(*testing.T, *world){
		"create twice, delete twice": createTwice, "join and leave": joinAndLeave, "leave without namespace": leaveLate,
		"leave what never came": leaveNothing, "a restart keeps what runs": restart, "a join that fails leaves nothing": failedJoin,
	} {
		t.Run(name, func(t *testing.T) {
			alone.Need(t)
			conn, err := link.Dial()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			s := setup(t)
			w := &world{Setup: s, conn: conn, before: links(t, conn)}
			t.Cleanup(func() { s.Driver.Delete(context.Background(), s.Network) })
			f(t, w)
		})
	}
}

type world struct {
	Setup
	conn   *link.Conn
	before []string // links of the host
}

var ctx = context.Background()

func links(t *testing.T, c *link.Conn) (names []string) {
	t.Helper()
	list, err := c.Links()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		names = append(names, l.Name)
	}
	slices.Sort(names)
	return names
}

// create makes the network, or skips where the kernel cannot.
func (w *world) create(t *testing.T) {
	t.Helper()
	if err := w.Driver.Check(w.Network, nil); err != nil {
		t.Fatal(err)
	}
	err := w.Driver.Create(ctx, w.Network)
	if fault.Is(err, fault.NotImplemented) {
		t.Skipf("needs a kernel facility: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// clean waits until the host's links are as before the network was made.
func (w *world) clean(t *testing.T) {
	t.Helper()
	var got []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if got = links(t, w.conn); slices.Equal(got, w.before) {
			return
		}
	}
	t.Errorf("links are left: %v, before %v", got, w.before)
}

// end is one container.
type end struct {
	request driver.Request
	got     driver.Attachment
	path    string
}

// container makes a namespace and what would be asked for a container in it.
func (w *world) container(t *testing.T, number byte) *end {
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
	in, err := link.DialIn(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); ns.Close() })
	r := driver.Request{
		EndpointID: id.New(), SandboxID: id.New(), ContainerID: id.New(), ContainerName: "c", Key: path, NS: ns, In: in, Interface: "eth0",
	}
	for _, p := range w.Network.Pools {
		b := p.Subnet.Addr().AsSlice()
		b[len(b)-1] = number
		a, _ := netip.AddrFromSlice(b)
		if a.Is4() {
			r.IPv4, r.Gateway4 = netip.PrefixFrom(a, p.Subnet.Bits()), p.Gateway
		} else {
			r.IPv6, r.Gateway6 = netip.PrefixFrom(a, p.Subnet.Bits()), p.Gateway
		}
	}
	r.MAC = driver.MACOf(r.IPv4.Addr(), r.IPv6.Addr())
	return &end{request: r, path: path}
}

func (w *world) join(t *testing.T, e *end) {
	t.Helper()
	a, err := w.Driver.Join(ctx, w.Network, e.request)
	if fault.Is(err, fault.NotImplemented) {
		t.Skipf("needs a kernel facility: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	e.got = a
}

func (e *end) left(ending bool) driver.Left {
	return driver.Left{
		EndpointID: e.request.EndpointID, SandboxID: e.request.SandboxID, ContainerID: e.request.ContainerID, ContainerName: "c", Key: e.path,
		NS: e.request.NS, Interface: e.got.Interface, HostLink: e.got.HostLink, IPv4: e.got.IPv4, IPv6: e.got.IPv6, Keep: e.got.Keep, Ending: ending,
	}
}

func createTwice(t *testing.T, w *world) {
	w.create(t)
	w.create(t)
	for range 2 {
		if err := w.Driver.Delete(ctx, w.Network); err != nil {
			t.Error(err)
		}
	}
	w.clean(t)
}

// joinAndLeave looks at what is in the namespace: the link that the attachment names, with the hardware address that it
// says, and nothing of it after Leave.
func joinAndLeave(t *testing.T, w *world) {
	w.create(t)
	a, b := w.container(t, 2), w.container(t, 3)
	w.join(t, a)
	w.join(t, b)
	for _, e := range []*end{a, b} {
		if e.got.Interface == "" {
			continue
		}
		l, err := e.request.In.ByName(e.got.Interface)
		if err != nil {
			t.Fatal(err)
		}
		if len(e.got.MAC) > 0 && l.MAC.String() != e.got.MAC.String() {
			t.Errorf("%s, the attachment says %s", l.MAC, e.got.MAC)
		}
		if w.Driver.Traits().Addresses && (e.got.IPv4 != e.request.IPv4 || e.got.IPv6 != e.request.IPv6) {
			t.Errorf("addresses changed: %v %v", e.got.IPv4, e.got.IPv6)
		}
		if e.got.HostLink != "" && !slices.Contains(links(t, w.conn), e.got.HostLink) {
			t.Errorf("no link %s on the host", e.got.HostLink)
		}
	}
	for _, e := range []*end{a, b} {
		for range 2 {
			if err := w.Driver.Leave(ctx, w.Network, e.left(false)); err != nil {
				t.Error(err)
			}
		}
		if got := links(t, e.request.In); !slices.Equal(got, []string{"lo"}) && e.got.Interface != "" {
			t.Errorf("in the namespace: %v", got)
		}
	}
	if err := w.Driver.Delete(ctx, w.Network); err != nil {
		t.Error(err)
	}
	w.clean(t)
}

// leaveLate takes a container away whose namespace is about to go, and one whose namespace is gone.
func leaveLate(t *testing.T, w *world) {
	w.create(t)
	a, b := w.container(t, 2), w.container(t, 3)
	w.join(t, a)
	w.join(t, b)
	if err := w.Driver.Leave(ctx, w.Network, a.left(true)); err != nil {
		t.Error(err)
	}
	for _, e := range []*end{a, b} {
		e.request.In.Close()
		e.request.NS.Close()
		if err := netns.Remove(e.path); err != nil {
			t.Fatal(err)
		}
	}
	l := b.left(true)
	l.NS = nil
	if err := w.Driver.Leave(ctx, w.Network, l); err != nil {
		t.Error(err)
	}
	if err := w.Driver.Delete(ctx, w.Network); err != nil {
		t.Error(err)
	}
	w.clean(t)
}

func leaveNothing(t *testing.T, w *world) {
	w.create(t)
	a := w.container(t, 2)
	for _, ending := range []bool{false, true} {
		if err := w.Driver.Leave(ctx, w.Network, a.left(ending)); err != nil {
			t.Errorf("an endpoint that is not there, ending %v: %v", ending, err)
		}
	}
}

// restart makes the network again while a container is on it.
func restart(t *testing.T, w *world) {
	w.create(t)
	a := w.container(t, 2)
	w.join(t, a)
	w.create(t)
	if a.got.Interface == "" {
		return
	}
	if _, err := a.request.In.ByName(a.got.Interface); err != nil {
		t.Errorf("the container's link is gone: %v", err)
	}
	if err := w.Driver.Leave(ctx, w.Network, a.left(false)); err != nil {
		t.Error(err)
	}
}

// failedJoin asks for an interface whose name is taken.
func failedJoin(t *testing.T, w *world) {
	w.create(t)
	made := links(t, w.conn)
	a := w.container(t, 2)
	if err := a.request.In.Do(link.Add(link.Link{Name: "eth0", Kind: "veth", Peer: &link.Link{Name: "eth9"}})); err != nil {
		t.Fatal(err)
	}
	got, err := w.Driver.Join(ctx, w.Network, a.request)
	if fault.Is(err, fault.NotImplemented) {
		t.Skipf("needs a kernel facility: %v", err)
	}
	if err == nil && got.Interface != "" {
		t.Fatal("two links have one name")
	}
	if now := links(t, w.conn); !slices.Equal(now, made) {
		t.Errorf("links are left: %s", strings.Join(now, " "))
	}
}

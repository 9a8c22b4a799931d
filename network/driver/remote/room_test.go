package remote

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"berth/base/id"
	"berth/kernel/link"
	"berth/kernel/netns"
	"berth/network"
)

// The room of networks with a plugin as a driver: the plugin's link gets the room's address and the plugin's gateway, and comes back.
func TestInTheRoom(t *testing.T) {
	f, d := start(t)
	ctx := context.Background()
	off := false
	dir := t.TempDir()
	n, err := network.Open(ctx, network.Config{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Firewall: &off, DefaultBridge: "none"})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	n.AddDriver(ctx, "fake", d)
	veth(t, "fakeroom")
	f.answers["Join"] = `{"InterfaceName":{"SrcName":"fakeroom","DstPrefix":"eth"},"Gateway":"10.95.0.1","StaticRoutes":[{"Destination":"10.96.0.0/16","RouteType":1}]}`
	made, _, err := n.Create(ctx, network.CreateRequest{Name: "blue", Driver: "fake",
		IPAM: network.IPAM{Pools: []network.Pool{{Subnet: netip.MustParsePrefix("10.95.0.0/24")}}}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.Join(ctx, network.Want{ContainerID: id.New(), Name: "one", Mode: "blue", Endpoints: []network.EndpointSpec{{Network: "blue"}}})
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.Open(b.Key)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	in, err := link.DialIn(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	l, err := in.ByName("eth0")
	if err != nil || !l.Up {
		t.Fatalf("%+v, %v", l, err)
	}
	addresses, err := in.Addresses(l.Index)
	if err != nil || !slices.ContainsFunc(addresses, func(a link.Address) bool { return fmt.Sprint(a.Prefix) == "10.95.0.2/24" }) {
		t.Errorf("%+v, %v", addresses, err)
	}
	routes, err := in.Routes()
	if err != nil || !slices.ContainsFunc(routes, func(r link.Route) bool { return r.Via.String() == "10.95.0.1" }) {
		t.Errorf("%+v, %v", routes, err)
	}
	if err := n.Leave(ctx, b.ContainerID); err != nil {
		t.Error(err)
	}
	if err := n.Remove(ctx, made.ID); err != nil {
		t.Error(err)
	}
	want := []string{"Leave", "DeleteEndpoint", "DeleteNetwork"}
	if m := f.methods(); !slices.Equal(m[len(m)-3:], want) {
		t.Errorf("asked %v", m)
	}
	if _, err := d.host.ByName("fakeroom"); err != nil {
		t.Errorf("the plugin's link did not come back: %v", err)
	}
}

package cni

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"berth/base/id"
	"berth/kernel/netns"
	"berth/network"
)

// The room of networks with this driver plugged in: two containers find each other by name over a plugin's bridge, also after the
// engine's restart.
func TestInTheRoom(t *testing.T) {
	w := newWorld(t, time.Minute)
	w.need("bridge", "host-local")
	ctx := context.Background()
	off := false
	cfg := network.Config{Root: filepath.Join(w.dir, "networks"), RunRoot: filepath.Join(w.dir, "net"), Firewall: &off, DefaultBridge: "none"}
	open := func() *network.Networks {
		t.Helper()
		n, err := network.Open(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		n.AddDriver(ctx, "cni", w.d)
		return n
	}
	n := open()
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"room","plugins":[{"type":"bridge","bridge":"cbrr","isGateway":true,"isDefaultGateway":true,
		"ipam":{"type":"host-local","dataDir":"%s/lib","subnet":"10.94.0.0/24"}}]}`, w.dir)
	made, _, err := n.Create(ctx, network.CreateRequest{Name: "room", Driver: "cni", Options: map[string]string{OptConf: conf}})
	if err != nil {
		t.Fatal(err)
	}
	var boxes []network.Sandbox
	for _, name := range []string{"one", "two"} {
		want := network.Want{ContainerID: id.New(), Name: name, Mode: "room", Endpoints: []network.EndpointSpec{{Network: "room"}}}
		b, err := n.Join(ctx, want)
		if err != nil {
			t.Fatal(err)
		}
		boxes = append(boxes, b)
	}
	if a := boxes[1].Endpoints[0]; a.IPv4 != netip.MustParsePrefix("10.94.0.3/24") || a.Gateway4 != netip.MustParseAddr("10.94.0.1") || a.MAC == "" {
		t.Errorf("%+v", a)
	}
	resolve := func() string {
		t.Helper()
		ns, err := netns.Open(boxes[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		v4, _, known := n.Lookup(boxes[0].ID, "two")
		if !known || len(v4) != 1 {
			return "unknown"
		}
		return v4[0].String()
	}
	if got := resolve(); got != "10.94.0.3" {
		t.Errorf("two is %s", got)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	n = open()
	defer n.Close()
	n.Recovered(func(string) bool { return true })
	if got := resolve(); got != "10.94.0.3" {
		t.Errorf("after the restart two is %s", got)
	}
	for _, b := range boxes {
		if err := n.Leave(ctx, b.ContainerID); err != nil {
			t.Error(err)
		}
	}
	for range 100 { // the slow part of leaving is done behind
		leases, _ := filepath.Glob(w.dir + "/lib/room/10.*")
		if len(leases) == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if leases, _ := filepath.Glob(w.dir + "/lib/room/10.*"); len(leases) != 0 {
		t.Errorf("addresses still taken: %v", leases)
	}
	if err := n.Remove(ctx, made.ID); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(w.d.cfg.Dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

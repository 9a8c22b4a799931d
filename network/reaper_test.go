package network

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"berth/kernel/link"
	"berth/kernel/netns/alone"
)

// TestReaper lets links be in the way that do not go by themselves: who wants to make new ones waits until they are
// deleted, or gives up with his context.
func TestReaper(t *testing.T) {
	alone.Need(t)
	c, err := link.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Do(link.Add(link.Link{Name: "stay0", Kind: "bridge"})); err != nil {
		t.Fatal(err)
	}
	defer c.Do(link.DeleteNamed("stay0").IfThere())
	r := startReaper(c, slog.New(slog.DiscardHandler))
	defer r.close()
	r.add("stay0")
	for i := range maxGoing {
		r.add(fmt.Sprintf("gone%d", i))
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.wait(short); err == nil {
		t.Error("nobody waits while much is going")
	}
	if err := r.wait(t.Context()); err != nil {
		t.Error(err)
	}
	soon(t, "all is gone", func() bool { return r.count() == 0 })
	if _, err := c.ByName("stay0"); err == nil {
		t.Error("the link that did not go by itself is there")
	}
}

func TestNoDefaultNetwork(t *testing.T) {
	h := newRoom(t, func(c *Config) { c.DefaultBridge = "none" })
	if _, err := h.Get("bridge"); err == nil {
		t.Error("there is a default network")
	}
	for _, l := range h.links() {
		if l == "docker0" {
			t.Error("there is a bridge")
		}
	}
	h.create(CreateRequest{Name: "own"})
	h.join(want("a", "own"))
	h.cfg.DefaultBridge = ""
	h.reopen()
	if _, err := h.Get("bridge"); err != nil {
		t.Error(err)
	}
	h.cfg.DefaultBridge = "none"
	h.reopen()
	if _, err := h.Get("bridge"); err == nil {
		t.Error("there is a default network again")
	}
}

// TestUsersBridge makes the default network of a bridge of the user's, with its address.
func TestUsersBridge(t *testing.T) {
	alone.Need(t)
	c, err := link.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Do(link.Add(link.Link{Name: "lan7", Kind: "bridge", Up: true})); err != nil {
		t.Fatal(err)
	}
	defer c.Do(link.DeleteNamed("lan7").IfThere())
	l, err := c.ByName("lan7")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Do(link.AddAddress(l.Index, prefix("10.77.0.5/24"))); err != nil {
		t.Fatal(err)
	}
	h := newRoom(t, func(c *Config) { c.DefaultBridge = "lan7" })
	n, err := h.Get("bridge")
	if err != nil || n.IPAM.Pools[0].Subnet != prefix("10.77.0.0/24") || n.IPAM.Pools[0].Gateway != addr("10.77.0.5") {
		t.Error(show(n), err)
	}
	if s := h.join(want("a", "bridge")); s.Endpoints[0].IPv4 != prefix("10.77.0.1/24") || s.Endpoints[0].Gateway4 != addr("10.77.0.5") {
		t.Error(show(s))
	}
	h.reopen()
	h.cfg.DefaultBridge = "none"
	h.reopen()
	if _, err := c.ByName("lan7"); err != nil {
		t.Errorf("the user's bridge is gone: %v", err)
	}
}

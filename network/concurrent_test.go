package network

import (
	"fmt"
	"sync"
	"testing"

	"berth/base/fault"
)

// TestConcurrent lets many containers come, change and go at once, while networks do, and looks for what is left.
func TestConcurrent(t *testing.T) {
	h := newRoom(t, nil)
	h.create(CreateRequest{Name: "own", IPAM: subnet("10.1.1.0/24")})
	before := h.links()
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for k := range 4 {
				w := want(fmt.Sprintf("c%d-%d", i, k), "bridge")
				w.Ports = []PortSpec{{Port: 80, Proto: "tcp"}}
				s, err := h.Join(ctx, w)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := h.Connect(ctx, w, EndpointSpec{Network: "own"}); err != nil && !fault.Is(err, fault.NotFound) {
					t.Error(err)
				}
				h.Lookup(s.ID, w.Name)
				h.Rename(w.ContainerID, w.Name+"x")
				if _, err := h.Publish(ctx, w, []PortSpec{{Port: 81, Proto: "udp"}}, nil); err != nil {
					t.Error(err)
				}
				if k%2 == 0 {
					if err := h.Disconnect(ctx, w.ContainerID, "bridge", false); err != nil {
						t.Error(err)
					}
				}
				h.Endpoints(s.Endpoints[0].NetworkID)
				if err := h.Leave(ctx, w.ContainerID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for k := range 4 {
			name := fmt.Sprintf("n%d", k)
			if _, _, err := h.Create(ctx, CreateRequest{Name: name}); err != nil {
				t.Error(err)
			}
			h.List()
			if err := h.Remove(ctx, name); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for range 20 {
			if err := h.Remove(ctx, "own"); err == nil {
				if _, _, err := h.Create(ctx, CreateRequest{Name: "own", IPAM: subnet("10.1.1.0/24")}); err != nil {
					t.Error(err)
				}
			} else if !fault.Is(err, fault.Forbidden) && !fault.Is(err, fault.NotFound) {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	soon(t, "links are as before", func() bool { return len(h.links()) == len(before) })
	if h.ports.Count() != 0 || len(h.boxes) != 0 {
		t.Errorf("left: %d ports, %d sandboxes", h.ports.Count(), len(h.boxes))
	}
	x := h.named("bridge")
	if len(x.endpoints) != 0 {
		t.Errorf("left: %v", x.endpoints)
	}
}

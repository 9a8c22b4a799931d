package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/base/fault"
	"berth/base/plugin"
)

// lender is a plugin that lends 10.N.0.0/16 and counts up.
type lender struct {
	mu    sync.Mutex
	pools int
	next  byte
	live  []string
	last  map[string]any
	lacks string
	fails string
}

func (l *lender) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	method := strings.TrimPrefix(r.URL.Path, "/IpamDriver.")
	l.last = nil
	json.NewDecoder(r.Body).Decode(&l.last)
	switch method {
	case l.lacks:
		http.NotFound(w, r)
	case l.fails:
		io.WriteString(w, `{"Error":"the shelf is bare"}`)
	case "/Plugin.Activate":
		io.WriteString(w, `{"Implements":["IpamDriver"]}`)
	case "GetCapabilities":
		io.WriteString(w, `{"RequiresMACAddress":true}`)
	case "GetDefaultAddressSpaces":
		io.WriteString(w, `{"LocalDefaultAddressSpace":"here","GlobalDefaultAddressSpace":"everywhere"}`)
	case "RequestPool":
		pool := fmt.Sprintf("10.%d.0.0/16", l.pools)
		l.pools++
		if asked := l.last["Pool"].(string); asked != "" {
			pool = asked
		}
		l.live = append(l.live, pool)
		fmt.Fprintf(w, `{"PoolID":%q,"Pool":%q,"Data":{"com.docker.network.gateway":"10.0.0.1/16"}}`, pool, pool)
	case "ReleasePool":
		l.live = slices.DeleteFunc(l.live, func(p string) bool { return p == l.last["PoolID"] })
		io.WriteString(w, `{}`)
	case "RequestAddress":
		l.next++
		a := fmt.Sprintf("10.0.0.%d", l.next)
		if asked, _ := l.last["Address"].(string); asked != "" && asked != "10.0.0.66" {
			a = asked
		}
		fmt.Fprintf(w, `{"Address":"%s/16"}`, a)
	default:
		io.WriteString(w, `{}`)
	}
}

func start(t *testing.T) (*lender, *IPAM) {
	t.Helper()
	dir := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(dir, "lend.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l := &lender{}
	server := &http.Server{Handler: l}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	plugins := plugin.New(plugin.Config{Sockets: dir, Specs: []string{}, Wait: time.Minute, Timeout: time.Minute})
	t.Cleanup(plugins.Close)
	return l, New(plugins, "lend")
}

func TestLife(t *testing.T) {
	l, i := start(t)
	ctx := context.Background()
	p, err := i.RequestPool(ctx, PoolRequest{Options: map[string]string{"a": "b"}})
	if err != nil || p.Subnet.String() != "10.0.0.0/16" || p.Gateway.String() != "10.0.0.1" || p.ID != "10.0.0.0/16" {
		t.Fatalf("%+v, %v", p, err)
	}
	if l.last["AddressSpace"] != "here" {
		t.Errorf("asked %v", l.last)
	}
	g, err := i.RequestGateway(ctx, p.ID, p.Gateway)
	if err != nil || g.String() != "10.0.0.1/16" || fmt.Sprint(l.last["Options"]) != "map[RequestAddressType:com.docker.network.gateway]" {
		t.Errorf("%v, %v, asked %v", g, err, l.last)
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	a, err := i.RequestAddress(ctx, p.ID, netip.Addr{}, mac, map[string]string{"k": "v"})
	if err != nil || a.String() != "10.0.0.2/16" || fmt.Sprint(l.last["Options"]) != "map[com.docker.network.endpoint.macaddress:02:00:00:00:00:01 k:v]" {
		t.Errorf("%v, %v, asked %v", a, err, l.last)
	}
	if _, err := i.RequestAddress(ctx, p.ID, netip.MustParseAddr("10.0.0.66"), nil, nil); err == nil {
		t.Error("another address than asked for was taken")
	}
	if err := i.ReleaseAddress(ctx, p.ID, a.Addr()); err != nil || l.last["Address"] != "10.0.0.2" {
		t.Errorf("%v, asked %v", err, l.last)
	}
	if err := i.ReleasePool(ctx, p.ID); err != nil || len(l.live) != 0 {
		t.Errorf("%v, live %v", err, l.live)
	}
}

// A pool of the plugin's choice that is in use is held until a clear one comes, then released.
func TestOverlap(t *testing.T) {
	l, i := start(t)
	ctx := context.Background()
	used := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/15"), netip.MustParsePrefix("10.2.3.0/24")}
	p, err := i.RequestPool(ctx, PoolRequest{Exclude: used})
	if err != nil || p.Subnet.String() != "10.3.0.0/16" || len(l.live) != 1 {
		t.Errorf("%+v, %v, live %v", p, err, l.live)
	}
	if p, err := i.RequestPool(ctx, PoolRequest{Subnet: netip.MustParsePrefix("10.0.0.0/16"), Exclude: used}); err != nil || p.Subnet.String() != "10.0.0.0/16" {
		t.Errorf("the user's own: %+v, %v", p, err)
	}
	l.live = nil
	if _, err := i.RequestPool(ctx, PoolRequest{Exclude: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}); !fault.Is(err, fault.Conflict) || len(l.live) != 0 {
		t.Errorf("nothing clear: %v, live %v", err, l.live)
	}
}

func TestRefusals(t *testing.T) {
	l, i := start(t)
	ctx := context.Background()
	l.fails = "RequestPool"
	if _, err := i.RequestPool(ctx, PoolRequest{}); err == nil || err.Error() != "remote: the shelf is bare" {
		t.Errorf("%v", err)
	}
	l.lacks = "GetCapabilities"
	if c, err := i.Capabilities(ctx); err != nil || c.RequiresMACAddress {
		t.Errorf("a plugin without capabilities: %+v, %v", c, err)
	}
	if _, err := New(plugin.New(plugin.Config{Sockets: t.TempDir(), Specs: []string{}}), "x").RequestPool(ctx, PoolRequest{}); !fault.Is(err, fault.NotFound) {
		t.Errorf("no plugin: %v", err)
	}
}

package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	containertypes "github.com/moby/moby/api/types/container"

	"berth/base/event"
	"berth/base/fault"
	"berth/base/removal"
	"berth/engine/container"
	"berth/network"
	"berth/network/firewall"
	"berth/network/ipam"
	"berth/volume"
)

// nets stands for the network room: bridge, host, and "front" with "web" on it, and "idle" with nobody.
type nets struct {
	mu    sync.Mutex
	all   []network.Network
	calls []string
	fail  error
}

func newNets() *nets {
	front := strings.Repeat("f1", 32)
	return &nets{all: []network.Network{
		{ID: strings.Repeat("b1", 32), Name: "bridge", Created: at, Driver: "bridge", IPv4: true, IPAM: network.IPAM{Driver: "default", Pools: []network.Pool{{Subnet: netip.MustParsePrefix("172.17.0.0/16"), Gateway: netip.MustParseAddr("172.17.0.1")}}},
			Options: map[string]string{"com.docker.network.bridge.name": "docker0"}},
		{ID: strings.Repeat("a0", 32), Name: "host", Created: at, Driver: "host", IPv4: true},
		{ID: front, Name: "front", Created: at, Driver: "bridge", IPv4: true, IPv6: true, Internal: true, Labels: map[string]string{"tier": "web"}, ConfigFrom: "",
			IPAM: network.IPAM{Driver: "default", Options: map[string]string{}, Pools: []network.Pool{
				{Subnet: netip.MustParsePrefix("10.9.0.0/24"), Range: netip.MustParsePrefix("10.9.0.128/25"), Gateway: netip.MustParseAddr("10.9.0.1"), Aux: map[string]netip.Addr{"router": netip.MustParseAddr("10.9.0.2")}},
				{Subnet: netip.MustParsePrefix("fd00:9::/64"), Gateway: netip.MustParseAddr("fd00:9::1")},
			}}},
		{ID: strings.Repeat("1d", 32), Name: "idle", Created: at.Add(-48 * time.Hour), Driver: "macvlan", IPv4: true},
	}}
}

func (n *nets) note(verb string, args ...any) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range args {
		b, _ := json.Marshal(a)
		verb += " " + string(b)
	}
	n.calls = append(n.calls, verb)
	return n.fail
}
func (n *nets) Create(_ context.Context, r network.CreateRequest) (network.Network, string, error) {
	return network.Network{ID: strings.Repeat("c0", 32), Name: r.Name}, "", n.note("create", r)
}
func (n *nets) Get(ref string) (network.Network, error) {
	for _, x := range n.all {
		if x.Name == ref || strings.HasPrefix(x.ID, ref) {
			return x, nil
		}
	}
	return network.Network{}, fault.New(fault.NotFound, "network %s not found", ref)
}
func (n *nets) List() []network.Network { return n.all }
func (n *nets) Remove(_ context.Context, ref string) error {
	if _, err := n.Get(ref); err != nil {
		return err
	}
	return n.note("remove", ref)
}
func (n *nets) Endpoints(id string) []network.Endpoint {
	if id != strings.Repeat("f1", 32) {
		return nil
	}
	return []network.Endpoint{{ID: strings.Repeat("e1", 32), NetworkID: id, NetworkName: "front", MAC: "02:42:0a:09:00:05", Container: "web", ContainerID: webID,
		IPv4: netip.MustParsePrefix("10.9.0.130/24"), IPv6: netip.MustParsePrefix("fd00:9::5/64")}}
}
func (n *nets) Drivers() []string { return []string{"bridge", "host"} }
func (n *nets) Pools() []ipam.PoolSpec {
	return []ipam.PoolSpec{{Base: netip.MustParsePrefix("10.0.0.0/8"), Size: 24}}
}
func (n *nets) Firewall() string { return "nftables" }
func (n *nets) Audit() []firewall.Exposure {
	return []firewall.Exposure{{ContainerID: webID, NetworkID: n.all[2].ID, Network: "front", Proto: "tcp", Port: 80, Target: netip.MustParseAddr("10.9.0.130"), Host: "0.0.0.0:8080", Reach: firewall.ReachAnywhere, Rule: "tcp dport 8080"}}
}
func (n *nets) Rules() string { return "table inet berth {\n}\n" }

// shelf stands for the volume room.
type shelf struct {
	mu    sync.Mutex
	all   []volume.Volume
	calls []string
	fail  map[string]error
}

func newShelf() *shelf {
	return &shelf{fail: map[string]error{}, all: []volume.Volume{
		{Name: "data", Driver: "local", Created: at, Labels: map[string]string{"a": "b"}, Mountpoint: "/v/data/_data"},
		{Name: "free", Driver: "local", Created: at, Mountpoint: "/v/free/_data"},
		{Name: strings.Repeat("0a", 32), Driver: "local", Created: at, Anonymous: true, Mountpoint: "/v/0a/_data"},
		{Name: "share", Driver: "local", Created: at, Options: map[string]string{"type": "nfs"}},
		{Name: "remote", Driver: "plug", Created: at, Status: map[string]any{"up": true}},
	}}
}

func (v *shelf) note(verb string, args ...any) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	text := verb
	for _, a := range args {
		b, _ := json.Marshal(a)
		text += " " + string(b)
	}
	v.calls = append(v.calls, text)
	return v.fail[verb]
}
func (v *shelf) Create(_ context.Context, r volume.CreateRequest) (volume.Volume, error) {
	made := volume.Volume{Name: r.Name, Driver: "local", Created: at, Labels: r.Labels, Options: r.Options, Mountpoint: "/v/" + r.Name + "/_data"}
	if r.Name == "" {
		made.Name, made.Anonymous = strings.Repeat("0b", 32), true
	}
	err := v.note("create", r)
	if err == nil {
		v.all = append(v.all, made)
	}
	return made, err
}
func (v *shelf) Get(_ context.Context, name string) (volume.Volume, error) {
	for _, x := range v.all {
		if x.Name == name {
			return x, nil
		}
	}
	return volume.Volume{}, fault.New(fault.NotFound, "get %s: no such volume", name)
}
func (v *shelf) List(context.Context) ([]volume.Volume, []string, error) {
	return v.all, nil, v.fail["list"]
}
func (v *shelf) Remove(_ context.Context, name string, force bool) error {
	if _, err := v.Get(context.Background(), name); err != nil {
		return err
	}
	return v.note("remove", name, force)
}
func (v *shelf) PlanPrune(_ context.Context, keep func(volume.Volume) string, gone func(string) bool) (*removal.Plan, error) {
	p := removal.NewPlan(at)
	for _, x := range v.all {
		if x.Driver != "local" || len(x.Options) > 0 || x.Name == "data" && (gone == nil || !gone(webID)) || keep(x) != "" {
			continue
		}
		p.Remove = append(p.Remove, removal.Item{Kind: removal.Volume, ID: x.Name, Name: x.Name, Look: x.Name, Size: 10})
		p.Reclaimable += 10
	}
	removal.Sort(p.Remove)
	return p, v.note("plan")
}
func (v *shelf) ApplyPrune(_ context.Context, p *removal.Plan) (out removal.Outcome, err error) {
	for _, i := range removal.Of(p.Remove, removal.Volume) {
		if i.Look != i.Name {
			out.Skip(i, "its content has changed")
			continue
		}
		out.Done(i)
	}
	return out, v.note("prune", removedIDs(out))
}
func (v *shelf) Size(context.Context, string) (int64, error) { return 10, v.fail["size"] }
func (v *shelf) Export(_ context.Context, name string, w io.Writer) error {
	if err := v.fail["export"]; err != nil {
		return err
	}
	_, _ = io.WriteString(w, "tar of "+name)
	return v.fail["export late"]
}
func (v *shelf) Import(_ context.Context, name string, r io.Reader) error {
	data, _ := io.ReadAll(r)
	err := v.note("import", name, string(data))
	if _, there := v.Get(context.Background(), name); err == nil && there != nil {
		v.all = append(v.all, volume.Volume{Name: name, Driver: "local", Created: at})
	}
	return err
}
func (v *shelf) Drivers() []string { return []string{"local"} }
func (v *shelf) Clone(_ context.Context, from, to string) error {
	return v.derived("clone", from, to)
}
func (v *shelf) Snapshot(_ context.Context, from, to string) error {
	return v.derived("snapshot", from, to)
}
func (v *shelf) Rename(_ context.Context, from, to string) error {
	return v.derived("rename", from, to)
}
func (v *shelf) derived(verb, from, to string) error {
	if _, err := v.Get(context.Background(), from); err != nil {
		return err
	}
	v.all = append(v.all, volume.Volume{Name: to, Driver: "local", Created: at})
	return v.note(verb, from, to)
}

// serveRooms is serve with all rooms.
func serveRooms(t *testing.T) (*fake, *nets, *shelf, *httptest.Server, *event.Bus) {
	f, n, v := newFake(), newNets(), newShelf()
	f.users = map[string][]string{"data": {webID}}
	s, web, bus := serve(t, f)
	s.cfg.Networks, s.cfg.Volumes = n, v
	return f, n, v, web, bus
}

// networked gives the container a network, a published port and a volume.
func networked(i container.Info) container.Info {
	s := *i.Spec
	front := network.EndpointSpec{Network: "front", Aliases: []string{"www"}, IPv4: netip.MustParseAddr("10.9.0.130"), Options: map[string]string{"a": "b"}, Links: []string{"db:sql"}}
	s.Network = container.Network{Mode: "front", Endpoints: []network.EndpointSpec{front}, Ports: []network.PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8080, HostLast: 8080}}, PublishAll: true}
	s.ExposedPorts = []string{"80/tcp", "81/tcp"}
	s.Mounts = append(slices.Clone(s.Mounts), container.Mount{Type: "volume", Source: "data", Target: "/data", VolumeLabels: map[string]string{"a": "b"}, Driver: "local"})
	i.Spec = &s
	i.Mounts = append(slices.Clone(i.Mounts), container.MountPoint{Type: "volume", Name: "data", Source: "/v/data/_data", Destination: "/data", Driver: "local", RW: true})
	i.Sandbox = network.Sandbox{
		ID: strings.Repeat("5a", 32), Key: "/run/berth/network/netns/5a5a5a5a5a5a", ContainerID: i.ID,
		Endpoints: []network.Endpoint{{ID: strings.Repeat("e1", 32), NetworkID: strings.Repeat("f1", 32), NetworkName: "front", Spec: front, MAC: "02:42:0a:09:00:05",
			IPv4: netip.MustParsePrefix("10.9.0.130/24"), Gateway4: netip.MustParseAddr("10.9.0.1"), Names: []string{"web", "www"}, Container: "web", ContainerID: i.ID}},
		Ports: []network.Port{{Port: 80, Proto: "tcp", HostIP: netip.IPv4Unspecified(), HostPort: 8080, Target: netip.MustParseAddr("10.9.0.130")}},
	}
	return i
}

func filtered(path, filters string) string {
	r, _ := http.NewRequest("GET", path, nil)
	q := r.URL.Query()
	q.Set("filters", filters)
	r.URL.RawQuery = q.Encode()
	return r.URL.String()
}

func TestNetworkGolden(t *testing.T) {
	_, _, _, web, _ := serveRooms(t)
	for _, version := range []string{"1.24", "1.44", "1.51", "1.56"} {
		var b bytes.Buffer
		for _, path := range []string{"/networks", "/networks/front", "/networks/bridge"} {
			code, text, _ := ask(t, web, "GET", "/v"+version+path, "")
			if code != 200 {
				t.Fatal(path, code, text)
			}
			_ = json.Indent(&b, []byte(text), "", "  ")
		}
		golden(t, "testdata/network-"+version+".json", b.Bytes())
	}
}

func TestNetworkRoutes(t *testing.T) {
	for _, tt := range []struct {
		method, path, body string
		code               int
		has, call          string
	}{
		{method: "GET", path: "/networks/", code: 200, has: `"Name":"front"`},
		{method: "GET", path: "/networks/nosuch", code: 404, has: "network nosuch not found"},
		{method: "GET", path: "/networks/front?verbose=foo", code: 400, has: `invalid value for verbose: foo: strconv.ParseBool: parsing`},
		{method: "GET", path: "/networks/front?scope=swarm", code: 404, has: "network front not found"},
		{method: "GET", path: "/networks/f1f1?scope=local&verbose=1", code: 200, has: `"Name":"front"`},
		{method: "GET", path: filtered("/networks", `{"foo":["a"]}`), code: 400, has: "invalid filter 'foo'"},
		{method: "GET", path: filtered("/networks", `{"type":["x"]}`), code: 400, has: "invalid filter: 'type'='x'"},
		{method: "GET", path: filtered("/networks", `{"dangling":["x"]}`), code: 400, has: `must be \"true\" (or \"1\")`},
		{method: "GET", path: filtered("/networks", `{"dangling":["true","false"]}`), code: 400, has: `got more than one value for filter key \"dangling\"`},
		{method: "POST", path: "/networks/create", body: `{"Name":"n","CheckDuplicate":true,"Driver":"bridge","EnableIPv4":false,"EnableIPv6":true,"Internal":true,"Attachable":true,"ConfigOnly":true,"ConfigFrom":{"Network":"t"},"IPAM":{"Driver":"default","Options":{"x":"y"},"Config":[{"Subnet":"10.9.0.0/24","IPRange":"10.9.0.128/25","Gateway":"10.9.0.1","AuxiliaryAddresses":{"r":"10.9.0.2"}}]},"Options":{"o":"p"},"Labels":{"a":"b"}}`, code: 201, has: `"Warning":""`,
			call: `create {"Name":"n","Driver":"bridge","IPv4":false,"IPv6":true,"Internal":true,"Attachable":true,"Ingress":false,"ConfigOnly":true,"ConfigFrom":"t","Scope":"","IPAM":{"driver":"default","options":{"x":"y"},"pools":[{"subnet":"10.9.0.0/24","range":"10.9.0.128/25","gateway":"10.9.0.1","aux":{"r":"10.9.0.2"}}]},"Options":{"o":"p"},"Labels":{"a":"b"}}`},
		{method: "POST", path: "/v1.47/networks/create", body: `{"Name":"n","EnableIPv4":false}`, code: 201, call: `create {"Name":"n","Driver":"","IPv4":null,"IPv6":null,`},
		{method: "POST", path: "/networks/create", body: `{"Name":"n","Foo":1}`, code: 201, has: `"Warning":"Foo is no field of a network at API 1.56 and was ignored"`},
		{method: "POST", path: "/networks/create", body: `{"Name":"n","IPAM":{"Config":[{"Subnet":"10.1.1.1/33"}]}}`, code: 400, has: "invalid JSON"},
		{method: "DELETE", path: "/networks/front", code: 204, call: `remove "front"`},
		{method: "DELETE", path: "/networks/nosuch", code: 404, has: "network nosuch not found"},
		{method: "POST", path: "/networks/front/connect", body: `{"Container":"web","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.9.0.7"},"Aliases":["a"],"MacAddress":"02:00:00:00:00:01","GwPriority":3,"NetworkID":"ignored"}}`, code: 200,
			call: `connect web "front" {"network":"front","aliases":["a"],"ipv4":"10.9.0.7","mac":"02:00:00:00:00:01","gwPriority":3}`},
		{method: "POST", path: "/v1.43/networks/front/connect", body: `{"Container":"web","EndpointConfig":{"MacAddress":"02:00:00:00:00:01","GwPriority":3}}`, code: 200, call: `connect web "front" {"network":"front"}`},
		{method: "POST", path: "/networks/front/connect", body: `{"Container":"web","EndpointConfig":{"IPAMConfig":{"IPv4Address":"::1"}}}`, code: 400, has: `invalid endpoint settings:\ninvalid IPv4 address: ::1`},
		{method: "POST", path: "/networks/bridge/connect", body: `{"Container":"web","EndpointConfig":{"Aliases":["a"]}}`, code: 400, has: `invalid endpoint settings:\nnetwork-scoped alias is supported only`},
		{method: "POST", path: "/networks/front/connect", body: `{"Container":"nosuch"}`, code: 404, has: "No such container: nosuch"},
		{method: "POST", path: "/networks/front/connect", code: 400, has: `invalid name or ID supplied: \"\"`},
		{method: "POST", path: "/networks/front/disconnect", body: `{"Container":"web","Force":true}`, code: 200, call: `disconnect web "front" true`},
		{method: "POST", path: "/networks/front/disconnect", body: `{}`, code: 400, has: `invalid name or ID supplied: \"\"`},
		{method: "POST", path: "/networks/prune", code: 200, has: `{"NetworksDeleted":["idle"]}`, call: `remove "` + strings.Repeat("1d", 32) + `"`},
		{method: "POST", path: filtered("/networks/prune", `{"until":["72h"]}`), code: 200, has: `{"NetworksDeleted":null}`},
		{method: "POST", path: filtered("/networks/prune", `{"label":["a"]}`), code: 200, has: `{"NetworksDeleted":null}`},
		{method: "POST", path: filtered("/networks/prune", `{"foo":["a"]}`), code: 400, has: "invalid filter 'foo'"},
		{method: "GET", path: "/berth/v1/networks/prune", code: 200, has: `"name":"idle"`},
		{method: "GET", path: "/berth/v1/network/rules", code: 200, has: "table inet berth"},
		{method: "GET", path: "/berth/v1/port/audit", code: 200, has: `{"exposures":[{"containerID":"` + webID + `","container":"web","networkID":"` + strings.Repeat("f1", 32) + `","network":"front","protocol":"tcp","port":80,"target":"10.9.0.130","host":"0.0.0.0:8080","reach":"anywhere","rule":"tcp dport 8080","notes":[]}]}`},
		{method: "POST", path: "/berth/v1/containers/web/ports", body: `{"publish":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8000-8010"}]},"unpublish":{"53/udp":null}}`, code: 200, has: `{"ports":{}}`,
			call: `publish web [{"port":80,"proto":"tcp","hostIP":"127.0.0.1","hostFirst":8000,"hostLast":8010}] [{"port":53,"proto":"udp"}]`},
		{method: "POST", path: "/berth/v1/containers/web/ports", body: `{}`, code: 400, has: "say what to publish"},
		{method: "POST", path: "/berth/v1/containers/web/ports", body: `{"publsh":{"80/tcp":[{}]}}`, code: 400, has: "publsh is no field here"},
		{method: "POST", path: "/berth/v1/containers/web/ports", code: 400, has: "the request has no body"},
		{method: "POST", path: "/berth/v1/containers/nosuch/ports", body: `{"publish":{"80/tcp":[{}]}}`, code: 404},
		{method: "POST", path: "/berth/v1/containers/web/ports/hand-over", body: `{"to":"web","ports":{"80/tcp":null}}`, code: 200, call: `hand-over web "web" [{"port":80,"proto":"tcp"}]`},
		{method: "POST", path: "/berth/v1/containers/web/ports/hand-over", body: `{"publish":{"80/tcp":null}}`, code: 400, has: "say to which container"},
	} {
		t.Run(tt.method+" "+tt.path+" "+tt.body, func(t *testing.T) {
			f, n, _, web, _ := serveRooms(t)
			code, text, _ := ask(t, web, tt.method, tt.path, tt.body)
			if code != tt.code || !strings.Contains(text, tt.has) {
				t.Errorf("%d %s, want %d %q", code, text, tt.code, tt.has)
			}
			calls := append(slices.Clone(n.calls), f.calls...)
			if tt.call != "" && !slices.ContainsFunc(calls, func(c string) bool { return strings.HasPrefix(c, tt.call) }) {
				t.Errorf("the calls were %q, want %q", calls, tt.call)
			}
		})
	}
}

func TestNetworkFilters(t *testing.T) {
	for filters, want := range map[string]string{
		`{}`:                                    "bridge host front idle",
		`{"name":["fr"]}`:                       "front",
		`{"name":["^ri"]}`:                      "",
		`{"name":["["]}`:                        "",
		`{"name":["front","idle"]}`:             "front idle",
		`{"id":["f1f1f1"]}`:                     "front",
		`{"driver":["bridge"]}`:                 "bridge front",
		`{"label":["tier"]}`:                    "front",
		`{"label":["tier=web"]}`:                "front",
		`{"label":["tier=db"]}`:                 "",
		`{"scope":["swarm"]}`:                   "",
		`{"type":["builtin"]}`:                  "bridge host",
		`{"type":["custom"]}`:                   "front idle",
		`{"dangling":["true"]}`:                 "idle",
		`{"dangling":["0"]}`:                    "bridge host front",
		`{"type":{"custom":true}}`:              "front idle",
		`{"type":["custom"],"driver":["null"]}`: "",
	} {
		_, _, _, web, _ := serveRooms(t)
		code, text, _ := ask(t, web, "GET", filtered("/networks", filters), "")
		var got []struct{ Name string }
		if err := json.Unmarshal([]byte(text), &got); err != nil || code != 200 {
			t.Fatal(filters, code, text)
		}
		var names []string
		for _, n := range got {
			names = append(names, n.Name)
		}
		if strings.Join(names, " ") != want {
			t.Errorf("%s: %v, want %s", filters, names, want)
		}
	}
}

func TestPruneOfNetworksIsTold(t *testing.T) {
	_, _, _, web, bus := serveRooms(t)
	sub := bus.Subscribe(context.Background(), time.Time{}, time.Time{}, nil)
	defer sub.Close()
	ask(t, web, "POST", "/networks/prune", "")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if e, ok := sub.Next(ctx); !ok || e.Type != "network" || e.Action != "prune" || e.Attributes["reclaimed"] != "0" {
		t.Errorf("%+v", e)
	}
}

func TestVolumeRoutes(t *testing.T) {
	anonymous := strings.Repeat("0a", 32)
	for _, tt := range []struct {
		method, path, body string
		code               int
		has, call          string
	}{
		{method: "GET", path: "/volumes/data", code: 200, has: `{"CreatedAt":"2026-03-04T05:06:07Z","Driver":"local","Labels":{"a":"b"},"Mountpoint":"/v/data/_data","Name":"data","Options":null,"Scope":"local"}`},
		{method: "GET", path: "/volumes/remote", code: 200, has: `"Status":{"up":true}`},
		{method: "GET", path: "/volumes/nosuch", code: 404, has: "get nosuch: no such volume"},
		{method: "GET", path: "/volumes", code: 200, has: `"Warnings":null`},
		{method: "GET", path: filtered("/volumes", `{"foo":["a"]}`), code: 400, has: "invalid filter 'foo'"},
		{method: "GET", path: filtered("/volumes", `{"dangling":["x"]}`), code: 400, has: "invalid filter 'dangling=[x]'"},
		{method: "GET", path: filtered("/volumes", `{"dangling":["true","false"]}`), code: 400, has: "invalid filter 'dangling=[true false]'"},
		{method: "POST", path: "/volumes/create", body: `{"Name":"n","Driver":"local","DriverOpts":{"type":"nfs"},"Labels":{"a":"b"}}`, code: 201, has: `"Options":{"type":"nfs"}`,
			call: `create {"Name":"n","Driver":"local","Anonymous":false,"Labels":{"a":"b"},"Options":{"type":"nfs"}}`},
		{method: "POST", path: "/volumes/create", body: `{}`, code: 201, has: `"Labels":{"com.docker.volume.anonymous":""}`},
		{method: "POST", path: "/volumes/create", code: 201, has: `"com.docker.volume.anonymous"`},
		{method: "POST", path: "/volumes/create", body: `{"Name":"n","ClusterVolumeSpec":{}}`, code: 503, has: "This node is not a swarm manager."},
		{method: "POST", path: "/v1.41/volumes/create", body: `{"Name":"n","ClusterVolumeSpec":{}}`, code: 201},
		{method: "PUT", path: "/volumes/data?version=1", body: `{}`, code: 503, has: "volume update only valid for cluster volumes, but swarm is unavailable"},
		{method: "DELETE", path: "/volumes/free", code: 204, call: `remove "free" false`},
		{method: "DELETE", path: "/volumes/free?force=1", code: 204, call: `remove "free" true`},
		{method: "DELETE", path: "/volumes/nosuch", code: 404, has: "get nosuch: no such volume"},
		{method: "DELETE", path: "/volumes/nosuch?force=1", code: 204},
		{method: "POST", path: "/volumes/prune", code: 200, has: `{"VolumesDeleted":["` + anonymous + `"],"SpaceReclaimed":10}`},
		{method: "POST", path: "/v1.41/volumes/prune", code: 200, has: `{"VolumesDeleted":["` + anonymous + `","free"],"SpaceReclaimed":20}`},
		{method: "POST", path: filtered("/volumes/prune", `{"all":["1"]}`), code: 200, has: `"free"`},
		{method: "POST", path: filtered("/volumes/prune", `{"all":["0"]}`), code: 200, has: `["` + anonymous + `"]`},
		{method: "POST", path: filtered("/volumes/prune", `{"all":["x"]}`), code: 400, has: `invalid filter 'all': strconv.ParseBool: parsing \"x\": invalid syntax`},
		{method: "POST", path: filtered("/volumes/prune", `{"all":["1","0"]}`), code: 400, has: "only one value is expected"},
		{method: "POST", path: filtered("/volumes/prune", `{"dangling":["1"]}`), code: 400, has: "invalid filter 'dangling'"},
		{method: "POST", path: filtered("/volumes/prune", `{"label":["a"],"all":["1"]}`), code: 200, has: `"VolumesDeleted":[]`}, // data is in use
		{method: "POST", path: filtered("/volumes/prune", `{"label!":["com.docker.volume.anonymous"]}`), code: 200, has: `"VolumesDeleted":[]`},
		{method: "GET", path: "/berth/v1/volumes/prune", code: 200, has: `"remove":[{"kind":"volume","id":"` + anonymous + `"`},
		{method: "GET", path: "/berth/v1/volumes/data/export", code: 200, has: "tar of data"},
		{method: "GET", path: "/berth/v1/volumes/nosuch/export", code: 404, has: "no such volume"},
		{method: "POST", path: "/berth/v1/volumes/data/import", body: "tarball", code: 200, has: `"Name":"data"`, call: `import "data" "tarball"`},
		{method: "POST", path: "/berth/v1/volumes/fresh/import", body: "tarball", code: 200, has: `"Name":"fresh"`, call: `import "fresh" "tarball"`},
		{method: "POST", path: "/berth/v1/volumes/data/clone", body: `{"name":"copy"}`, code: 201, has: `"Name":"copy"`, call: `clone "data" "copy"`},
		{method: "POST", path: "/berth/v1/volumes/data/snapshot", body: `{"name":"snap"}`, code: 201, call: `snapshot "data" "snap"`},
		{method: "POST", path: "/berth/v1/volumes/free/rename", body: `{"name":"gone"}`, code: 201, call: `rename "free" "gone"`},
		{method: "POST", path: "/berth/v1/volumes/free/rename", body: `{}`, code: 400, has: "name: the new volume needs one"},
		{method: "POST", path: "/berth/v1/volumes/nosuch/clone", body: `{"name":"copy"}`, code: 404},
		{method: "GET", path: "/system/df?type=volume&verbose=1", code: 200, has: `"VolumeUsage":{"ActiveCount":1,"Items":[{"CreatedAt":"2026-03-04T05:06:07Z","Driver":"local","Labels":{"a":"b"},"Mountpoint":"/v/data/_data","Name":"data","Options":null,"Scope":"local","UsageData":{"RefCount":1,"Size":10}}`},
		{method: "GET", path: "/system/df?type=volume", code: 200, has: `"VolumeUsage":{"ActiveCount":1,"Reclaimable":20,"TotalCount":3,"TotalSize":30}`},
		{method: "GET", path: "/v1.45/system/df?type=volume", code: 200, has: `"Volumes":[{"CreatedAt"`},
	} {
		t.Run(tt.method+" "+tt.path+" "+tt.body, func(t *testing.T) {
			_, _, v, web, _ := serveRooms(t)
			code, text, _ := ask(t, web, tt.method, tt.path, tt.body)
			if code != tt.code || !strings.Contains(text, tt.has) {
				t.Errorf("%d %s, want %d %q", code, text, tt.code, tt.has)
			}
			if tt.call != "" && !slices.ContainsFunc(v.calls, func(c string) bool { return strings.HasPrefix(c, tt.call) }) {
				t.Errorf("the calls were %q, want %q", v.calls, tt.call)
			}
		})
	}
}

func TestVolumeFilters(t *testing.T) {
	anonymous := strings.Repeat("0a", 32)
	for filters, want := range map[string]string{
		`{"name":["da"]}`:                                    "data",
		`{"driver":["plug"]}`:                                "remote",
		`{"label":["a=b"]}`:                                  "data",
		`{"label":["com.docker.volume.anonymous"]}`:          anonymous,
		`{"dangling":["false"]}`:                             "data",
		`{"dangling":["true"]}`:                              "free " + anonymous + " share remote",
		`{"dangling":["true"],"driver":["plug"]}`:            "remote",
		`{"dangling":{"false":true},"name":{"nosuch":true}}`: "",
	} {
		_, _, _, web, _ := serveRooms(t)
		_, text, _ := ask(t, web, "GET", filtered("/volumes", filters), "")
		var got struct{ Volumes []struct{ Name string } }
		if err := json.Unmarshal([]byte(text), &got); err != nil || got.Volumes == nil {
			t.Fatal(filters, text)
		}
		var names []string
		for _, n := range got.Volumes {
			names = append(names, n.Name)
		}
		if strings.Join(names, " ") != want {
			t.Errorf("%s: %v, want %s", filters, names, want)
		}
	}
}

// An archive that ends well is whole.
func TestCarryingFailsClearly(t *testing.T) {
	_, _, v, web, _ := serveRooms(t)
	v.fail["export"] = fault.New(fault.Internal, "the disk is gone")
	if code, text, _ := ask(t, web, "GET", "/berth/v1/volumes/data/export", ""); code != 500 || !strings.Contains(text, "the disk is gone") {
		t.Errorf("%d %s", code, text)
	}
	v.fail = map[string]error{"export late": errors.New("the disk is gone")}
	resp, err := http.Get(web.URL + "/berth/v1/volumes/data/export")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("half an archive ended well")
	}
	v.fail = map[string]error{"import": fault.New(fault.Invalid, "no archive")}
	if code, text, _ := ask(t, web, "POST", "/berth/v1/volumes/data/import", "x"); code != 400 || !strings.Contains(text, "no archive") {
		t.Errorf("%d %s", code, text)
	}
}

func TestInterfaceCounters(t *testing.T) {
	text := `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:1234567      10    1    2    0     0          0         0     7654      20    3    4    0     0       0          0
`
	want := map[string]containertypes.NetworkStats{"eth0": {RxBytes: 1234567, RxPackets: 10, RxErrors: 1, RxDropped: 2, TxBytes: 7654, TxPackets: 20, TxErrors: 3, TxDropped: 4}}
	if diff := cmp.Diff(want, interfaces([]byte(text))); diff != "" {
		t.Error(diff)
	}
	if got := interfaces(nil); got != nil {
		t.Error(got)
	}
}

func TestWithoutRooms(t *testing.T) {
	_, web, _ := serve(t, newFake())
	for _, tt := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/networks", 501}, {"POST", "/networks/prune", 501}, {"GET", "/networks/x", 404}, {"GET", "/volumes", 501}, {"GET", "/volumes/x", 404},
		{"POST", "/volumes/create", 501}, {"GET", "/berth/v1/network/rules", 501}, {"GET", "/berth/v1/volumes/x/export", 501}, {"GET", "/system/df", 200},
	} {
		if code, text, _ := ask(t, web, tt.method, tt.path, ""); code != tt.code {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, code, text)
		}
	}
}

func TestInfoTellsOfRooms(t *testing.T) {
	_, n, _, web, _ := serveRooms(t)
	_, text, _ := ask(t, web, "GET", "/info", "")
	if strings.Contains(text, "The default network is") {
		t.Errorf("a warning about a default network as Docker's: %s", text)
	}
	n.all[0].Options = map[string]string{"com.docker.network.bridge.name": "berth0"}
	_, text, _ = ask(t, web, "GET", "/info", "")
	for _, has := range []string{`"Volume":["local"],"Network":["bridge","host"]`, `"DefaultAddressPools":[{"Base":"10.0.0.0/8","Size":24}]`, `"FirewallBackend":{"Driver":"nftables"}`, "The default network is 172.17.0.0/16 on berth0 (Docker's is 172.17.0.0/16 on docker0)"} {
		if !strings.Contains(text, has) {
			t.Errorf("%s is not in %s", has, text)
		}
	}
}

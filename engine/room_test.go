package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/engine/container"
	"berth/network"
	"berth/volume"
)

// someNetworks stands for the network room: it knows one network, gives this process's own namespace to everybody, and notes what it is
// asked. The real room has tests of its own, and test/script has both together.
type someNetworks struct {
	mu    sync.Mutex
	calls []string
	live  map[string]network.Sandbox
	fail  error         // of Join
	slow  time.Duration // how long Recovered takes to look
	hung  chan struct{} // Leave waits for it
}

func (n *someNetworks) note(words ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls = append(n.calls, strings.Join(words, " "))
}

func (n *someNetworks) asked() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.calls)
}

func (n *someNetworks) Get(ref string) (network.Network, error) {
	switch ref {
	case "bridge", "mine", "other":
		return network.Network{ID: "id-of-" + ref, Name: ref, Driver: "bridge"}, nil
	}
	return network.Network{}, fault.New(fault.NotFound, "network %s not found", ref)
}

func (n *someNetworks) Check(w network.Want) ([]string, error) {
	for _, p := range w.Endpoints {
		if _, err := n.Get(p.Network); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (n *someNetworks) Join(_ context.Context, w network.Want) (network.Sandbox, error) {
	if n.fail != nil {
		return network.Sandbox{}, n.fail
	}
	for _, p := range w.Endpoints {
		if _, err := n.Get(p.Network); err != nil {
			return network.Sandbox{}, err
		}
	}
	n.note("join", w.Name)
	s := network.Sandbox{ID: "sandbox", Key: "/proc/self/ns/net", ContainerID: w.ContainerID}
	for i, p := range w.Endpoints {
		s.Endpoints = append(s.Endpoints, network.Endpoint{Spec: p, NetworkID: "id-of-" + p.Network, NetworkName: p.Network, IPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 2}), 24)})
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.live[w.ContainerID] = s
	return s, nil
}

func (n *someNetworks) Leave(_ context.Context, cid string) error {
	if n.hung != nil {
		<-n.hung
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, was := n.live[cid]; was {
		n.calls = append(n.calls, "leave")
		delete(n.live, cid)
	}
	return nil
}

func (n *someNetworks) Sandbox(cid string) (network.Sandbox, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, ok := n.live[cid]
	return s, ok
}

func (n *someNetworks) Connect(_ context.Context, w network.Want, s network.EndpointSpec) (network.Endpoint, error) {
	n.note("connect", w.Name, s.Network)
	p := network.Endpoint{Spec: s, NetworkID: "id-of-" + s.Network, IPv4: netip.MustParsePrefix("10.9.0.2/24")}
	n.mu.Lock()
	defer n.mu.Unlock()
	box := n.live[w.ContainerID]
	box.Endpoints = append(slices.Clone(box.Endpoints), p)
	n.live[w.ContainerID] = box
	return p, nil
}

func (n *someNetworks) Disconnect(_ context.Context, _, ref string, _ bool) error {
	n.note("disconnect", ref)
	return nil
}

func (n *someNetworks) Publish(_ context.Context, w network.Want, add, remove []network.PortSpec) ([]network.Port, error) {
	n.note("publish")
	return nil, nil
}

func (n *someNetworks) HandOver(_ context.Context, from string, to network.Want, _ []network.PortSpec) ([]network.Port, error) {
	n.note("hand over to", to.Name)
	return nil, nil
}

func (n *someNetworks) Rename(_, name string) { n.note("rename", name) }

func (n *someNetworks) Recovered(runs func(string) bool) {
	time.Sleep(n.slow)
	n.mu.Lock()
	defer n.mu.Unlock()
	for cid := range n.live {
		if !runs(cid) {
			delete(n.live, cid)
			n.calls = append(n.calls, "swept")
		}
	}
}

// someVolumes is a volume room of plain directories.
type someVolumes struct {
	dir     string
	mounted map[string]int
	usedBy  func(string) []string
	made    func(name string) // called by Create
}

func (v *someVolumes) path(name string) string { return filepath.Join(v.dir, name) }

func (v *someVolumes) Create(_ context.Context, r volume.CreateRequest) (volume.Volume, error) {
	if r.Driver != "" && r.Driver != "local" {
		return volume.Volume{}, fault.New(fault.NotFound, "error looking up volume plugin %s: plugin \"%s\" not found", r.Driver, r.Driver)
	}
	err := os.MkdirAll(v.path(r.Name), 0o755)
	if v.made != nil {
		v.made(r.Name)
	}
	return volume.Volume{Name: r.Name, Driver: "local", Mountpoint: v.path(r.Name)}, err
}

func (v *someVolumes) Get(_ context.Context, name string) (volume.Volume, error) {
	if _, err := os.Stat(v.path(name)); err != nil {
		return volume.Volume{}, fault.New(fault.NotFound, "get %s: no such volume", name)
	}
	return volume.Volume{Name: name, Driver: "local", Mountpoint: v.path(name)}, nil
}

func (v *someVolumes) UsedBy(users func(string) []string) { v.usedBy = users }

func (v *someVolumes) Remove(_ context.Context, name string, _ bool) error {
	if users := v.usedBy(name); len(users) > 0 {
		return fault.New(fault.Conflict, "remove %s: volume is in use - %v", name, users)
	}
	return os.RemoveAll(v.path(name))
}

func (v *someVolumes) Mount(_ context.Context, name, subpath, cid string) (string, error) {
	v.mounted[name]++
	return filepath.Join(v.path(name), subpath), nil
}

func (v *someVolumes) Unmount(_ context.Context, name, cid string) error {
	delete(v.mounted, name)
	return nil
}

func (v *someVolumes) Fill(_ context.Context, name, subpath string, from *os.File) error {
	if n := len(v.usedBy(name)); n != 1 { // the room takes one for the container that is being created: a failed copy-up empties the volume then
		return fmt.Errorf("%d containers refer to volume %s while it is filled", n, name)
	}
	if have, err := os.ReadDir(v.path(name)); err != nil || len(have) > 0 {
		return err
	}
	return os.CopyFS(v.path(name), os.DirFS("/proc/self/fd/"+itoa(uint16(from.Fd()))))
}

func (v *someVolumes) Recovered(func(string) bool) {}

func newWorldWithRooms(t *testing.T) (*world, *someNetworks, *someVolumes) {
	t.Helper()
	n := &someNetworks{live: map[string]network.Sandbox{}}
	v := &someVolumes{dir: t.TempDir(), mounted: map[string]int{}}
	return newWorldWith(t, n, v), n, v
}

func TestNetworksOfALife(t *testing.T) {
	w, n, _ := newWorldWithRooms(t)
	ctx := t.Context()
	cid := w.run("web", container.Spec{Image: "busybox", Process: container.Process{Cmd: []string{"sleep", "1000"}}, Network: container.Network{Mode: "mine", MacAddress: "02:42:0a:00:00:02"}})
	i, err := w.Inspect(ctx, cid)
	if err != nil {
		t.Fatal(err)
	}
	if len(i.Sandbox.Endpoints) != 1 || i.Sandbox.Endpoints[0].Spec.MAC != "02:42:0a:00:00:02" {
		t.Errorf("sandbox %+v", i.Sandbox)
	}
	hosts, err := os.ReadFile(i.HostsPath)
	if err != nil || !strings.Contains(string(hosts), "10.0.0.2\t"+i.Spec.Hostname+"\n") {
		t.Errorf("hosts %q, %v", hosts, err)
	}
	if err := w.ConnectNetwork(ctx, "other", cid, network.EndpointSpec{}); err != nil {
		t.Fatal(err)
	}
	if err := w.ConnectNetwork(ctx, "other", cid, network.EndpointSpec{}); !fault.Is(err, fault.Forbidden) {
		t.Errorf("connected twice: %v", err)
	}
	if hosts, _ = os.ReadFile(i.HostsPath); !strings.Contains(string(hosts), "10.9.0.2\t") {
		t.Errorf("hosts after connect %q", hosts)
	}
	if err := w.DisconnectNetwork(ctx, "nowhere", cid, false); !fault.Is(err, fault.NotFound) {
		t.Errorf("disconnected from what is not there: %v", err)
	}
	if err := w.DisconnectNetwork(ctx, "mine", cid, false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.PublishPorts(ctx, cid, []network.PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8080, HostLast: 8080}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Rename(ctx, cid, "web2"); err != nil {
		t.Fatal(err)
	}
	w.reopen() // what runs keeps its network
	if i, _ = w.Inspect(ctx, cid); len(i.Sandbox.Endpoints) == 0 || len(i.Spec.Network.Ports) != 1 || len(i.Spec.Network.Endpoints) != 1 || i.Spec.Network.Endpoints[0].Network != "other" {
		t.Errorf("after a restart: sandbox %+v, asked %+v", i.Sandbox, i.Spec.Network)
	}
	if err := w.Kill(ctx, cid, "KILL"); err != nil {
		t.Fatal(err)
	}
	w.wait(cid)
	want := []string{"join web", "connect web other", "disconnect mine", "publish", "rename web2", "leave"}
	if got := n.asked(); !slices.Equal(got, want) {
		t.Errorf("asked of the networks: %v, want %v", got, want)
	}
}

func TestHandOver(t *testing.T) {
	w, n, _ := newWorldWithRooms(t)
	ctx := t.Context()
	box := func(name string, ports ...network.PortSpec) string {
		s := spec("sleep 1000")
		s.Network = container.Network{Mode: "mine", Ports: ports}
		return w.run(name, s)
	}
	web, dns := network.PortSpec{Port: 80, Proto: "tcp", HostFirst: 8080, HostLast: 8080}, network.PortSpec{Port: 53, Proto: "udp", HostFirst: 53, HostLast: 53}
	blue, green := box("blue", web, dns), box("green")
	if _, err := w.HandOverPorts(ctx, blue, blue, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("to itself: %v", err)
	}
	if _, err := w.HandOverPorts(ctx, blue, green, []network.PortSpec{{Port: 80, Proto: "tcp"}}); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	b, _ := w.Inspect(ctx, blue)
	g, _ := w.Inspect(ctx, green)
	if !slices.Equal(b.Spec.Network.Ports, []network.PortSpec{dns}) || !slices.Equal(g.Spec.Network.Ports, []network.PortSpec{web}) {
		t.Errorf("blue has %v, green %v", b.Spec.Network.Ports, g.Spec.Network.Ports)
	}
	w.Kill(ctx, green, "KILL")
	w.wait(green)
	if _, err := w.HandOverPorts(ctx, blue, green, nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("to one that does not run: %v", err)
	}
	if got := n.asked(); !slices.Contains(got, "hand over to green") {
		t.Errorf("asked of the networks: %v", got)
	}
}

func TestNoNetworkNoStart(t *testing.T) {
	w, n, _ := newWorldWithRooms(t)
	ctx := t.Context()
	ghost, err := w.Create(ctx, "", container.Spec{Image: "busybox", Network: container.Network{Mode: "nowhere"}})
	if err != nil {
		t.Fatal(err) // its start is refused
	}
	if err := w.Start(ctx, ghost.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("a network that is not there: %v", err)
	}
	r, err := w.Create(ctx, "unlucky", container.Spec{Image: "busybox"})
	if err != nil {
		t.Fatal(err)
	}
	n.fail = errors.New("port is already allocated")
	if err := w.Start(ctx, r.ID); err == nil || !strings.Contains(err.Error(), "port is already allocated") {
		t.Errorf("start: %v", err)
	}
	i, _ := w.Inspect(ctx, r.ID)
	if i.State.Status != container.Created || i.State.ExitCode != 128 {
		t.Errorf("state %+v", i.State)
	}
	n.fail = nil
	if err := w.Start(ctx, r.ID); err != nil {
		t.Fatal(err)
	}
}

func TestVolumes(t *testing.T) {
	w, _, v := newWorldWithRooms(t)
	ctx := t.Context()
	with := func(line string, change func(*container.Spec)) container.Spec {
		s := spec(line)
		change(&s)
		return s
	}
	first := w.run("first", with("echo more >/data/own && echo x >/anon/y", func(s *container.Spec) {
		s.Mounts = []container.Mount{{Type: "volume", Source: "data", Target: "/data"}}
		s.Volumes = map[string]struct{}{"/anon": {}, "/data/": {}}
	}))
	w.wait(first)
	i, _ := w.Inspect(ctx, first)
	if len(i.Mounts) != 2 || i.Mounts[0].Destination != "/anon" || i.Mounts[0].Type != "volume" || len(i.Mounts[0].Name) != 64 || i.Mounts[1].Name != "data" {
		t.Fatalf("mounts %+v", i.Mounts)
	}
	if b, err := os.ReadFile(filepath.Join(v.dir, i.Mounts[0].Name, "y")); err != nil || string(b) != "x\n" {
		t.Errorf("the anonymous volume holds %q, %v", b, err)
	}
	second := w.run("second", with("test -f /anon/y && ! touch /anon/z", func(s *container.Spec) { s.VolumesFrom = []string{"first:ro"} }))
	if code := w.wait(second); code != 0 {
		t.Errorf("volumes-from: exit %d", code)
	}
	if users := w.VolumeUsers("data"); !slices.Equal(users, []string{first, second}) && !slices.Equal(users, []string{second, first}) {
		t.Errorf("users of data: %v", users)
	}
	third := w.run("", with("test \"$(cat /copy/motd)\" = hello", func(s *container.Spec) {
		s.Mounts = []container.Mount{{Type: "volume", Source: "filled", Target: "/copy"}, {Type: "image", Source: "busybox", Target: "/img"}}
		os.Mkdir(filepath.Join(w.images.lower, "copy"), 0o755)
		os.WriteFile(filepath.Join(w.images.lower, "copy/motd"), []byte("hello"), 0o644)
	}))
	if code := w.wait(third); code != 0 {
		t.Errorf("copy-up: exit %d", code)
	}
	if err := errors.Join(w.Remove(ctx, second, RemoveOptions{Volumes: true}), w.Remove(ctx, first, RemoveOptions{Volumes: true})); err != nil {
		t.Fatal(err)
	}
	if err := w.Remove(ctx, third, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(v.mounted) != 0 {
		t.Errorf("still mounted: %v", v.mounted)
	}
	if _, err := os.Stat(filepath.Join(v.dir, i.Mounts[0].Name)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the anonymous volume is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(v.dir, "data")); err != nil {
		t.Errorf("the named volume is gone: %v", err)
	}
}

// What another container has borrowed stays when its first owner goes, also when the engine's death cut the removal off.
func TestBorrowedVolumeStays(t *testing.T) {
	w, _, v := newWorldWithRooms(t)
	ctx := t.Context()
	owner := spec("true")
	owner.Volumes = map[string]struct{}{"/data": {}}
	borrower := spec("true")
	for _, cut := range []bool{false, true} {
		first := w.create("", owner)
		borrower.VolumesFrom = []string{first}
		second := w.create("", borrower)
		i, err := w.Inspect(ctx, first)
		if err != nil {
			t.Fatal(err)
		}
		if cut {
			failpoint.Arm("engine/remove/volumes=error")
			w.Remove(ctx, first, RemoveOptions{Volumes: true})
			failpoint.Arm("")
			w.reopen()
			w.eventually("removal", func() bool { _, err := w.Inspect(ctx, first); return fault.Is(err, fault.NotFound) })
		} else if err := w.Remove(ctx, first, RemoveOptions{Volumes: true}); err != nil {
			t.Errorf("the owner of a borrowed volume is not removed: %v", err)
		}
		if _, err := os.Stat(v.path(i.Mounts[0].Name)); err != nil {
			t.Errorf("cut off: %v: the borrowed volume is gone: %v", cut, err)
		}
		if err := w.Remove(ctx, second, RemoveOptions{Volumes: true}); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(v.path(i.Mounts[0].Name)); err == nil {
			t.Errorf("cut off: %v: the volume stays after the last container that had it", cut)
		}
	}
}

// What a container has borrowed from one that is in the trash stays for that one's return.
func TestBorrowedVolumeOfATrashedContainerStays(t *testing.T) {
	w, _, v := newWorldWithRooms(t)
	ctx := t.Context()
	window := time.Hour
	w.cfg.TrashWindow = func() time.Duration { return window }
	w.reopen()
	t.Cleanup(func() {
		window = 0
		os.Remove(filepath.Join(w.cfg.DataRoot, "containers/.trash"))
	})
	owner := spec("true")
	owner.Volumes = map[string]struct{}{"/data": {}}
	first := w.create("", owner)
	i, err := w.Inspect(ctx, first)
	if err != nil {
		t.Fatal(err)
	}
	borrower := spec("true")
	borrower.VolumesFrom, borrower.AutoRemove = []string{first}, true
	second := w.create("", borrower)
	if err := w.Remove(ctx, first, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(ctx, second); err != nil {
		t.Fatal(err)
	}
	w.eventually("it removes itself", func() bool { _, err := w.Inspect(ctx, second); return fault.Is(err, fault.NotFound) })
	if _, err := os.Stat(v.path(i.Mounts[0].Name)); err != nil {
		t.Errorf("the volume of a container in the trash is gone: %v", err)
	}
	if _, err := w.RestoreTrashed(ctx, first); err != nil {
		t.Error(err)
	}
}

// A network whose plugin hangs does not keep a container from ending.
func TestEndWithAHungNetwork(t *testing.T) {
	w, n, _ := newWorldWithRooms(t)
	s := spec("sleep 1000")
	s.Network.Mode = "mine"
	cid := w.run("", s)
	n.hung = make(chan struct{})
	err := w.Kill(t.Context(), cid, "KILL")
	if st := w.state(cid); err != nil || st.Running {
		t.Errorf("%v, %+v", err, st)
	}
	close(n.hung)
}

// A prune that comes while a container is being created leaves its volumes; a creation that fails leaves none.
func TestVolumesInTheMaking(t *testing.T) {
	w, _, v := newWorldWithRooms(t)
	v.made = func(name string) { // what prune does
		if err := v.Remove(t.Context(), name, false); !fault.Is(err, fault.Conflict) {
			t.Errorf("a volume of a container that is being created: %v", err)
		}
	}
	s := spec("true")
	s.Volumes = map[string]struct{}{"/data": {}}
	failpoint.Arm("engine/create/record=error")
	_, err := w.Create(t.Context(), "", s)
	failpoint.Arm("")
	if left, _ := os.ReadDir(v.dir); err == nil || len(left) > 0 {
		t.Errorf("%v, left %v", err, left)
	}
	cid := w.create("", s)
	i, _ := w.Inspect(t.Context(), cid)
	if users := w.VolumeUsers(i.Mounts[0].Name); !slices.Equal(users, []string{cid}) {
		t.Errorf("users %v", users)
	}
}

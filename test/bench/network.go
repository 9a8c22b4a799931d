package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"berth/kernel/netns"
	"berth/test/live"
	"berth/test/world"

	"golang.org/x/sys/unix"
)

// benchNetwork compares a container's network with one of the same shape that is made by hand: two namespaces on a bridge, and a port of
// the host that a rule leads to one of them. The traffic is made by this process, on sockets in the namespaces of containers that sleep.
func benchNetwork(t *table, o options) error {
	return withEngine(o, func(e *live.Engine) error {
		if err := lifeWithPort(t, o, e); err != nil {
			return err
		}
		ours, err := berthShape(e)
		if err != nil {
			return err
		}
		hand, err := handShape()
		if err != nil {
			return fmt.Errorf("by hand: %w", err)
		}
		defer hand.world.Close()
		for _, way := range []struct {
			what string
			dial func(*shape) (net.Conn, error)
		}{
			{"container to container", func(s *shape) (net.Conn, error) { return s.world.Dial(s.client, "tcp", s.server4+":80") }},
			{"from outside to a published port", func(s *shape) (net.Conn, error) {
				return s.world.Dial(s.world.Outside, "tcp", fmt.Sprintf("%s:%d", world.Host4, s.port))
			}},
		} {
			if err := compareTraffic(t, way.what, ours, hand, way.dial); err != nil {
				return fmt.Errorf("%s: %w", way.what, err)
			}
		}
		return compareProxy(t, o, ours)
	})
}

// lifeWithPort measures what a bridge and a published port add to a container's life.
func lifeWithPort(t *table, o options, e *live.Engine) error {
	with := func(e *live.Engine) error { return oneLifeOf(e, publishing("bridge", "80/tcp")) }
	for range 10 {
		if err := errors.Join(with(e), oneLife(e)); err != nil {
			return err
		}
	}
	var plain, bridged series
	for range o.n * 2 {
		for _, side := range []struct {
			to *series
			f  func(*live.Engine) error
		}{{&plain, oneLife}, {&bridged, with}} {
			cpu, wall, err := repeat(e, 1, side.f)
			if err != nil {
				return err
			}
			*side.to = append(*side.to, sample{time.Duration(cpu * float64(time.Millisecond)), time.Duration(wall[0] * float64(time.Millisecond))})
		}
	}
	t.row("a life with bridge and published port, processor time", median(bridged.cpu()), 18, "ms")
	t.row("… over one without a network", median(ratios(bridged.cpu(), plain.cpu())), 0, "x")
	t.row("… wall time over one without", median(ratios(bridged.wall(), plain.wall())), 1.5, "x")
	return nil
}

// publishing is a container on a network, with a port published anywhere.
func publishing(network, port string) map[string]any {
	return map[string]any{
		"Image": "box", "Cmd": []string{"true"}, "ExposedPorts": map[string]any{port: struct{}{}},
		"HostConfig": map[string]any{"NetworkMode": network, "PortBindings": map[string]any{port: []any{map[string]string{"HostPort": ""}}}},
	}
}

// shape is a bridge with two members, and a port of the host that leads to one.
type shape struct {
	world   *world.World
	client  *os.File // namespaces
	server  *os.File
	server4 string
	port    int
}

func berthShape(e *live.Engine) (*shape, error) {
	s := &shape{world: e.World, port: 8080}
	for _, c := range []struct {
		ns   **os.File
		spec map[string]any
	}{{&s.client, publishing("bridge", "81/tcp")}, {&s.server, publishing("bridge", "80/tcp")}} {
		c.spec["Cmd"] = []string{"sleep", "100000"}
		if c.ns == &s.server {
			c.spec["HostConfig"].(map[string]any)["PortBindings"] = map[string]any{"80/tcp": []any{map[string]string{"HostPort": "8080"}}}
		}
		var made created
		if err := e.Call(http.MethodPost, api+"/containers/create", c.spec, &made); err != nil {
			return nil, err
		}
		if err := e.Call(http.MethodPost, api+"/containers/"+made.ID+"/start", nil, nil); err != nil {
			return nil, err
		}
		var i struct {
			State           struct{ Pid int }
			NetworkSettings struct {
				Networks map[string]struct{ IPAddress string }
			}
		}
		if err := e.Call(http.MethodGet, api+"/containers/"+made.ID+"/json", nil, &i); err != nil {
			return nil, err
		}
		var err error
		if *c.ns, err = netns.OfProcess(i.State.Pid); err != nil {
			return nil, err
		}
		s.server4 = i.NetworkSettings.Networks["bridge"].IPAddress
	}
	return s, nil
}

// handShape is the same with ip and nft, as short as it can be said.
func handShape() (_ *shape, err error) {
	w, err := world.New()
	if err != nil {
		return nil, err
	}
	s := &shape{world: w, server4: "172.30.0.3", port: 8080}
	dir, err := os.MkdirTemp("", "berth-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	script := "ip link add br0 mtu 1400 type bridge; ip addr add 172.30.0.1/24 dev br0; ip link set br0 up; sysctl -qw net.ipv4.ip_forward=1\n"
	for i, ns := range []**os.File{&s.client, &s.server} {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := netns.Create(path); err != nil {
			return nil, err
		}
		defer netns.Remove(path)
		if *ns, err = netns.Open(path); err != nil {
			return nil, err
		}
		script += fmt.Sprintf("ip link add v%d mtu 1400 master br0 type veth peer name eth0 mtu 1400 netns %s; ip link set v%d up\n", i, path, i)
		script += fmt.Sprintf("nsenter --net=%s sh -c 'ip link set lo up; ip addr add 172.30.0.%d/24 dev eth0; ip link set eth0 up; ip route add default via 172.30.0.1'\n", path, i+2)
	}
	script += `nft -f - <<EOF
table ip nat {
	chain pre { type nat hook prerouting priority dstnat; fib daddr type local tcp dport 8080 dnat to 172.30.0.3:80; }
	chain out { type nat hook output priority -100; fib daddr type local tcp dport 8080 dnat to 172.30.0.3:80; }
	chain post { type nat hook postrouting priority srcnat; ip saddr 172.30.0.0/24 oifname != "br0" masquerade; }
}
EOF
`
	cmd := exec.Command("sh", "-ec", script)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := w.Start(cmd); err != nil {
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out.String())
	}
	return s, nil
}

// trafficTime is how long each way is loaded in each round.
const trafficTime = 400 * time.Millisecond

// compareTraffic loads both shapes alternately: a stream of bytes, and questions of one byte that are answered by one.
func compareTraffic(t *table, what string, ours, hand *shape, dial func(*shape) (net.Conn, error)) error {
	var stream, asks [2][]float64
	for _, s := range []*shape{ours, hand} {
		stop, err := s.serve()
		if err != nil {
			return err
		}
		defer stop()
	}
	for range 7 {
		for i, s := range []*shape{ours, hand} {
			sent, err := load(s, dial, 'S')
			if err != nil {
				return err
			}
			asked, err := load(s, dial, 'Q')
			if err != nil {
				return err
			}
			stream[i], asks[i] = append(stream[i], sent), append(asks[i], asked)
		}
	}
	// The budget is a floor: the table knows ceilings, so the inverse is shown.
	t.row(what+": Gbit/s", median(stream[0])*8/1e9, 0, "Gbit/s")
	t.row("… by hand over ours", median(ratios(stream[1], stream[0])), 1/0.95, "x")
	t.row(what+": requests a second", median(asks[0]), 0, "/s")
	t.row("… by hand over ours", median(ratios(asks[1], asks[0])), 1/0.95, "x")
	return nil
}

// serve answers on port 80 of the shape's server: 'S' takes bytes, 'Q' answers each byte.
func (s *shape) serve() (stop func(), err error) {
	var l net.Listener
	if derr := netns.Do(s.server, func() error { l, err = net.Listen("tcp4", ":80"); return nil }); derr != nil || err != nil {
		return nil, errors.Join(derr, err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			answer(c) // one after the other: what the scheduler costs is not what is measured
		}
	}()
	return func() { l.Close() }, nil
}

func answer(c net.Conn) {
	defer c.Close()
	kind := make([]byte, 1)
	if _, err := io.ReadFull(c, kind); err != nil {
		return
	}
	if kind[0] == 'S' {
		_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
		return
	}
	for {
		if _, err := c.Read(kind); err != nil {
			return
		}
		if _, err := c.Write(kind); err != nil {
			return
		}
	}
}

// load gives what went through a second: bytes or questions.
func load(s *shape, dial func(*shape) (net.Conn, error), kind byte) (float64, error) {
	c, err := dial(s)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := c.Write([]byte{kind}); err != nil {
		return 0, err
	}
	buf := make([]byte, 256<<10)
	if kind == 'Q' {
		buf = buf[:1]
	}
	var done int
	began := time.Now()
	for time.Since(began) < trafficTime {
		n, err := c.Write(buf)
		if err != nil {
			return 0, err
		}
		if kind == 'Q' {
			if _, err := io.ReadFull(c, buf); err != nil {
				return 0, err
			}
		}
		done += n
	}
	return float64(done) / time.Since(began).Seconds(), nil
}

// compareProxy measures a published port on the host's loopback beside Docker's userland proxy before the same container: the time from
// connecting to the first byte of the answer.
func compareProxy(t *table, o options, s *shape) error {
	stop, err := s.serve()
	if err != nil {
		return err
	}
	defer stop()
	proxy := dockerProxy()
	if proxy != "" {
		cmd := exec.Command(proxy, "-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", "9090", "-container-ip", s.server4, "-container-port", "80")
		if err := startProxy(s.world, cmd); err != nil {
			return fmt.Errorf("%s: %w", proxy, err)
		}
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	}
	var ours, theirs []float64
	for range o.n * 5 {
		for _, side := range []struct {
			port int
			to   *[]float64
		}{{s.port, &ours}, {9090, &theirs}} {
			if side.port != s.port && proxy == "" {
				continue
			}
			took, err := s.firstByte(side.port)
			if err != nil {
				return fmt.Errorf("port %d: %w", side.port, err)
			}
			*side.to = append(*side.to, took)
		}
	}
	t.row("published port on loopback, connect to first byte, median", median(ours), 0, "ms")
	var asks, theirAsks []float64
	for range 20 {
		took, err := s.answers(s.port)
		if err != nil {
			return err
		}
		asks = append(asks, took)
		if proxy == "" {
			continue
		}
		if took, err = s.answers(9090); err != nil {
			return fmt.Errorf("docker-proxy: %w", err)
		}
		theirAsks = append(theirAsks, took)
	}
	t.row("the same, a question on an open connection, median", median(asks), 0, "ms")
	if proxy == "" {
		t.note("no docker-proxy to compare with: install docker.io, or put it on PATH")
		return nil
	}
	t.row("connect to first byte over Docker's userland proxy", median(ratios(ours, theirs)), 0.6, "x")
	t.row("a question on an open connection over Docker's userland proxy", median(ratios(asks, theirAsks)), 0.6, "x")
	return nil
}

// answers gives the median time of a question and its answer on one connection to a port of the host's loopback.
func (s *shape) answers(port int) (float64, error) {
	c, err := s.world.Dial(s.world.Host, "tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := c.Write([]byte("Q")); err != nil {
		return 0, err
	}
	var took []float64
	b := []byte(".")
	for range 300 {
		began := time.Now()
		if _, err := c.Write(b); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return 0, err
		}
		took = append(took, milliseconds(time.Since(began)))
	}
	return median(took), nil
}

// startProxy starts the proxy and waits until it listens, which it tells on its descriptor 3 by a 0.
func startProxy(w *world.World, cmd *exec.Cmd) error {
	r, told, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{told}
	err = w.Start(cmd)
	told.Close()
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		return errors.Join(err, cmd.Wait())
	}
	return nil
}

// firstByte gives the time from connecting to the first byte of the answer. It uses blocking calls: what Go's scheduler adds to both
// sides is not what is compared.
func (s *shape) firstByte(port int) (float64, error) {
	var fd int
	err := netns.Do(s.world.Host, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	began := time.Now()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	if _, err := unix.Write(fd, []byte("Q.")); err != nil {
		return 0, err
	}
	if n, err := unix.Read(fd, make([]byte, 1)); n != 1 {
		return 0, fmt.Errorf("%d bytes of an answer: %w", n, err)
	}
	return milliseconds(time.Since(began)), nil
}

// dockerProxy finds Docker's userland proxy.
func dockerProxy() string {
	if p, err := exec.LookPath("docker-proxy"); err == nil {
		return p
	}
	for _, p := range []string{"/usr/libexec/docker/docker-proxy", "/usr/lib/docker/docker-proxy", "/usr/sbin/docker-proxy"} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return ""
}

package world

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"berth/kernel/netns"
)

// Addresses of the cable's two ends.
const (
	Outside4 = "198.51.100.1"
	Host4    = "198.51.100.2"
	Outside6 = "2001:db8::1"
	Host6    = "2001:db8::2"
)

// MTU of the cable: less than an Ethernet's, so that tests notice who does not follow it.
const MTU = 1400

// Relayed are the TCP ports on which the outside plays the whole world.
var Relayed = []int{53, 80, 443}

// World is a host and its outside. Its methods may be called from many goroutines.
type World struct {
	Host, Outside *os.File // the namespaces

	closers []io.Closer
	busy    sync.WaitGroup
	mu      sync.Mutex
	open    map[net.Conn]struct{} // nil once closed
}

// New makes a world. It needs root and the program ip.
func New() (_ *World, err error) {
	w := &World{open: map[net.Conn]struct{}{}}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	dir, err := os.MkdirTemp("", "berth-world-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for name, ns := range map[string]**os.File{"host": &w.Host, "outside": &w.Outside} {
		path := filepath.Join(dir, name)
		if err := netns.Create(path); err != nil {
			return nil, err
		}
		*ns, err = netns.Open(path)
		if err := errors.Join(err, netns.Remove(path)); err != nil {
			return nil, err
		}
	}
	if err := w.wire(); err != nil {
		return nil, err
	}
	return w, w.relay()
}

// wire lays the cable.
func (w *World) wire() error {
	err := w.ip(w.Outside, []*os.File{w.Host},
		"link set lo up",
		fmt.Sprintf("link add cable mtu %d type veth peer name eth0 mtu %d netns /proc/self/fd/3", MTU, MTU),
		"addr add "+Outside4+"/24 dev cable", "addr add "+Outside6+"/64 dev cable nodad", "link set cable up",
		"route add local 0.0.0.0/0 dev lo table main", "route add local ::/0 dev lo table main",
	)
	if err != nil {
		return err
	}
	return w.ip(w.Host, nil,
		"link set lo up", "addr add "+Host4+"/24 dev eth0", "addr add "+Host6+"/64 dev eth0 nodad", "link set eth0 up",
		"route add default via "+Outside4, "route add default via "+Outside6,
	)
}

// ip runs the program of that name once, for several lines.
func (w *World) ip(ns *os.File, extra []*os.File, lines ...string) error {
	for _, line := range lines {
		cmd := exec.Command("ip", strings.Fields(line)...)
		cmd.ExtraFiles = extra
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := w.run(ns, cmd); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out.String())
		}
	}
	return nil
}

func (w *World) run(ns *os.File, cmd *exec.Cmd) error {
	if err := netns.Do(ns, cmd.Start); err != nil {
		return err
	}
	return cmd.Wait()
}

// Start starts a command on the host.
func (w *World) Start(cmd *exec.Cmd) error { return netns.Do(w.Host, cmd.Start) }

// StartOutside starts a command in the outside.
func (w *World) StartOutside(cmd *exec.Cmd) error { return netns.Do(w.Outside, cmd.Start) }

// Dial connects from a namespace.
func (w *World) Dial(from *os.File, network, address string) (c net.Conn, err error) {
	derr := netns.Do(from, func() error {
		c, err = net.DialTimeout(network, address, 5*time.Second) // an address, not a name: no other thread is involved
		return nil
	})
	return c, errors.Join(derr, err)
}

// Left lists what is on the host beside what New put there: links, and tables of rules where the program nft is found.
func (w *World) Left() (all []string) {
	for _, args := range [][]string{{"ip", "-o", "link"}, {"nft", "list", "tables"}} {
		cmd := exec.Command(args[0], args[1:]...)
		var out strings.Builder
		cmd.Stdout = &out
		if err := w.run(w.Host, cmd); err != nil {
			continue // the program is not there
		}
		for line := range strings.Lines(out.String()) {
			if line = strings.TrimSpace(line); !strings.Contains(line, " lo: ") && !strings.Contains(line, " eth0@") {
				all = append(all, line)
			}
		}
	}
	return all
}

// relay plays the world: whatever is sent to one of the relayed ports, at any address.
func (w *World) relay() error {
	return netns.Do(w.Outside, func() error {
		for _, port := range Relayed {
			l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
			if err != nil {
				return err
			}
			w.closers = append(w.closers, l)
			w.busy.Go(func() { w.serve(l) })
		}
		return w.relayNames()
	})
}

func (w *World) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		w.busy.Go(func() { w.carry(c) })
	}
}

// carry takes one connection on, from the machine's namespace: that is where a goroutine's threads are.
func (w *World) carry(in net.Conn) {
	defer in.Close()
	out, err := net.DialTimeout("tcp", in.LocalAddr().String(), 10*time.Second)
	if err != nil {
		return
	}
	defer out.Close()
	if !w.track(in, out) {
		return
	}
	defer w.untrack(in, out)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(out, in) // who broke off is seen by both
		_ = out.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(in, out)
	_ = in.(*net.TCPConn).CloseWrite()
	<-done
}

func (w *World) track(all ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		return false
	}
	for _, c := range all {
		w.open[c] = struct{}{}
	}
	return true
}

func (w *World) untrack(all ...net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range all {
		delete(w.open, c)
	}
}

// Close ends the relay and lets go of the namespaces.
func (w *World) Close() error {
	for _, c := range w.closers {
		c.Close()
	}
	w.mu.Lock()
	for c := range w.open {
		c.Close()
	}
	w.open = nil
	w.mu.Unlock()
	w.busy.Wait()
	for _, ns := range []*os.File{w.Host, w.Outside} {
		if ns != nil {
			ns.Close()
		}
	}
	return nil
}

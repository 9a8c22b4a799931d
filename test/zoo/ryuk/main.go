// Command ryuk stands in for the reaper that testcontainers starts beside its containers, whose own program cannot be had as a package.
// It speaks the same protocol, on port 8080 and with the engine on /var/run/docker.sock: each line that a client sends is a filter
// ("label=a=b", several with & between them), and is acknowledged; once every client has gone, and none has come back for a while, what
// fits a filter is removed: containers, networks, volumes, images.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"
)

// comeBack is how long clients may be gone before their things are taken away.
const comeBack = time.Second

func main() {
	if err := run(); err != nil {
		slog.Error("ryuk", "error", err)
		os.Exit(1)
	}
}

func run() error {
	engine, err := client.New(client.WithHost("unix:///var/run/docker.sock"))
	if err != nil {
		return err
	}
	if _, err := engine.Ping(context.Background(), client.PingOptions{}); err != nil {
		return err
	}
	l, err := net.Listen("tcp", ":8080")
	if err != nil {
		return err
	}
	fmt.Println("Started")
	a := &attendance{gone: make(chan struct{}, 1)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // the program is ending
			}
			a.come()
			go func() {
				defer a.leave()
				a.listen(conn)
			}()
		}
	}()
	for range a.gone {
		time.Sleep(comeBack)
		if filters, alone := a.heard(); alone {
			return reap(engine, filters)
		}
	}
	return nil
}

// attendance knows who is there and what was asked for.
type attendance struct {
	mu      sync.Mutex
	here    int
	filters []client.Filters
	gone    chan struct{} // somebody left, and nobody is there
}

func (a *attendance) come() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.here++
}

func (a *attendance) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.here--; a.here == 0 {
		select {
		case a.gone <- struct{}{}:
		default:
		}
	}
}

func (a *attendance) heard() ([]client.Filters, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.filters, a.here == 0
}

func (a *attendance) listen(conn net.Conn) {
	defer conn.Close()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		values, err := url.ParseQuery(strings.TrimSpace(lines.Text()))
		if err != nil {
			continue
		}
		f := client.Filters{}
		for name, list := range values {
			f.Add(name, list...)
		}
		a.mu.Lock()
		a.filters = append(a.filters, f)
		a.mu.Unlock()
		if _, err := fmt.Fprintln(conn, "ACK"); err != nil {
			return
		}
	}
}

// reap removes what fits a filter. This container itself fits none.
func reap(engine *client.Client, filters []client.Filters) error {
	ctx := context.Background()
	for _, f := range filters {
		containers, err := engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: f})
		if err != nil {
			return err
		}
		self, _ := os.Hostname()
		for _, c := range containers.Items {
			if self != "" && strings.HasPrefix(c.ID, self) {
				continue
			}
			if _, err := engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
				slog.Warn("a container stays", "id", c.ID, "error", err)
			}
		}
		networks, err := engine.NetworkList(ctx, client.NetworkListOptions{Filters: f})
		if err != nil {
			return err
		}
		for _, n := range networks.Items {
			if _, err := engine.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{}); err != nil {
				slog.Warn("a network stays", "id", n.ID, "error", err)
			}
		}
		volumes, err := engine.VolumeList(ctx, client.VolumeListOptions{Filters: f})
		if err != nil {
			return err
		}
		for _, v := range volumes.Items {
			if _, err := engine.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{Force: true}); err != nil {
				slog.Warn("a volume stays", "name", v.Name, "error", err)
			}
		}
	}
	return nil
}

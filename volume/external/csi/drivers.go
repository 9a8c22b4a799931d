package csi

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"berth/base/fault"
	"berth/volume/driver"
	"berth/volume/turn"
	"berth/volume/use"
)

// Config says where drivers are and what is kept of their volumes.
type Config struct {
	Root    string        // states of volumes, durable
	RunRoot string        // where volumes are staged and published, of this boot
	Dirs    []string      // where drivers are found
	Timeout time.Duration // how long a driver may take for one step, its retries included; 0: 2 minutes
	Retry   time.Duration // pause between tries to clean up what was never finished; 0: 30 s
	Notes   use.Notes     // users of volumes
	Log     *slog.Logger
}

// Drivers is all CSI drivers that this host has.
type Drivers struct {
	cfg   Config
	store store
	turns turn.Turns

	stop    context.CancelFunc
	janitor sync.WaitGroup
	wake    chan struct{}

	mu      sync.Mutex         // guards what follows
	clients map[string]*client // by sockets
	named   map[string]string  // sockets by what their drivers call themselves
}

// Open opens the drivers' states and begins to clean up what an earlier engine left half done.
func Open(cfg Config) (*Drivers, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Minute
	}
	if cfg.Retry == 0 {
		cfg.Retry = 30 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []string{cfg.Root, cfg.RunRoot} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	d := &Drivers{cfg: cfg, store: store{cfg.Root, cfg.RunRoot}, stop: stop, wake: make(chan struct{}, 1), clients: map[string]*client{}, named: map[string]string{}}
	d.janitor.Go(func() { d.cleanUp(ctx) })
	return d, nil
}

// Close ends what is under way. Volumes stay as they are.
func (d *Drivers) Close() {
	d.stop()
	d.janitor.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.clients {
		c.close()
	}
	clear(d.clients)
}

// generic is the driver whose volumes bring their endpoint.
const generic = "csi"

// A place is where a driver is and what its file says.
type place struct {
	name       string
	socket     string            // "": the volume's options tell
	Endpoint   string            `json:"endpoint"`
	Controller string            `json:"controller"` // where the controller service has a socket of its own
	Parameters map[string]string `json:"parameters"`
	Secrets    map[string]string `json:"secrets"`
	Unmounted  bool              `json:"unmounted"` // it may publish what is no mount
}

var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// find looks for a driver by the name of its file, then by the name it gives itself. nil: there is none.
func (d *Drivers) find(ctx context.Context, name string) (*place, error) {
	p, err := d.findFile(name)
	if p != nil || err != nil || !strings.Contains(name, ".") { // drivers call themselves by domains
		return p, err
	}
	if socket := d.findNamed(ctx, name); socket != "" {
		return &place{name: name, socket: socket}, nil
	}
	return nil, nil
}

// findNamed asks the drivers whose sockets are in the directories how they are called, all at once and not for long.
func (d *Drivers) findNamed(ctx context.Context, name string) string {
	d.mu.Lock()
	known := d.named[name]
	d.mu.Unlock()
	if st, err := os.Stat(known); err == nil && st.Mode()&fs.ModeSocket != 0 {
		return known
	}
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	var asking sync.WaitGroup
	for _, dir := range d.cfg.Dirs {
		sockets, _ := filepath.Glob(filepath.Join(dir, "*.sock"))
		below, _ := filepath.Glob(filepath.Join(dir, "*", "*.sock"))
		for _, socket := range append(sockets, below...) {
			if st, err := os.Stat(socket); err != nil || st.Mode()&fs.ModeSocket == 0 {
				continue
			}
			asking.Go(func() {
				c, err := d.client(socket, "")
				if err != nil {
					return
				}
				if info, err := c.id.GetPluginInfo(ctx, &csi.GetPluginInfoRequest{}); err == nil && info.GetName() != "" {
					d.mu.Lock()
					defer d.mu.Unlock()
					d.named[info.GetName()] = socket
				}
			})
		}
	}
	asking.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.named[name]
}

// nameTimeout is how long drivers have to tell their names.
const nameTimeout = 2 * time.Second

func (d *Drivers) findFile(name string) (*place, error) {
	if !validName.MatchString(name) {
		return nil, nil
	}
	for _, dir := range d.cfg.Dirs {
		b, err := os.ReadFile(filepath.Join(dir, name+".json"))
		if err == nil {
			p := &place{name: name}
			if err := json.Unmarshal(b, p); err != nil {
				return nil, fault.Wrap(fault.Invalid, err, "read %s", filepath.Join(dir, name+".json"))
			}
			if p.Controller != "" {
				if p.Controller, err = socketOf(p.Controller); err != nil {
					return nil, err
				}
			}
			if p.Endpoint != "" {
				p.socket, err = socketOf(p.Endpoint)
			} else if name != generic {
				err = fault.New(fault.Invalid, "%s names no endpoint", filepath.Join(dir, name+".json"))
			}
			return p, err
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, socket := range []string{filepath.Join(dir, name+".sock"), filepath.Join(dir, name, "csi.sock"), filepath.Join(dir, name, name+".sock")} {
			if st, err := os.Stat(socket); err == nil && st.Mode()&fs.ModeSocket != 0 {
				return &place{name: name, socket: socket}, nil
			}
		}
	}
	if name == generic {
		return &place{name: generic}, nil
	}
	return nil, nil
}

// Find gives the driver of that name; nil when there is none. Nothing is asked of it yet.
func (d *Drivers) Find(ctx context.Context, name string) (driver.Driver, error) {
	p, err := d.find(ctx, name)
	if p == nil || err != nil {
		return nil, err
	}
	return &volumes{d, p}, nil
}

// All gives the drivers that have volumes: what a driver has without us is none of ours, so none of them is asked.
func (d *Drivers) All(context.Context) (map[string]driver.Driver, []string) {
	found := map[string]driver.Driver{}
	names, err := d.store.names()
	if err != nil {
		return found, []string{"CSI volumes cannot be read: " + err.Error()}
	}
	for _, name := range names {
		st, err := d.store.read(name)
		if err != nil || st == nil || found[st.Driver] != nil {
			continue
		}
		p, _ := d.findFile(st.Driver)
		if p == nil {
			p = &place{name: st.Driver} // it is away; its volumes are not
		}
		found[st.Driver] = &volumes{d, p}
	}
	return found, nil
}

// client gives the connection to a driver's socket, or two.
func (d *Drivers) client(socket, controller string) (*client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := socket + "\x00" + controller
	if c := d.clients[key]; c != nil {
		return c, nil
	}
	c, err := dial(socket, controller, d.cfg.Timeout)
	if err == nil {
		d.clients[key] = c
	}
	return c, err
}

// reach gives the driver of a volume, asked what it can do.
func (d *Drivers) reach(ctx context.Context, st *state) (*client, *facts, *place, error) {
	p, err := d.find(ctx, st.Driver)
	if err != nil {
		return nil, nil, nil, err
	}
	if p == nil {
		return nil, nil, nil, fault.New(fault.NotFound, "CSI driver %q not found in %s", st.Driver, strings.Join(d.cfg.Dirs, ", "))
	}
	socket := p.socket
	if st.Socket != "" {
		socket = st.Socket
	}
	if socket == "" {
		return nil, nil, nil, fault.New(fault.Invalid, `missing required option: "endpoint"`)
	}
	c, err := d.client(socket, p.Controller)
	if err != nil {
		return nil, nil, nil, err
	}
	f, err := c.ask(ctx)
	return c, f, p, err
}

// secrets gives what the driver needs to know to do its work: of its file, and of the volume's.
func secrets(p *place, o *options) (map[string]string, error) {
	all := maps.Clone(p.Secrets)
	if o.secrets == "" {
		return all, nil
	}
	b, err := os.ReadFile(o.secrets)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "secrets")
	}
	own := map[string]string{}
	if err := json.Unmarshal(b, &own); err != nil {
		return nil, fault.New(fault.Invalid, "secrets: %s is no JSON object of strings", o.secrets) // its text is not shown
	}
	if all == nil {
		return own, nil
	}
	maps.Copy(all, own)
	return all, nil
}

// cleanUp finishes what was broken off: volumes whose creation was never answered, and deletions. It tries again until nothing is left.
func (d *Drivers) cleanUp(ctx context.Context) {
	pause := d.cfg.Retry
	for {
		left := d.sweep(ctx)
		var again <-chan time.Time
		if left {
			again, pause = time.After(pause), min(2*pause, 20*d.cfg.Retry)
		} else {
			pause = d.cfg.Retry
		}
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
			select { // what just failed is not tried again at once
			case <-ctx.Done():
				return
			case <-time.After(d.cfg.Retry):
			}
		case <-again:
		}
	}
}

// kick has the janitor look again.
func (d *Drivers) kick() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// sweep tries once for each volume that is between two phases; left tells that some still are.
func (d *Drivers) sweep(ctx context.Context) (left bool) {
	names, err := d.store.names()
	if err != nil {
		d.cfg.Log.Error("CSI volumes cannot be read", "error", err)
	}
	slices.Sort(names)
	for _, name := range names {
		if ctx.Err() != nil {
			return false
		}
		if err := d.finish(ctx, name); err != nil {
			d.cfg.Log.Warn("CSI volume is not cleaned up yet", "volume", name, "error", err)
			left = true
		}
	}
	return left
}

// finish deletes a volume that was being created or deleted by nobody who is still at it.
func (d *Drivers) finish(ctx context.Context, name string) error {
	release, err := d.turns.Take(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	st, err := d.store.read(name)
	if err != nil || st == nil || st.Phase == ready {
		return err
	}
	return (&volumes{d, &place{name: st.Driver}}).delete(ctx, name, st)
}

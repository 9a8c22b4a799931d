package plugin

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/base/fault"
)

// Config says where plugins are found and how long they are waited for. The zero value is Docker's places.
type Config struct {
	Sockets string        // directory of NAME.sock; "": /run/docker/plugins
	Specs   []string      // directories of NAME.spec and NAME.json; nil: /etc/docker/plugins, /usr/lib/docker/plugins
	Wait    time.Duration // how long connecting to a plugin that is known is tried; 0: 15 s
	Timeout time.Duration // how long one call may take; 0: 2 minutes, as Docker allows a volume's
	Managed Supplier      // of plugins that the engine runs itself; nil: there are none
	Log     *slog.Logger  // nil: nothing is logged
}

// Supplier knows plugins that need not be looked for. They go before those that are found, and are not asked what they
// serve: it is part of what they are.
type Supplier interface {
	// Find gives a plugin's socket and the subsystems it serves; false where there is none of that name.
	Find(name string) (socket string, serves []string, ok bool)
	// Names lists the plugins that there are.
	Names() []string
	// HostPath gives the place on the host of a path that the plugin speaks of: it has a file system of its own.
	HostPath(name, path string) string
}

// Registry finds plugins and remembers those that were activated. It is safe for concurrent use.
type Registry struct {
	cfg  Config
	ctx  context.Context // ends with Close; activations run under it
	stop context.CancelFunc
	work sync.WaitGroup

	mu     sync.Mutex
	closed bool
	known  map[string]*activation // by name
}

// An activation is a plugin that was or is being activated. Its fields after done may be read once done is closed.
type activation struct {
	place place
	done  chan struct{}
	p     *Plugin
	err   error
}

// New makes a registry. It reads nothing yet.
func New(cfg Config) *Registry {
	if cfg.Sockets == "" {
		cfg.Sockets = "/run/docker/plugins"
	}
	if cfg.Specs == nil {
		cfg.Specs = []string{"/etc/docker/plugins", "/usr/lib/docker/plugins"}
	}
	if cfg.Wait <= 0 {
		cfg.Wait = 15 * time.Second
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 2 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Registry{cfg: cfg, ctx: ctx, stop: stop, known: map[string]*activation{}}
}

// Close ends activations that are under way and waits for them. Plugins that were handed out stay usable.
func (r *Registry) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.stop()
	r.work.Wait()
}

// Get gives the plugin of that name, activated, if it serves the subsystem ("VolumeDriver" …).
// fault.NotFound: there is none, with Docker's words `plugin "NAME" not found`, or it does not serve the
// subsystem; fault.Unavailable or fault.Deadline: it is there but did not answer.
func (r *Registry) Get(ctx context.Context, name, subsystem string) (*Plugin, error) {
	at, ok := r.find(name)
	if !ok {
		return nil, fault.New(fault.NotFound, "plugin %q not found", name)
	}
	a, err := r.activated(at)
	if err != nil {
		return nil, err
	}
	select {
	case <-a.done:
	case <-ctx.Done():
		return nil, fault.In(ctx.Err(), "activate plugin %q", name)
	}
	if a.err != nil {
		return nil, a.err
	}
	if !a.p.Serves(subsystem) {
		return nil, fault.New(fault.NotFound, "plugin %q does not implement the requested driver: it serves %s, not %s",
			name, strings.Join(a.p.implements, ", "), subsystem)
	}
	return a.p, nil
}

// All gives every plugin that can be found, answers and serves the subsystem, by name. Those that do not
// answer are logged and left out; each has at most the time of the context.
func (r *Registry) All(ctx context.Context, subsystem string) []*Plugin {
	names := r.Names()
	found := make([]*Plugin, len(names))
	var asking sync.WaitGroup
	for i, name := range names {
		asking.Go(func() {
			p, err := r.Get(ctx, name, subsystem)
			switch {
			case err == nil:
				found[i] = p
			case !fault.Is(err, fault.NotFound):
				r.cfg.Log.Warn("a plugin does not answer", "plugin", name, "err", err)
			}
		})
	}
	asking.Wait()
	return slices.DeleteFunc(found, func(p *Plugin) bool { return p == nil })
}

// Names lists the plugins that can be found, sorted, without asking them anything.
func (r *Registry) Names() []string {
	var names []string
	collect := func(dir string, wanted func(fs.DirEntry) bool) {
		for _, sub := range append([]string{""}, directories(dir)...) {
			entries, err := os.ReadDir(filepath.Join(dir, sub))
			if err != nil {
				continue // not there: nobody has plugins of that sort
			}
			for _, e := range entries {
				name := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))
				if wanted(e) && (sub == "" || sub == name) {
					names = append(names, name)
				}
			}
		}
	}
	collect(r.cfg.Sockets, func(e fs.DirEntry) bool {
		return e.Type()&fs.ModeSocket != 0 && filepath.Ext(e.Name()) == ".sock"
	})
	for _, dir := range r.cfg.Specs {
		collect(dir, func(e fs.DirEntry) bool {
			ext := filepath.Ext(e.Name())
			return !e.IsDir() && (ext == ".spec" || ext == ".json")
		})
	}
	if r.cfg.Managed != nil {
		names = append(names, r.cfg.Managed.Names()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func directories(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// activated starts an activation of what lies at the place, or gives the one that was started before.
func (r *Registry) activated(at place) (*activation, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, fault.New(fault.Unavailable, "plugins are closed")
	}
	if a := r.known[at.name]; a != nil && a.place == at {
		return a, nil
	}
	a := &activation{place: at, done: make(chan struct{})}
	r.known[at.name] = a
	r.work.Go(func() { r.activate(a) })
	return a, nil
}

func (r *Registry) activate(a *activation) {
	defer close(a.done)
	a.p, a.err = r.ask(a.place)
	if a.err == nil {
		return
	}
	// A failure is told to those who wait and then forgotten: the next Get tries again.
	r.mu.Lock()
	if r.known[a.place.name] == a {
		delete(r.known, a.place.name)
	}
	r.mu.Unlock()
}

func (r *Registry) ask(at place) (*Plugin, error) {
	p, err := r.client(at)
	if err != nil {
		return nil, err
	}
	if at.managed {
		p.implements, p.hostPath = strings.Split(at.serves, ","), r.cfg.Managed.HostPath
		return p, nil
	}
	var manifest struct{ Implements []string }
	ctx, cancel := context.WithTimeout(r.ctx, 2*r.cfg.Wait) // one to connect, one to answer
	defer cancel()
	if err := p.Call(ctx, "Plugin.Activate", nil, &manifest); err != nil {
		if r.ctx.Err() != nil {
			return nil, fault.New(fault.Unavailable, "activate plugin %q: the engine is stopping", at.name)
		}
		kind := fault.KindOf(err)
		if kind != fault.Deadline {
			kind = fault.Unavailable
		}
		return nil, fault.Wrap(kind, err, "activate plugin %q", at.name)
	}
	p.implements = manifest.Implements
	return p, nil
}

// names of plugins: one or several path elements with an optional tag, none of which can leave the directory.
var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.:-]*(/[a-zA-Z0-9][a-zA-Z0-9_.:-]*)*$`)

// A place is where a plugin was found. Two places are equal when the same file stands there.
type place struct {
	name, path string
	made       time.Time // of the file's last change
	inode      uint64
	managed    bool
	serves     string // of a managed one, joined by commas
}

// find looks the name up as Docker does: sockets first, then specs, then JSON, in each of the directories.
func (r *Registry) find(name string) (place, bool) {
	if !validName.MatchString(name) {
		return place{}, false
	}
	if r.cfg.Managed != nil {
		if socket, serves, ok := r.cfg.Managed.Find(name); ok {
			return place{name: name, path: socket, managed: true, serves: strings.Join(serves, ",")}, true
		}
	}
	look := func(dir, ext string, socket bool) (place, bool) {
		for _, path := range []string{filepath.Join(dir, name+ext), filepath.Join(dir, name, name+ext)} {
			info, err := os.Stat(path)
			if err != nil || info.IsDir() || (info.Mode()&fs.ModeSocket != 0) != socket {
				continue
			}
			return place{name: name, path: path, made: info.ModTime(), inode: inode(info)}, true
		}
		return place{}, false
	}
	if at, ok := look(r.cfg.Sockets, ".sock", true); ok {
		return at, true
	}
	for _, dir := range r.cfg.Specs {
		for _, ext := range []string{".spec", ".json"} {
			if at, ok := look(dir, ext, false); ok {
				return at, true
			}
		}
	}
	return place{}, false
}

// errEmpty is for specs that name no address.
var errEmpty = errors.New("it names no address")

package remote

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"

	"berth/base/plugin"
)

// Finder makes drivers of plugins when they are first asked for. It is safe for concurrent use.
type Finder struct {
	plugins *plugin.Registry
	dir     string
	log     *slog.Logger

	mu    sync.Mutex
	found map[string]*Driver
}

// NewFinder makes a finder; below dir, which is durable, each plugin's driver keeps its notes.
func NewFinder(plugins *plugin.Registry, dir string, log *slog.Logger) *Finder {
	return &Finder{plugins: plugins, dir: dir, log: log, found: map[string]*Driver{}}
}

// Find gives the driver that a plugin of the name is. The plugin is asked whether it is one the first time only, so that a
// network can be removed and its containers can end while the plugin is away. NotFound in Docker's words when there is none.
func (f *Finder) Find(ctx context.Context, name string) (*Driver, error) {
	f.mu.Lock()
	d := f.found[name]
	f.mu.Unlock()
	if d != nil {
		return d, nil
	}
	if _, err := f.plugins.Get(ctx, name, subsystem); err != nil {
		return nil, err
	}
	d, err := New(Config{Name: name, Plugins: f.plugins, Dir: filepath.Join(f.dir, strings.ReplaceAll(name, "/", "%2F")), Log: f.log})
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if first := f.found[name]; first != nil {
		d.Close()
		return first, nil
	}
	f.found[name] = d
	return d, nil
}

// Close closes the drivers that were found.
func (f *Finder) Close() (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, d := range f.found {
		err = errors.Join(err, d.Close())
		delete(f.found, name)
	}
	return err
}

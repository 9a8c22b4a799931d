package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"berth/base/fault"
	base "berth/base/plugin"
	"berth/volume/driver"
	"berth/volume/use"
)

const subsystem = "VolumeDriver"

// Drivers finds plugins that serve volumes.
type Drivers struct {
	registry *base.Registry
	notes    use.Notes

	mu    sync.Mutex // guards scope
	scope map[string]string
}

// Open looks for plugins in dirs: the sockets' directory, then those of specs; none are Docker's places. Users are noted in notes.
// managed, unless nil, knows more of them.
func Open(dirs []string, managed base.Supplier, notes use.Notes, log *slog.Logger) *Drivers {
	cfg := base.Config{Managed: managed, Log: log}
	if len(dirs) > 0 {
		cfg.Sockets, cfg.Specs = dirs[0], append([]string{}, dirs[1:]...)
	}
	return &Drivers{registry: base.New(cfg), notes: notes, scope: map[string]string{}}
}

// Close ends what is under way.
func (d *Drivers) Close() { d.registry.Close() }

// Find gives the plugin of that name; nil when there is none.
func (d *Drivers) Find(ctx context.Context, name string) (driver.Driver, error) {
	p, err := d.registry.Get(ctx, name, subsystem)
	if fault.Is(err, fault.NotFound) && err.Error() == fmt.Sprintf("plugin %q not found", name) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &volumes{p, d}, nil
}

// All gives every plugin that answers and serves volumes, and names those that do not answer.
func (d *Drivers) All(ctx context.Context) (map[string]driver.Driver, []string) {
	names := d.registry.Names()
	found := map[string]driver.Driver{}
	var wrong []string
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, name := range names {
		asking.Go(func() {
			p, err := d.registry.Get(ctx, name, subsystem)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				found[name] = &volumes{p, d}
			case !fault.Is(err, fault.NotFound): // it may serve something else
				wrong = append(wrong, fmt.Sprintf("plugin %q does not answer: %v", name, err))
			}
		})
	}
	asking.Wait()
	return found, wrong
}

// volumes is one plugin's volumes.
type volumes struct {
	*base.Plugin
	all *Drivers
}

// told is a volume in a plugin's words.
type told struct {
	Name       string
	Mountpoint string
	CreatedAt  string
	Status     map[string]any
}

func (v *volumes) found(t *told) driver.Found {
	created, _ := time.Parse(time.RFC3339, t.CreatedAt) // zero when it does not say
	return driver.Found{Name: t.Name, Mountpoint: v.HostPath(t.Mountpoint), Created: created, Status: t.Status}
}

type named struct {
	Name string
}

type used struct {
	Name string
	ID   string
}

// Scope is what the plugin says of itself, asked once.
func (v *volumes) Scope(ctx context.Context) string {
	v.all.mu.Lock()
	scope := v.all.scope[v.Name()]
	v.all.mu.Unlock()
	if scope != "" {
		return scope
	}
	var answer struct{ Capabilities struct{ Scope string } }
	err := v.Call(ctx, "VolumeDriver.Capabilities", struct{}{}, &answer)
	var refusal *base.RemoteError
	if err != nil && !base.Lacks(err) && !errors.As(err, &refusal) {
		return "local" // nothing to remember
	}
	scope = answer.Capabilities.Scope
	if scope != "global" {
		scope = "local"
	}
	v.all.mu.Lock()
	defer v.all.mu.Unlock()
	v.all.scope[v.Name()] = scope
	return scope
}

// Check leaves options to the plugin.
func (v *volumes) Check(map[string]string) error { return nil }

// Create makes a volume unless the plugin has it.
func (v *volumes) Create(ctx context.Context, name string, options map[string]string) error {
	_, err := v.Get(ctx, name)
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	return v.Call(ctx, "VolumeDriver.Create", struct {
		Name string
		Opts map[string]string
	}{name, options}, nil)
}

// Remove removes a volume. That the plugin has none is known by asking, as its refusals are words.
func (v *volumes) Remove(ctx context.Context, name string) error {
	err := v.Call(ctx, "VolumeDriver.Remove", named{name}, nil)
	if err != nil {
		if _, gerr := v.Get(ctx, name); fault.Is(gerr, fault.NotFound) {
			err = nil
		}
	}
	if err == nil {
		err = v.all.notes.Clear(name)
	}
	return err
}

// Get asks for one volume. Whatever a plugin that answers refuses means that it has none, as in Docker.
func (v *volumes) Get(ctx context.Context, name string) (driver.Found, error) {
	var answer struct{ Volume *told }
	err := v.Call(ctx, "VolumeDriver.Get", named{name}, &answer)
	var refusal *base.RemoteError
	switch {
	case errors.As(err, &refusal), err == nil && answer.Volume == nil:
		return driver.Found{}, fault.New(fault.NotFound, "plugin %q has no volume %s", v.Name(), name)
	case err != nil:
		return driver.Found{}, err
	}
	answer.Volume.Name = name
	return v.found(answer.Volume), nil
}

// List lists the plugin's volumes.
func (v *volumes) List(ctx context.Context) ([]driver.Found, error) {
	var answer struct{ Volumes []*told }
	if err := v.Call(ctx, "VolumeDriver.List", struct{}{}, &answer); err != nil {
		return nil, err
	}
	var list []driver.Found
	for _, t := range answer.Volumes {
		if t != nil && t.Name != "" {
			list = append(list, v.found(t))
		}
	}
	return list, nil
}

// Mount has the plugin mount for a user.
func (v *volumes) Mount(ctx context.Context, name, user string) (string, error) {
	path, fresh, err := v.all.notes.Begin(name, user)
	if err != nil || path != "" {
		return path, err
	}
	var answer struct{ Mountpoint string }
	err = v.Call(ctx, "VolumeDriver.Mount", used{name, user}, &answer)
	if err == nil && !filepath.IsAbs(answer.Mountpoint) {
		err = fault.New(fault.Internal, "it says that the volume is at %q, which is no path", answer.Mountpoint)
	}
	if err == nil {
		at := v.HostPath(answer.Mountpoint)
		return at, v.all.notes.Done(name, user, at)
	}
	var refusal *base.RemoteError
	if fresh && errors.As(err, &refusal) {
		v.forget(name, user) // it said no: nothing is mounted
	} else if fresh {
		// Nobody knows whether it is mounted. A note stays if it cannot be asked to unmount, either.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		v.Unmount(undo, name, user)
	}
	return "", fault.In(err, "error while mounting volume '%s': plugin %q", name, v.Name())
}

// undoTimeout is how long a plugin has to undo what it did not finish.
const undoTimeout = 5 * time.Second

// Unmount ends a user's use, if it is noted.
func (v *volumes) Unmount(ctx context.Context, name, user string) error {
	if v.all.notes.Noted(name, user) {
		if err := v.Call(ctx, "VolumeDriver.Unmount", used{name, user}, nil); err != nil {
			return fault.In(err, "plugin %q", v.Name())
		}
	}
	return v.forget(name, user)
}

func (v *volumes) forget(name, user string) error {
	if err := v.all.notes.End(name, user); err != nil {
		return err
	}
	if left, err := v.all.notes.Users(name); err != nil || len(left) > 0 {
		return err
	}
	return v.all.notes.Clear(name)
}

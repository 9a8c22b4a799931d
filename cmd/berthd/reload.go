package main

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"berth/api/server"
	"berth/base/event"
)

// reloader reads daemon.json again while the engine runs. What cannot change under a running engine is named, and waits for its next
// start, which containers do not notice.
type reloader struct {
	rooms *rooms
	log   *slog.Logger
	tell  func(server.About)
	read  func() (config, error) // the command line and daemon.json

	level *slog.LevelVar

	mu  sync.Mutex // one reload at a time
	cfg config     // as of the last reload
}

// live are the settings that take effect at once, by their key in daemon.json.
var live = map[string]func(*reloader, config) error{
	"debug":                 func(r *reloader, c config) error { r.level.Set(c.Level()); return nil },
	"log-level":             func(r *reloader, c config) error { r.level.Set(c.Level()); return nil },
	"labels":                nil, // About has them
	"experimental":          nil,
	"live-restore":          nil, // always on
	"trash-window":          reloadRemoval,
	"trash-min-free":        reloadRemoval,
	"gc-high":               reloadRemoval,
	"gc-low":                reloadRemoval,
	"gc-keep":               reloadRemoval,
	"gc-min-age":            reloadRemoval,
	"shutdown-timeout":      func(r *reloader, c config) error { r.rooms.patience.Store(int64(c.ShutdownTimeout)); return nil },
	"runtimes":              reloadRuntimes,
	"default-runtime":       reloadRuntimes,
	"authorization-plugins": func(r *reloader, c config) error { r.rooms.authzNames.Store(&c.AuthZ); return nil },
	"registry-mirrors": func(r *reloader, c config) error {
		return r.rooms.remote.Configure(c.Image.mirrors(), c.Image.Insecure)
	},
	"insecure-registries": func(r *reloader, c config) error {
		return r.rooms.remote.Configure(c.Image.mirrors(), c.Image.Insecure)
	},
	"max-concurrent-downloads": func(r *reloader, c config) error {
		r.rooms.transfer.Limit(c.Image.Downloads, c.Image.Uploads)
		return nil
	},
	"max-concurrent-uploads": func(r *reloader, c config) error {
		r.rooms.transfer.Limit(c.Image.Downloads, c.Image.Uploads)
		return nil
	},
}

// plan compares the file as it is now with what was last read. A file that means nothing is an error, and nothing changes.
func (r *reloader) plan() (config, []server.Setting, error) {
	next, err := r.read()
	if err != nil {
		return next, nil, err
	}
	return next, changes(r.cfg.File, next.File), nil
}

// changes lists the keys of two readings of daemon.json that differ, by name.
func changes(old, next map[string]string) []server.Setting {
	keys := map[string]bool{}
	for k := range old {
		keys[k] = true
	}
	for k := range next {
		keys[k] = true
	}
	all := []server.Setting{}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if old[k] == next[k] {
			continue
		}
		_, now := live[k]
		c := server.Setting{Key: k, Old: old[k], New: next[k], Live: now}
		if k == "proxies" { // their URLs may hold passwords
			c.Old, c.New = "(not shown)", "(not shown)"
		}
		all = append(all, c)
	}
	return all
}

// reload reads daemon.json again and, if apply is set, lets what changed take effect. All settings are checked before the first changes.
func (r *reloader) reload(apply bool) ([]server.Setting, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next, all, err := r.plan()
	if err != nil || !apply {
		return all, err
	}
	attrs := map[string]string{}
	for i, s := range all {
		attrs[s.Key] = s.New
		if !s.Live {
			r.log.Warn("a setting changed that takes effect when berthd starts again; containers do not notice that", "setting", s.Key, "was", s.Old, "is", s.New)
			continue
		}
		if f := live[s.Key]; f != nil {
			if err := f(r, next); err != nil { // checked by parseFlags: a defect, or the world has changed
				r.log.Error("a setting could not take effect", "setting", s.Key, "error", err)
				all[i].Live = false // it differs still: the next reload names it, and tries again
				continue
			}
		}
		r.log.Info("a setting changed", "setting", s.Key, "was", s.Old, "is", s.New)
	}
	r.keep(next, all)
	attrs["name"], _ = os.Hostname()
	r.rooms.events.Publish(event.Event{Type: "daemon", Action: "reload", ID: attrs["name"], Attributes: attrs})
	return all, nil
}

// keep remembers what is in force. What waits for the next start stays different from the file, so that every reload names it again.
func (r *reloader) keep(next config, all []server.Setting) {
	for _, s := range all {
		if s.Live {
			if s.New == "" {
				delete(r.cfg.File, s.Key)
			} else {
				r.cfg.File[s.Key] = s.New
			}
		}
	}
	a, said := about(r.cfg), about(next)
	a.Debug, a.Experimental, a.Authorizers = said.Debug, said.Experimental, said.Authorizers
	a.Labels = slices.Concat(next.Labels, r.cfg.Logs.labels(), next.Removal.labels()) // bounds of logs wait for the next start
	a.Registries.Mirrors, a.Registries.Insecure = said.Registries.Mirrors, said.Registries.Insecure
	r.tell(a)
}

// onSignal reloads on SIGHUP, and says so to systemd and the log.
func (r *reloader) onSignal() {
	notifySystemd(r.log, fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", monotonic().Microseconds())) // sd_notify(3)
	defer notifySystemd(r.log, "READY=1")
	all, err := r.reload(true)
	switch {
	case err != nil:
		r.log.Error("daemon.json was not read again: everything stays as it is", "error", strings.TrimSpace(err.Error()))
	case len(all) == 0:
		r.log.Info("daemon.json was read again: nothing has changed")
	}
}

// monotonic is the clock that systemd compares with.
func monotonic() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return time.Duration(t.Nano())
}

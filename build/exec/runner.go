package exec

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"berth/base/fault"
	"berth/build/cache"
	"berth/kernel/cgroup"
	"berth/kernel/mount"
	"berth/kernel/probe"
	"berth/runtime/launch"
	"berth/runtime/spec"
)

// Runner runs the processes of all builds of an engine. It is safe for concurrent use.
type Runner struct {
	cfg      Config
	facts    probe.Features
	layout   cgroup.Layout
	profiles spec.Profiles
	caches   *caches

	launching sync.Once // makes starter
	starter   *launch.Launcher
	startErr  error

	boxes sync.WaitGroup // what is not taken down yet

	mu     sync.Mutex // guards what follows
	closed bool
	places int             // number of the last scratch directory
	etcs   map[string]bool // files below ExecRoot/etc
}

// Open takes up the cache mounts and clears what an engine that died has left: its steps' processes, cgroups and mounts.
func Open(cfg Config) (*Runner, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	layout, err := cgroup.Detect()
	if err != nil {
		return nil, fault.In(err, "find the cgroups for build steps")
	}
	r := &Runner{cfg: cfg, facts: cfg.Facts, layout: layout}
	if r.facts == (probe.Features{}) {
		r.facts = probe.Host()
	}
	if err := r.sweep(); err != nil {
		return nil, fault.In(err, "clear away what build steps have left")
	}
	if r.caches, err = openCaches(cfg.Root, cfg.Log); err != nil {
		return nil, fault.In(err, "open the cache mounts of builds")
	}
	return r, nil
}

// Close waits for what still runs, which nobody may start any more, and gives everything up. Who waits for steps has cancelled them.
func (r *Runner) Close() error {
	r.mu.Lock()
	closed := r.closed
	r.closed = true
	r.mu.Unlock()
	if closed {
		return nil
	}
	r.boxes.Wait()
	r.launching.Do(func() { r.startErr = errClosed })
	if r.starter != nil {
		r.starter.Close()
	}
	return r.caches.close()
}

var errClosed = fault.New(fault.Unavailable, "the builder is shutting down")

// begin counts a box; end is called when it is down.
func (r *Runner) begin() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errClosed
	}
	r.boxes.Add(1)
	return nil
}

func (r *Runner) end() { r.boxes.Done() }

// launcher gives the launcher, whose threads are made with the first step.
func (r *Runner) launcher() (*launch.Launcher, error) {
	r.launching.Do(func() { r.starter, r.startErr = launch.NewLauncher(!r.cfg.InUserNS) })
	return r.starter, r.startErr
}

// scratch gives an empty directory that is nobody else's until done is called.
func (r *Runner) scratch() (dir string, done func(), err error) {
	r.mu.Lock()
	r.places++
	dir = filepath.Join(r.cfg.ExecRoot, "tmp", strconv.Itoa(r.places))
	r.mu.Unlock()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", nil, fault.Wrap(fault.Internal, err, "make a scratch directory")
	}
	return dir, func() { _ = os.Remove(dir) }, nil
}

// sweep kills and removes what steps of an earlier life have left, and makes our directories.
func (r *Runner) sweep() error {
	if err := r.sweepGroups(); err != nil {
		return err
	}
	if err := os.MkdirAll(r.cfg.ExecRoot, 0o711); err != nil {
		return err
	}
	if err := mount.UnmountBelow(r.cfg.ExecRoot); err != nil {
		return err
	}
	for _, sub := range []string{"tmp", "etc", "agent"} {
		dir := filepath.Join(r.cfg.ExecRoot, sub)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o711); err != nil {
			return err
		}
	}
	return nil
}

// sweepGroups ends the steps of an engine that died: those that did not die with it.
func (r *Runner) sweepGroups() error {
	seen := map[string]bool{}
	var errs []error
	for _, h := range r.layout.Hierarchies {
		dir := h.Place(r.layout.Mode, r.cfg.CgroupParent)
		list, err := os.ReadDir(dir)
		if err != nil {
			continue // no step has ever run
		}
		for _, e := range list {
			if !e.IsDir() || !strings.HasPrefix(e.Name(), groupPrefix) || seen[e.Name()] {
				continue
			}
			seen[e.Name()] = true
			cg, err := cgroup.Open(r.layout, filepath.Join("/", r.cfg.CgroupParent, e.Name()))
			if fault.Is(err, fault.NotFound) {
				continue
			}
			if err == nil {
				err = errors.Join(cg.Kill(), cg.Remove())
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// makeGroup makes the box's cgroup.
func (b *box) makeGroup() error {
	setup, err := cgroup.Plan(b.r.layout, b.cgroupPath(), b.spec.Linux.Resources)
	if err != nil {
		return err
	}
	setup.Lenient = b.r.cfg.InUserNS
	if b.group, err = setup.Apply(); err != nil {
		return err
	}
	b.ooms = b.group.OOMKills()
	return nil
}

var _ cache.Other = (*Runner)(nil)

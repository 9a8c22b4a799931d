package exec

import (
	"errors"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

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
	adj      int // steps' oom_score_adj
	layout   cgroup.Layout
	profiles spec.Profiles
	caches   *caches

	launching sync.Once // makes starter
	starter   *launch.Launcher
	startErr  error

	boxes sync.WaitGroup // what is not taken down yet

	mu     sync.Mutex // guards what follows, and the groups of boxes
	closed bool
	live   map[*box]bool
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
	if cfg.InUserNS || !r.facts.Has(probe.CapSysResource) {
		text, _ := os.ReadFile("/proc/self/oom_score_adj")
		r.adj = lowestAdj(string(text))
	}
	if err := Sweep(cfg.ExecRoot, cfg.CgroupParent); err != nil {
		return nil, err
	}
	for _, sub := range dirs {
		if err := os.MkdirAll(filepath.Join(cfg.ExecRoot, sub), 0o711); err != nil {
			return nil, fault.Wrap(fault.Internal, err, "make a place for build steps")
		}
	}
	if r.caches, err = openCaches(cfg.Root, cfg.Log); err != nil {
		return nil, fault.In(err, "open the cache mounts of builds")
	}
	return r, nil
}

// lowestAdj gives the oom_score_adj of steps of an engine that has own and may not go below it: systemd gives the services of a user 100 or 200.
func lowestAdj(own string) int {
	n, _ := strconv.Atoi(strings.TrimSpace(own)) // a number, of the kernel's
	return max(n, 0)
}

// Close kills what still runs, waits until it is taken down, and gives everything up. Nothing can be started any more.
func (r *Runner) Close() error {
	r.mu.Lock()
	closed := r.closed
	r.closed = true
	var running []*cgroup.Cgroup
	for b := range r.live {
		if b.group != nil {
			running = append(running, b.group)
		}
	}
	r.mu.Unlock()
	if closed {
		return nil
	}
	for _, g := range running {
		if err := g.Kill(); err != nil {
			r.cfg.Log.Error("a step of a build cannot be ended", "cgroup", g.Path(), "error", err)
		}
	}
	down := make(chan struct{})
	go func() { r.boxes.Wait(); close(down) }()
	r.launching.Do(func() { r.startErr = errClosed })
	select {
	case <-down:
		if r.starter == nil {
			break
		}
		if err := r.starter.Close(); err != nil {
			r.cfg.Log.Error("what was around the steps of builds does not end", "error", err)
		}
	case <-time.After(closePatience): // a step that sleeps in the kernel; the launcher would wait for it, and its enclosure ends with this process
		r.cfg.Log.Error("steps of builds are not taken down; the next start does it")
	}
	return r.caches.close()
}

// closePatience bounds how long an engine's end waits for its steps, which are killed.
const closePatience = 20 * time.Second

var errClosed = fault.New(fault.Unavailable, "the builder is shutting down")

// begin counts a box; end is called when it is down.
func (r *Runner) begin(b *box) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errClosed
	}
	if r.live == nil {
		r.live = map[*box]bool{}
	}
	r.live[b] = true
	r.boxes.Add(1)
	return nil
}

func (r *Runner) end(b *box) {
	r.mu.Lock()
	delete(r.live, b)
	r.mu.Unlock()
	r.boxes.Done()
}

// launcher gives the launcher, whose threads are made with the first step.
func (r *Runner) launcher() (*launch.Launcher, error) {
	r.launching.Do(func() { r.starter, r.startErr = launch.NewLauncher(!r.cfg.InUserNS) })
	return r.starter, r.startErr
}

// enclosure gives what boxes are in so that they die with the engine, as a descriptor that is the caller's.
func (r *Runner) enclosure() (int, error) {
	l, err := r.launcher()
	if err != nil {
		return -1, err
	}
	return l.Enclosed()
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

// dirs are the directories of ExecRoot: scratch, files that are bound into /etc, sockets of agents, and one in which nothing ever is.
var dirs = [...]string{"tmp", "etc", "agent", "empty"}

// Sweep ends and removes what the steps of an engine that died have left. Open does it too; an engine that opens its builder late calls it
// when it starts.
func Sweep(execRoot, cgroupParent string) error {
	layout, err := cgroup.Detect()
	if err != nil {
		return fault.In(err, "find the cgroups of build steps")
	}
	if err := sweepGroups(layout, cgroupParent); err != nil {
		return fault.In(err, "end the steps of an earlier builder")
	}
	if err := mount.UnmountBelow(execRoot); err != nil {
		return fault.In(err, "take away the mounts of an earlier builder")
	}
	for _, sub := range dirs {
		if err := os.RemoveAll(filepath.Join(execRoot, sub)); err != nil {
			return fault.Wrap(fault.Internal, err, "clear away what an earlier builder left")
		}
	}
	return nil
}

// sweepGroups ends the steps that did not die with their engine.
func sweepGroups(layout cgroup.Layout, parent string) error {
	seen := map[string]bool{}
	var errs []error
	for _, h := range layout.Hierarchies {
		list, err := os.ReadDir(h.Place(layout.Mode, parent))
		if err != nil {
			continue // no step has ever run
		}
		for _, e := range list {
			if !e.IsDir() || !strings.HasPrefix(e.Name(), groupPrefix) || seen[e.Name()] {
				continue
			}
			seen[e.Name()] = true
			cg, err := cgroup.Open(layout, path.Join("/", parent, e.Name()))
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
	g, err := setup.Apply()
	if err != nil {
		return err
	}
	b.ooms = g.OOMKills()
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	b.group = g
	if b.r.closed { // too late: close takes the group away
		return errClosed
	}
	return nil
}

var _ cache.Other = (*Runner)(nil)

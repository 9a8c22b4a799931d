package git

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"berth/base/fault"
	"berth/build/exec/host"
	"berth/build/graph"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/build/source/pinned"
	"berth/kernel/probe"
)

// Sessions asks the clients of builds. It is *session.Manager.
type Sessions interface {
	Any(ctx context.Context, g session.Group, f func(ctx context.Context, id string, c session.Caller) error) error
	Secret(ctx context.Context, g session.Group, id string) ([]byte, error)
	Sessions() []string
}

// Config says where and how.
type Config struct {
	Snapshots *snapshot.Store
	Sessions  Sessions // nil: builds have no secrets and no agents
	Root      string   // a directory of the package alone, for mirrors
	Git       string   // the program; "" finds it on PATH when it is needed
	Blobs     Blobs    // where bundles come from; nil: there are none
	InUserNS  bool     // the engine is root of a user namespace only
	Facts     probe.Features
	Log       *slog.Logger

	CgroupParent string // git runs in a cgroup of its own below it; "": in the engine's
}

// Source gives repositories to builds. It is safe for concurrent use. It is a cache.Other: its mirrors count as what builds keep.
type Source struct {
	cfg   Config
	log   *slog.Logger
	told  *pinned.Memory[*version] // what builds were told
	boxes *host.Runner             // where git runs

	mu      sync.Mutex // guards what follows; held for memory only
	locks   map[string]*keyLock
	swept   map[string]bool // mirrors whose left-over locks were removed
	program string          // git, once found and found new enough
	beside  []string        // directories that it needs besides those of programs
}

// Open gives the source. It makes nothing before it is used.
func Open(cfg Config) (*Source, error) {
	if cfg.Root == "" || cfg.Snapshots == nil {
		return nil, fault.New(fault.Internal, "the git source needs a directory and a snapshot store")
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var live pinned.Live
	if cfg.Sessions != nil {
		live = cfg.Sessions
	}
	boxes := host.New(host.Config{Root: filepath.Join(cfg.Root, "boxes"), CgroupParent: cfg.CgroupParent, InUserNS: cfg.InUserNS, Facts: cfg.Facts, Log: log})
	if err := errors.Join(boxes.Sweep(), sweepRoot(cfg.Root)); err != nil {
		log.Warn("build: what a git that was killed left cannot be removed", "err", err)
	}
	return &Source{cfg: cfg, log: log, told: pinned.New[*version](live, nil), boxes: boxes, locks: map[string]*keyLock{}, swept: map[string]bool{}}, nil
}

// sweepRoot removes what an engine that died had under way beside the mirrors.
func sweepRoot(root string) error {
	var errs []error
	for _, pattern := range []string{"bundle-*", "known-hosts-*"} {
		list, err := filepath.Glob(filepath.Join(root, pattern))
		errs = append(errs, err)
		for _, p := range list {
			errs = append(errs, os.RemoveAll(p))
		}
	}
	return errors.Join(errs...)
}

// Close ends what was made for running git.
func (s *Source) Close() error { return s.boxes.Close() }

// Source gives the source that a vertex asks for.
func (s *Source) Source(v *graph.Vertex) (solver.Source, error) {
	op := v.Op.GetSource()
	r, err := parse(op.GetIdentifier(), op.GetAttrs())
	if err != nil {
		return nil, err
	}
	return &pinner{s: s, r: r}, nil
}

type pinner struct {
	s *Source
	r *repository
}

// Pin asks the remote what the ref means, once for a build.
func (p *pinner) Pin(ctx context.Context, r *solver.Run) (solver.Pinned, error) {
	v, err := p.s.resolve(ctx, p.r, r.Sessions, r.Stderr)
	if err == nil && p.r.signature != nil {
		_, err = p.s.objects(ctx, p.r, v, r.Sessions, r.Stderr)
	}
	if err != nil {
		return solver.Pinned{}, fault.In(err, "failed to load git source %s", p.r.uri())
	}
	commit := v.pin()
	if p.r.keepDir {
		commit = v.object // the tag itself is in .git
	}
	return solver.Pinned{
		Pin: v.object, Cache: p.r.key(commit, v.ref), CacheType: recordType,
		Snapshot: func(ctx context.Context) (*snapshot.Snapshot, error) {
			snap, err := p.s.checkout(ctx, p.r, v, r.Sessions, r.Stderr)
			return snap, fault.In(err, "failed to check out %s", p.r.uri())
		},
		Material: solver.Material{Kind: "git", URI: p.r.uri(), Digest: commitDigest(v.object), Attrs: p.r.told()},
	}, nil
}

// recordType is the type of a checkout among the cache's records, as BuildKit's clients filter by it.
const recordType = "source.git.checkout"

// told is what else provenance tells of the source.
func (r *repository) told() map[string]string {
	attrs := map[string]string{}
	if r.subdir != "" {
		attrs["subdir"] = r.subdir
	}
	if r.bundle != nil {
		attrs["bundle"] = r.bundle.locator
	}
	return attrs
}

// git gives a program that knows no repository yet. The host's git is looked for once.
func (s *Source) git(ctx context.Context) (*program, error) {
	s.mu.Lock()
	p := &program{boxes: s.boxes, path: s.program, programs: s.beside, local: true}
	s.mu.Unlock()
	if p.path != "" {
		return p, nil
	}
	p.path = s.cfg.Git
	if p.path == "" {
		var err error
		if p.path, err = exec.LookPath("git"); err != nil {
			return nil, fault.New(fault.Unavailable, "git is not installed on the engine's host: building from repositories needs it")
		}
	}
	var err error
	if p.path, err = filepath.Abs(p.path); err != nil {
		return nil, err
	}
	if !host.Shows(p.path) {
		p.programs = []string{filepath.Dir(filepath.Dir(p.path))} // …/bin/git has the rest of itself in …/libexec or …/lib
	}
	out, err := p.run(ctx, "version")
	if err != nil {
		return nil, err
	}
	if !recent(out) {
		return nil, fault.New(fault.Unavailable, "%s is too old: building from repositories needs git 2.31", out)
	}
	s.mu.Lock()
	s.program, s.beside = p.path, p.programs
	s.mu.Unlock()
	return p, nil
}

// keyLock is a lock on one name; ref counts who has it or waits for it.
type keyLock struct {
	held chan struct{} // has an element while it is free
	refs int
}

// lock takes the lock on a name, for as long as ctx has patience.
func (s *Source) lock(ctx context.Context, name string) (unlock func(), err error) {
	s.mu.Lock()
	l := s.locks[name]
	if l == nil {
		l = &keyLock{held: make(chan struct{}, 1)}
		l.held <- struct{}{}
		s.locks[name] = l
	}
	l.refs++
	s.mu.Unlock()
	forget := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.refs--; l.refs == 0 {
			delete(s.locks, name)
		}
	}
	select {
	case <-l.held:
		return func() { l.held <- struct{}{}; forget() }, nil
	case <-ctx.Done():
		forget()
		return nil, context.Cause(ctx)
	}
}

package build

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"berth/base/fault"
	"berth/build/cache"
	"berth/build/exec"
	"berth/build/frontend"
	"berth/build/history"
	"berth/build/session"
	"berth/image"
	"berth/image/remote"
	"berth/image/transfer"
	"berth/kernel/probe"
)

// Config says where the builder works and what it works with.
type Config struct {
	DataRoot     string // the engine's; the builder owns DATA-ROOT/build
	ExecRoot     string // the engine's; the builder owns EXEC-ROOT/build
	CgroupParent string // steps run in CGROUP-PARENT/build-ID

	Images   *image.Store
	Transfer *transfer.Transfer // pulls bases
	Remote   *remote.Client     // pushes results and caches, fetches caches

	// Networks, Devices, UserNS and Security are what exec.Config says of them.
	Networks       exec.Networks
	Devices        exec.Devices
	UserNS         exec.UserNS
	Security       exec.Security
	SeccompProfile string // Docker's JSON, "" the built-in one, "unconfined" none
	CgroupNS       string // the cgroup namespace of steps: "private", "host"; "" private on cgroup v2, host on v1
	NofileHard     uint64 // the hard limit of open files where a step sets none; 0: the engine's
	InUserNS       bool   // the engine is root of a user namespace only

	MaxRecords int           // of builds that are over, beyond those of MaxAge; 0: 50; NoRecords: none
	MaxAge     time.Duration // 0: two days

	// Entitlements are what requests may ask for; nil: network.host and device, as dockerd has it.
	Entitlements []string
	Parallel     int // exec steps at once over all builds; 0: as many as want to

	// Retained is called once the cache is open and holds its layers itself, for who held them until then; nil: nobody.
	Retained func()

	Policy []cache.PruneOptions // what is removed from the cache without being asked for; nil: BuildKit's default
	NoGC   bool                 // nothing is

	// ProvenanceFacts are what the provenance of all builds tells of the engine's surroundings, by name.
	ProvenanceFacts map[string]any

	Version string            // of the engine, told to clients and written into provenance
	Labels  map[string]string // of the worker, beside the builder's own
	Facts   probe.Features
	Log     *slog.Logger
}

// NoRecords is a Config.MaxRecords: builds leave no records. Those of before stay, until they are too old.
const NoRecords = -1

// Builder is the open room. It is safe for concurrent use.
type Builder struct {
	cfg       Config
	log       *slog.Logger
	sessions  *session.Manager
	history   *history.Store
	producers frontend.Producers
	patience  time.Duration // closePatience, but in tests

	opening sync.Mutex // held while the parts are opened or closed; taken before mu
	opened  *parts     // nil before the first use; guarded by opening
	shut    bool       // guarded by opening

	mu         sync.Mutex // guards what follows; held for memory only
	builds     map[string]*running
	finished   []*running    // the last few, for who asks late
	came       chan struct{} // closed and replaced when a build is entered
	leaving    bool
	collecting context.CancelFunc // ends the collection of the cache under way; nil: there is none
	working    sync.WaitGroup     // builds under way
}

// Open makes a builder and ends what steps of an engine that was killed have left. Its parts open with the first request that
// needs them.
func Open(cfg Config) (*Builder, error) {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.Entitlements == nil {
		cfg.Entitlements = []string{"network.host", "device"}
	}
	if err := exec.Sweep(filepath.Join(cfg.ExecRoot, "build"), cfg.CgroupParent); err != nil {
		log.Warn("what build steps left is not all gone", "err", err)
	}
	return &Builder{
		cfg: cfg, log: log, sessions: session.NewManager(log),
		history: history.Open(history.Config{Root: filepath.Join(cfg.DataRoot, "build", "history"), Max: max(0, cfg.MaxRecords), MaxAge: cfg.MaxAge, Log: log}),
		builds:  map[string]*running{}, came: make(chan struct{}), patience: closePatience,
	}, nil
}

// closePatience bounds how long an engine's end waits for its builds, whose processes are killed.
const closePatience = 20 * time.Second

// Close cancels the builds under way, waits for them and closes the parts. One whose process sleeps in the kernel (a network file system that does not
// answer) is not waited for to its end: it is left as it is, with the parts open, for the process to end and the next start to sweep.
func (b *Builder) Close() error {
	b.mu.Lock()
	b.leaving = true
	if b.collecting != nil {
		b.collecting()
	}
	for _, r := range b.builds {
		r.cancel(fault.New(fault.Unavailable, "the engine is being stopped"))
	}
	b.mu.Unlock()
	b.history.Close()
	err := b.sessions.Close()
	over := make(chan struct{})
	go func() { b.working.Wait(); close(over) }()
	select {
	case <-over:
	case <-time.After(b.patience):
		return errors.Join(err, fault.New(fault.Deadline, "builds have not ended %v after they were cancelled", b.patience))
	}
	b.opening.Lock()
	defer b.opening.Unlock()
	b.shut = true
	if b.opened != nil {
		err = b.opened.close()
		b.opened = nil
	}
	return err
}

// Sessions finds the clients that serve files and secrets to builds.
func (b *Builder) Sessions() (*session.Manager, error) { return b.sessions, nil }

// History is what is left of builds that are over.
func (b *Builder) History() *history.Store { return b.history }

// Spool gives a directory for contexts while they are used; it is emptied when the parts are opened.
func (b *Builder) Spool() (string, error) {
	if _, err := b.parts(); err != nil {
		return "", err
	}
	return b.dir("tmp"), nil
}

// dir gives a directory below DATA-ROOT/build.
func (b *Builder) dir(name string) string { return filepath.Join(b.cfg.DataRoot, "build", name) }

// parts opens the parts at the first call.
func (b *Builder) parts() (*parts, error) {
	b.opening.Lock()
	defer b.opening.Unlock()
	if b.shut {
		return nil, fault.New(fault.Unavailable, "the engine is being stopped")
	}
	if b.opened != nil {
		return b.opened, nil
	}
	if err := os.RemoveAll(b.dir("tmp")); err != nil {
		return nil, fault.In(err, "sweep what builds left")
	}
	for _, dir := range []string{b.dir("tmp"), filepath.Join(b.cfg.ExecRoot, "build")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fault.In(err, "make the builder's directories")
		}
	}
	p, err := b.openParts()
	if err != nil {
		return nil, fault.In(err, "open the builder")
	}
	b.opened = p
	return p, nil
}

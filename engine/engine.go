package engine

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"berth/base/event"
	"berth/base/fault"
	"berth/base/wait"
	"berth/engine/bundle"
	"berth/engine/cdi"
	"berth/engine/container"
	"berth/engine/health"
	"berth/engine/logs"
	"berth/engine/runtimes"
	"berth/engine/store"
	"berth/engine/userns"
	"berth/image"
	"berth/image/layer"
	"berth/kernel/cgroup"
	"berth/kernel/probe"
	"berth/runtime/keeper"
)

// Config is what the engine is told at its start.
type Config struct {
	DataRoot string // containers/ and states.journal live here
	ExecRoot string // what need not outlive a reboot

	UserXattr bool // overlay's marks are user.* attributes: the engine is root of a user namespace, not of the machine

	CgroupDriver    string // "cgroupfs" (also "") or "systemd"
	CgroupParent    string // below each hierarchy's root: "/berth"; a slice for systemd, where anything else means system.slice
	DefaultCgroupNS string // "private", "host"; "" private on cgroup v2, host on v1, as Docker
	DefaultIPCMode  string // "private" or "shareable"
	DefaultShmSize  int64  // bytes
	DefaultUlimits  []container.Ulimit

	Runtimes *runtimes.Set // beside the built-in one; nil: none

	Init     bool   // run an init in every container that does not say otherwise
	InitPath string // host path of a static init binary; "" where there is none

	LogDriver string // one of logs.Drivers
	LogOpts   map[string]string
	LogBound  int64 // bytes that the log of a container of json-file without max-size may have; 0 no limit
	// CollectorOptional: containers start also while the collector of their output cannot be reached.
	CollectorOptional bool
	JournalSocket     string     // of journald; "" the usual place
	LogPlugins        LogPlugins // nil: there are none

	SeccompProfile  string // JSON text of the default profile; "" the built-in one; "unconfined"
	SELinux         bool
	NoNewPrivileges bool
	OCIPath         string   // host path of berth-oci, for containers whose devices have hooks; "" where there is none
	CDIDirs         []string // where specifications of CDI devices lie; none: no such devices
	// Time in µs that real-time processes of all containers together may take, cgroup v1 only; 0 none.
	CPURealtimePeriod, CPURealtimeRuntime int64

	LayerSize  uint64 // bytes that a writable layer may hold where the container does not say; 0 no limit. Needs project quotas below DataRoot
	DNS        []string
	DNSSearch  []string
	DNSOptions []string

	TrashWindow func() time.Duration // how long removed containers can be restored, asked each time; nil or 0: not at all
	ImageUsed   func(imageID string) // told that a container of the image is made or started; nil: nobody wants to know

	Userns userns.Config // who gets a user namespace, with which ids

	ShutdownTimeout time.Duration  // how long Shutdown waits for containers; negative: for ever
	Waits           *wait.Registry // where work under way is noted; nil: nowhere
	Log             *slog.Logger
}

// Images is what the engine needs of the image store.
type Images interface {
	// Resolve finds an image by any reference; fault.NotFound in Docker's words where there is none.
	Resolve(ref string) (Image, error)
	// Descendants gives the ids of the images that were made from one.
	Descendants(image string) []string
	// CreateLayer makes the container's writable layer on top of the image.
	CreateLayer(ctx context.Context, containerID string, img Image) error
	// Layer gives the directories of a container's file system.
	Layer(containerID string) (Layer, error)
	// RemoveLayer gives the writable layer up; one that does not exist is no error.
	RemoveLayer(containerID string) error
	// LayerSize measures the writable layer, in bytes.
	LayerSize(containerID string) (int64, error)
	// Lower gives the directories of an image's layers, topmost first.
	Lower(ref string) ([]string, error)
	// Changes lists what differs between a container's files and its image.
	Changes(ctx context.Context, containerID string) ([]layer.Change, error)
	// Commit makes an image of a container's writable layer and gives its id.
	Commit(ctx context.Context, o image.CommitOptions) (string, error)
	// Layers lists the ids of containers that have a writable layer.
	Layers() []string
}

// Image is what the engine wants to know of an image.
type Image struct {
	ID           string // config digest
	Defaults     container.ImageDefaults
	OS           string
	Architecture string
	Size         int64 // bytes of all layers
}

// Layer is a container's file system as overlayfs directories.
type Layer struct {
	Lower       []string // topmost first
	Upper, Work string
}

// Keeper is what the engine needs of berth-keeper's client, which see.
type Keeper interface {
	Launch(ctx context.Context, l keeper.Launch) (keeper.Started, error)
	Attach(ctx context.Context, r keeper.AttachRequest) (*net.UnixConn, error)
	Signal(ctx context.Context, id, proc string, sig int) error
	Resize(ctx context.Context, id, proc string, rows, cols uint16) error
	List(ctx context.Context) ([]keeper.ProcState, error)
	Holds(id string, pid int) bool
	Exits() <-chan keeper.Exit
	Ack(ctx context.Context, id, proc string) error
	Forget(ctx context.Context, id string) error
	ClearLog(ctx context.Context, id, path string) error
	ShippedLog(ctx context.Context, id string, inode uint64) error
	PackedLog(ctx context.Context, path string, inode uint64, packed string) error
	OnRotated(f func(id string))
	Info(ctx context.Context) (keeper.Info, error)
}

// Rooms are what an engine joins.
type Rooms struct {
	Images   Images
	Networks Networks // nil: this engine has none
	Volumes  Volumes  // nil: this engine has none
	Keeper   Keeper
	Events   *event.Bus // may be shared with other rooms
}

// Engine is the owner of all containers. Its verbs may be called from many goroutines.
type Engine struct {
	cfg         Config
	log         *slog.Logger
	images      Images
	networks    Networks // nil: containers have none, the host's, or another container's
	volumes     Volumes  // nil: there are none
	keeper      Keeper
	events      *event.Bus
	store       *store.Store
	watch       logs.Watcher
	ships       shipments
	packs       packs
	layout      cgroup.Layout
	groups      groups
	facts       probe.Features
	rules       *bundle.Rules // what all containers' specs have in common
	confinement confinement
	userns      usernses
	keeperPID   atomic.Int64 // 0: not known
	asked       asked
	stopping    atomic.Bool // Shutdown has begun
	goingDown   atomic.Bool // and it is the machine that goes down
	cdi         *cdi.Devices
	quotas      layerQuotas
	ooms        *cgroup.OOMWatcher // nil: none could be made
	boot        string             // the kernel's boot id
	lock        *os.File           // held while this engine owns the data root

	index  index
	execs  execTable
	users  userCache
	health *health.Clock // has each container's probe made at its time
	probes chan struct{} // a token for each probe that is being launched
	checks checkCounts

	trash      sync.Mutex // held over a change of what is in the trash; no verb waits for it while it holds a container's op
	trashSizes sync.Map   // bytes of the layers of containers in the trash (int64), by id: measured once
	making     sync.Map   // names of volumes ([]string) of containers that are being created, by id: nobody else knows yet that they are in use
	creating   sync.Map   // id of a container that is being made → id of its image, which must stay until the index has the container

	ending []<-chan struct{} // during Open: runs whose end is about to be told
	behind []func()          // during Open: begins what is done on containers once all rooms know which run

	done chan struct{} // closed when Close begins: no new restarts, no new waits
	work sync.WaitGroup
}

// Open recovers every container below cfg.DataRoot and takes over what runs. It fails with fault.Conflict where another engine has the
// data root.
func Open(ctx context.Context, cfg Config, r Rooms) (*Engine, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{cfg: cfg, log: cfg.Log, images: r.Images, networks: r.Networks, volumes: r.Volumes, keeper: r.Keeper, events: r.Events, done: make(chan struct{}), facts: probe.Host()}
	e.cdi = cdi.New(cfg.CDIDirs)
	e.index.init()
	e.execs.init()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "reading the boot id")
	}
	e.boot = strings.TrimSpace(string(boot))
	if e.layout, err = cgroup.Detect(); err != nil {
		return nil, fault.In(err, "looking for cgroups")
	}
	e.openConfinement(ctx)
	e.openUserns()
	if e.groups, err = newGroups(ctx, &e.cfg, e.layout); err != nil {
		return nil, err
	}
	if e.rules, err = bundle.NewRules(e.ruleConfig()); err != nil {
		return nil, err
	}
	if e.lock, err = lockRoot(cfg.DataRoot); err != nil {
		return nil, err
	}
	if err := e.quotas.open(cfg.DataRoot, cfg.LayerSize); err != nil {
		e.lock.Close()
		return nil, err
	}
	e.probes = make(chan struct{}, launchedAtOnce)
	e.health = health.NewClock(e.probe)
	if err := e.recover(ctx); err != nil {
		e.health.Close()
		e.quotas.close()
		e.lock.Close()
		return nil, err
	}
	e.askKeeper(ctx)
	e.openOOM()
	e.openLogs()
	e.work.Go(e.listenExits)
	e.awaitEnds()
	e.resumeHealth()
	return e, nil
}

// Close lets go of everything and leaves the containers running.
func (e *Engine) Close() error {
	close(e.done)
	e.health.Close()
	e.closeOOM()
	e.index.each(func(c *entry) { c.cancelRestart() })
	e.awaitWork()
	e.closeLogs()
	err := e.store.Close()
	e.releaseOOM()
	e.groups.close()
	e.quotas.close()
	e.lock.Close()
	return err
}

// Events is the bus on which the engine tells what happens to containers.
func (e *Engine) Events() *event.Bus { return e.events }

// Info gives the engine's figures.
func (e *Engine) Info(ctx context.Context) Facts {
	f := Facts{
		HealthChecks: e.checks.all.Load(), HealthChecksFailed: e.checks.failed.Load(),
		CgroupDriver: cmp.Or(e.cfg.CgroupDriver, driverDirectories), CgroupVersion: "1", CgroupParent: e.cfg.CgroupParent, DataRoot: e.cfg.DataRoot, ExecRoot: e.cfg.ExecRoot,
		Driver: "overlay2", DefaultRuntime: e.cfg.Runtimes.Default(), Runtimes: e.runtimeFacts(ctx), InitBinary: filepath.Base(e.cfg.InitPath), LogDriver: e.cfg.LogDriver, BootID: e.boot,
		Userns: e.cfg.Userns.Remaps(), AppArmor: e.confinement.apparmor, SELinux: e.confinement.labels != nil,
	}
	if cfg, err := logs.Configure(e.cfg.LogDriver, e.cfg.LogOpts); err == nil {
		cfg.Bound(e.cfg.LogBound)
		f.LogsUnbounded = cfg.Driver == "json-file" && cfg.MaxSize <= 0
	}
	if e.layout.Mode == cgroup.V2 {
		f.CgroupVersion = "2"
	}
	f.CDIDirs = e.cdi.Dirs()
	f.CDIDevices, f.Problems = e.cdi.List()
	for _, c := range e.index.all() {
		if c.hidden {
			continue
		}
		f.Containers++
		switch s := c.snapshot().State; {
		case s.Paused:
			f.Paused++
		case s.Running:
			f.Running++
		default:
			f.Stopped++
		}
	}
	if e.keeperTrouble() == "" { // else it is not asked: everything else is known
		e.askKeeper(ctx)
	}
	f.KeeperPID = int(e.keeperPID.Load())
	return f
}

// Command berthd is the engine: it opens the rooms in order, joins them, and serves Docker's API and Berth's own. It may be killed
// or replaced at any moment; containers belong to berth-keeper. The flags are in flags.go, with dockerd's names.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"berth/api/buildkit"
	"berth/api/server"
	"berth/api/server/wire"
	"berth/base/event"
	"berth/base/failpoint"
	"berth/base/fault"
	pluginclient "berth/base/plugin"
	"berth/base/wait"
	"berth/build"
	"berth/engine"
	"berth/engine/container"
	"berth/engine/plugin"
	"berth/engine/runtimes"
	"berth/engine/trash"
	"berth/image"
	"berth/image/gc"
	"berth/image/lazy"
	"berth/image/remote"
	"berth/image/transfer"
	"berth/kernel/probe"
	"berth/kernel/process"
	"berth/network"
	"berth/runtime/keeper"
	"berth/runtime/launch"
	"berth/runtime/rootless"
	"berth/runtime/spec"
	"berth/volume"
)

// Set by the build with -X.
var (
	version = "dev"
	commit  = ""
	built   = "" // RFC 3339, of the commit
)

const (
	// openPatience bounds the way from start to serving.
	openPatience = time.Minute
	// requestPatience is how long requests that are under way may take when the engine is told to end.
	requestPatience = 10 * time.Second
)

// settled is how long after its start an engine has done what start-up needs.
const settled = 2 * time.Second

// forgetStart gives back the memory that start-up alone needed: an engine is started once and then mostly waits.
func forgetStart(log *slog.Logger) {
	debug.FreeOSMemory()
	if _, err := process.ForgetText(); err != nil {
		log.Debug("the program stays mapped", "error", err)
	}
}

func main() {
	rootless.Prepare() // in the namespaces of an ordinary user it does not come back
	if slices.Equal(os.Args[1:], []string{"system", "check"}) {
		os.Exit(systemCheck(os.Stdout))
	}
	if len(os.Args) > 2 && slices.Equal(os.Args[1:3], []string{"registry", "serve"}) {
		os.Exit(registryServe(os.Args[3:], os.Stdout, os.Stderr))
	}
	cfg, err := parseFlags(os.Args[1:])
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case cfg.Show != "":
		fmt.Print(cfg.Show)
	case cfg.Version:
		fmt.Printf("Berth engine version %s, build %s\n", version, commit)
	case cfg.Validate:
		fmt.Println("configuration OK")
	default:
		level := &slog.LevelVar{}
		level.Set(cfg.Level())
		log := newLog(cfg, level)
		if rootless.Wanted() {
			os.Exit(becomeRootless(cfg, log))
		}
		if rootless.Inside() {
			insideConfig(&cfg)
		}
		if err := serve(cfg, log, level); err != nil {
			log.Error("berthd ends", "error", err)
			os.Exit(1)
		}
	}
}

func newLog(cfg config, level *slog.LevelVar) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}

// serve opens everything, serves until a signal or a shutdown request, and closes everything.
func serve(cfg config, log *slog.Logger, level *slog.LevelVar) error {
	if err := failpoint.Arm(os.Getenv(failpoint.Env)); err != nil {
		return err
	}
	unix.Umask(0o022)
	if err := probe.Host().CheckFloor(); err != nil {
		return err
	}
	rooms, err := openRooms(cfg, log)
	if err != nil {
		return err
	}
	defer rooms.close()
	rooms.patience.Store(int64(cfg.ShutdownTimeout))
	observe, err := openObservers(cfg, rooms, log)
	if err != nil {
		return err
	}
	defer observe.close()

	access, err := openAudit(cfg)
	if err != nil {
		return err
	}
	defer access.close()
	tlsConfig, err := loadTLS(cfg)
	if err != nil {
		return err
	}
	listeners, err := server.Listen(server.ListenConfig{Hosts: cfg.Hosts, Group: cfg.Group, TLS: tlsConfig, Insecure: cfg.TLSInsecure, Log: log})
	if err != nil {
		return err
	}
	shutdown := make(chan struct{}, 1)
	again := &reloader{rooms: rooms, log: log, level: level, cfg: cfg, read: func() (config, error) { return parseFlags(os.Args[1:]) }}
	s := server.New(server.Config{
		Containers: rooms.engine, Images: rooms.images, Transfer: rooms.transfer, Registries: rooms.remote, Networks: rooms.networks, Volumes: rooms.volumes, Plugins: rooms.plugins, Builds: rooms.builder, BuildWire: rooms.buildWire,
		Authorizers: rooms.authorizers(cfg.AuthZ), Events: rooms.events, Trash: rooms.trash, TrashWindow: rooms.trashWindow, Collector: rooms.gc, System: rooms.engine, About: about(cfg), Defaults: defaults(cfg), Log: log,
		Checks: []server.Checker{rooms.engine, rooms.volumes, rooms.networks, rooms.plugins, rooms.events, rooms.builder}, Waits: rooms.waits,
		Access: access, Audit: server.Audit{Write: access.log.Write, All: cfg.Access.Audit},
		Observe: observe.answered, Traces: observe.traces, Reload: again.reload,
		Shutdown: func() {
			select {
			case shutdown <- struct{}{}:
			default:
			}
		},
	})
	again.tell = s.Describe
	if err := access.serve(cfg, s, rooms.events, log); err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	for _, l := range listeners {
		s.Serve(l)
	}
	fmt.Printf("berthd %s serves on %v\n", version, cfg.Hosts)
	notifySystemd(log, "READY=1")
	defer time.AfterFunc(settled, func() { forgetStart(log) }).Stop()

	stopAll := waitForEnd(signals, shutdown, again.onSignal)
	notifySystemd(log, "STOPPING=1")
	go func() { // a second signal does not wait, but one to read the configuration again
		for s := range signals {
			if s != unix.SIGHUP {
				os.Exit(1)
			}
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), requestPatience)
	defer cancel()
	access.Sockets.Close()
	if err := s.Shutdown(ctx); err != nil {
		log.Warn("requests were cut off", "error", err)
	}
	switch {
	case stopAll:
		rooms.stopContainers(cfg, log)
	case machineGoesDown(log):
		rooms.stopForMachine(log)
	}
	return nil
}

// waitForEnd gives whether all containers are to stop too.
func waitForEnd(signals <-chan os.Signal, shutdown <-chan struct{}, reload func()) bool {
	for {
		select {
		case <-shutdown:
			return true
		case s := <-signals:
			if s == unix.SIGHUP {
				reload()
				continue
			}
			return false
		}
	}
}

// rooms are the open parts of the house that berthd joins.
type rooms struct {
	logPlugins *pluginclient.Registry
	keeper     *keeper.Client
	events     *event.Bus
	images     *image.Store
	remote     *remote.Client
	lazy       *lazy.Manager
	transfer   *transfer.Transfer
	plugins    *plugin.Manager
	authz      *pluginclient.Registry // of authorization plugins
	networks   *network.Networks
	volumes    *volume.Volumes
	engine     *engine.Engine
	builder    *build.Builder
	buildWire  *buildkit.Server
	unretain   func() // gives back the layers that were held for the cache of builds
	waits      *wait.Registry
	runtimes   *runtimes.Set
	trash      *trash.Trash
	gc         *gc.Collector
	pidfile    string
	log        *slog.Logger

	// What a reload of daemon.json may change.
	authzNames atomic.Pointer[[]string] // of authorization plugins
	patience   atomic.Int64             // seconds that stopping all containers may take; negative: for ever
	removal    atomic.Pointer[removalOptions]
}

// openRooms opens from the ground up. What was opened is closed again when a later room does not open.
func openRooms(cfg config, log *slog.Logger) (_ *rooms, err error) {
	r := &rooms{waits: wait.New(), log: log}
	ours := false // the keeper was started by us
	defer func() {
		if err == nil {
			return
		}
		r.close()
		if ours { // it holds nothing: an engine that is refused leaves nothing behind
			ctx, cancel := context.WithTimeout(context.Background(), requestPatience)
			defer cancel()
			if kerr := endKeeper(ctx, cfg.ExecRoot); kerr != nil {
				log.Warn("a keeper without containers goes on", "error", kerr)
				return
			}
			removeCgroups(cfg, log)
		}
	}()
	if err := errors.Join(os.MkdirAll(cfg.DataRoot, 0o710), os.MkdirAll(cfg.ExecRoot, 0o711)); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "making the engine's directories")
	}
	r.removal.Store(&cfg.Removal)
	if r.events, err = openEvents(cfg, log); err != nil {
		return nil, err
	}
	if err := keeper.Stopped(cfg.ExecRoot); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), openPatience)
	defer cancel()
	ic := image.Config{Root: filepath.Join(cfg.DataRoot, "image"), UserXattr: cfg.Rootless, KeepBlobs: cfg.Image.KeepBlobs, Facts: probe.Host(), Log: log, Trash: r.trashWindow, Events: r.imageEvent, Retain: r.retainBuilds(cfg)}
	if r.images, err = openImages(ctx, cfg, ic, log); err != nil {
		return nil, err
	}
	placeCgroups(ctx, &cfg, log)
	ours = !keeperAnswers(ctx, cfg.ExecRoot)
	if r.keeper, err = keeper.Open(ctx, keeper.StartConfig{ExecRoot: cfg.ExecRoot, CgroupProcs: keeperCgroup(cfg, log), OOMScoreAdj: keeperOOMScore, Unit: keeperUnit(cfg), NoSystemd: cfg.Rootless}); err != nil {
		return nil, err
	}
	r.upgradeKeeper(ctx)
	if err := r.openTransfer(ctx, cfg); err != nil {
		return nil, err
	}
	if r.networks, err = network.Open(ctx, r.networkConfig(cfg)); err != nil {
		return nil, err
	}
	if r.volumes, err = volume.Open(ctx, r.volumeConfig(cfg)); err != nil {
		return nil, err
	}
	ec, err := engineConfig(cfg, log)
	if err != nil {
		return nil, err
	}
	r.runtimes = ec.Runtimes
	ec.Waits, ec.TrashWindow, ec.ImageUsed = r.waits, r.trashWindow, r.images.Used
	r.logPlugins = pluginclient.New(pluginclient.Config{Log: log})
	ec.LogPlugins = r.logPlugins
	if r.engine, err = engine.Open(ctx, ec, engine.Rooms{
		Images: r.plugins.Over(engine.FromStore(r.images)), Networks: r.networks, Volumes: r.volumes, Keeper: r.keeper, Events: r.events,
	}); err != nil {
		return nil, err
	}
	r.images.UsedBy(r.engine.ImageUses)
	if err := r.openBuild(cfg, ec); err != nil {
		return nil, err
	}
	r.openRemoval(cfg)
	r.plugins.Attach(ctx, r.engine)
	r.keeper.OnNew(r.repark)
	if err := os.WriteFile(cfg.Pidfile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "writing the pidfile")
	}
	r.pidfile = cfg.Pidfile
	return r, nil
}

// repark gives a new keeper what was parked in the one that died.
func (r *rooms) repark() {
	ctx, cancel := context.WithTimeout(context.Background(), openPatience)
	defer cancel()
	r.networks.Repark(ctx)
	if err := r.lazy.Repark(ctx); err != nil {
		r.log.Warn("lazy layers are not safe from the engine's end", "error", err)
	}
}

// upgradeKeeper gives a keeper of another version the binary that belongs to this engine. It keeps its process, its containers and
// their terminals. One that cannot be upgraded goes on as it is: the protocol has versions of its own.
func (r *rooms) upgradeKeeper(ctx context.Context) {
	binary := beside("berth-keeper")
	info, err := r.keeper.Info(ctx)
	if err != nil || binary == "" || info.Version == version {
		return
	}
	if err := r.keeper.Upgrade(ctx, binary); err != nil {
		r.log.Warn("the keeper stays at its version", "version", info.Version, "engine", version, "error", err)
		return
	}
	r.log.Info("the keeper was upgraded in place", "from", info.Version, "to", version)
}

// keeperOOMScore keeps the kernel from choosing the parent of all containers when memory is short.
const keeperOOMScore = -999

// close lets go of the rooms, the last opened first. Containers go on.
func (r *rooms) close() {
	if r.pidfile != "" {
		os.Remove(r.pidfile)
	}
	r.closeRemoval()
	var errs []error
	if r.buildWire != nil {
		errs = append(errs, r.buildWire.Close())
	}
	if r.builder != nil { // before what its steps work with
		errs = append(errs, r.builder.Close())
	}
	if r.engine != nil {
		errs = append(errs, r.engine.Close())
	}
	if r.logPlugins != nil {
		r.logPlugins.Close()
	}
	if r.events != nil {
		r.events.Close()
	}
	if r.networks != nil {
		errs = append(errs, r.networks.Close())
	}
	if r.volumes != nil {
		errs = append(errs, r.volumes.Close())
	}
	if r.lazy != nil {
		errs = append(errs, r.lazy.Close())
	}
	if r.keeper != nil {
		errs = append(errs, r.keeper.Close())
	}
	if r.authz != nil {
		r.authz.Close()
	}
	if r.images != nil {
		errs = append(errs, r.images.Close())
	}
	r.builder, r.buildWire = nil, nil
	r.pidfile, r.engine, r.networks, r.volumes, r.lazy, r.keeper, r.images = "", nil, nil, nil, nil, nil, nil // closing again does nothing
	if err := errors.Join(errs...); err != nil {
		r.log.Error("closing", "error", err)
	}
}

// stopContainers is the end of `berth system shutdown`: containers, then the keeper.
func (r *rooms) stopContainers(cfg config, log *slog.Logger) {
	ctx, cancel := r.stopPatience()
	defer cancel()
	if err := r.engine.Shutdown(ctx, false); err != nil {
		log.Error("not every container was stopped", "error", err)
		return
	}
	if err := r.networks.Shutdown(ctx); err != nil {
		log.Error("something of the networks is left", "error", err)
	}
	if err := r.lazy.Shutdown(); err != nil {
		log.Error("lazy layers", "error", err)
	}
	// The rooms' own tie to the keeper would start a new one: it is closed first.
	r.close()
	if err := endKeeper(ctx, cfg.ExecRoot); err != nil {
		log.Error("the keeper goes on", "error", err)
		return
	}
	removeCgroups(cfg, log)
	if rootless.Inside() {
		rootless.End(cfg.ExecRoot)
	}
}

// keeperAnswers reports whether there is a keeper already.
func keeperAnswers(ctx context.Context, execRoot string) bool {
	c, err := keeper.Dial(ctx, execRoot)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func endKeeper(ctx context.Context, execRoot string) error {
	c, err := keeper.Dial(ctx, execRoot)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Shutdown(ctx)
}

// imageEvent passes on what happened to an image.
func (r *rooms) imageEvent(e image.Event) {
	attrs := map[string]string{}
	for k, v := range e.Attrs {
		attrs[k] = v
	}
	if e.Name != "" {
		attrs["name"] = e.Name
	}
	r.events.Publish(event.Event{Type: "image", Action: e.Action, ID: e.ID, Attributes: attrs})
	r.imageCame(e.Action)
}

// networkConfig translates flags to the network room's words.
func (r *rooms) networkConfig(cfg config) network.Config {
	n := cfg.Net
	return network.Config{
		Root: filepath.Join(cfg.DataRoot, "network"), RunRoot: filepath.Join(cfg.ExecRoot, "network"), EngineID: cfg.ID,
		BIP: n.BIP, BIP6: n.BIP6, FixedCIDR: n.Fixed, FixedCIDR6: n.Fixed6, Gateway4: n.Gateway, Gateway6: n.Gateway6, IPv6: n.IPv6,
		DefaultPools: n.Pools, MTU: n.MTU, ICC: unless(n.NoICC), IPForward: unless(n.NoForward), Masquerade: unless(n.NoMasq), Firewall: unless(n.NoRules),
		ObeyInput: n.ObeyInput, AllowDirect: n.Direct, NoForeign: n.NoForeign, DefaultBridge: n.Bridge, BindIP: n.BindIP, DNS: cfg.DNS, DNSSearch: cfg.DNSSearch, DNSOptions: cfg.DNSOptions,
		DefaultNetworkOpts: n.Defaults, Keeper: r.keeper, Managed: r.plugins, Emit: r.networkEvent, UserNet: launch.NetNamespace, Log: r.log,
		PortsListen: cfg.Rootless, LowestPort: rootless.LowestPort(), PortTaken: rootless.PortTaken(),
	}
}

func unless(off bool) *bool {
	on := !off
	return &on
}

// networkEvent passes on what happened to a network.
func (r *rooms) networkEvent(action, id, name, kind string, attrs map[string]string) {
	all := map[string]string{"name": name, "type": kind}
	maps.Copy(all, attrs)
	r.events.Publish(event.Event{Type: "network", Action: action, ID: id, Attributes: all})
}

// volumeConfig translates flags to the volume room's words.
func (r *rooms) volumeConfig(cfg config) volume.Config {
	return volume.Config{
		Root: filepath.Join(cfg.DataRoot, "volumes"), RunRoot: filepath.Join(cfg.ExecRoot, "volume"), Managed: r.plugins, Trash: r.trashWindow, Emit: r.volumeEvent, Log: r.log, Facts: probe.Host(),
	}
}

// volumeEvent passes on what happened to a volume.
func (r *rooms) volumeEvent(action, name string, attrs map[string]string) {
	r.events.Publish(event.Event{Type: "volume", Action: action, ID: name, Attributes: attrs})
}

// engineConfig translates flags to the engine's words.
func engineConfig(cfg config, log *slog.Logger) (engine.Config, error) {
	profile, err := seccompProfile(cfg.SeccompProfile)
	if err != nil {
		return engine.Config{}, err
	}
	namespaces, err := usernsConfig(cfg.Userns, log)
	if err != nil {
		return engine.Config{}, err
	}
	c := engine.Config{
		UserXattr: cfg.Rootless, Userns: namespaces, DataRoot: cfg.DataRoot, ExecRoot: cfg.ExecRoot, CgroupDriver: cfg.CgroupDriver, CgroupParent: cfg.CgroupParent, DefaultCgroupNS: cfg.DefaultCgroupNS,
		DefaultIPCMode: cfg.DefaultIPCMode, DefaultShmSize: cfg.DefaultShmSize, Init: cfg.Init, InitPath: beside("berth-init"),
		LogDriver: cfg.LogDriver, LogOpts: cfg.LogOpts, SeccompProfile: profile, SELinux: cfg.SELinux, NoNewPrivileges: cfg.NoNewPrivileges,
		DNS: cfg.DNS, DNSSearch: cfg.DNSSearch, DNSOptions: cfg.DNSOptions, Log: log,
	}
	for _, u := range cfg.DefaultUlimits {
		c.DefaultUlimits = append(c.DefaultUlimits, container.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	cfg.Fields.into(&c)
	cfg.Logs.into(&c)
	c.Runtimes, err = cfg.Runtimes.set()
	return c, err
}

// seccompProfile gives the default profile's text: a word stays, anything else is a file.
func seccompProfile(name string) (string, error) {
	if name == "" || name == spec.Builtin || name == spec.Unconfined {
		return name, nil
	}
	b, err := os.ReadFile(name)
	return string(b), fault.Wrap(fault.Invalid, err, "--seccomp-profile")
}

// beside finds one of our own binaries beside this one, else on PATH; "" where there is none.
func beside(name string) string {
	if self, err := os.Executable(); err == nil {
		p := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return p
}

func about(cfg config) server.About {
	profile := cfg.SeccompProfile
	if profile == "" {
		profile = spec.Builtin
	}
	proxies := cfg.Image.proxies()
	return server.About{
		Version: version, Commit: commit, BuildTime: built, Experimental: cfg.Experimental, Debug: cfg.Debug, Labels: slices.Concat(cfg.Labels, cfg.Logs.labels(), cfg.Removal.labels()), Hosts: cfg.Hosts,
		TLS: cfg.TLS, TLSVerify: cfg.TLSVerify, Seccomp: profile, NoNewPrivs: cfg.NoNewPrivileges, Authorizers: cfg.AuthZ, Rootless: cfg.Rootless,
		Registries: wire.Registries{Mirrors: cfg.Image.mirrors(), Insecure: cfg.Image.Insecure, HTTPProxy: proxies.HTTPProxy, HTTPSProxy: proxies.HTTPSProxy, NoProxy: proxies.NoProxy},
	}
}

func defaults(cfg config) wire.Defaults {
	return wire.Defaults{
		LogDriver: cfg.LogDriver, LogOptions: cfg.LogOpts, IPCMode: cfg.DefaultIPCMode, CgroupnsMode: cfg.DefaultCgroupNS, Runtime: "berth",
		ShmSize: cfg.DefaultShmSize, MaskedPaths: spec.MaskedPaths(), ReadonlyPaths: spec.ReadonlyPaths(),
	}
}

// loadTLS reads the certificates for tcp sockets; nil for plain ones.
func loadTLS(cfg config) (*tls.Config, error) {
	if !cfg.TLS {
		return nil, nil
	}
	return server.TLS(cfg.TLSCACert, cfg.TLSCert, cfg.TLSKey, cfg.TLSVerify)
}

// notifySystemd tells who started us how we are, see sd_notify(3). Without NOTIFY_SOCKET nobody asked.
func notifySystemd(log *slog.Logger, state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: path})
	if err == nil {
		_, err = conn.Write([]byte(state))
		conn.Close()
	}
	if err != nil {
		log.Warn("systemd could not be told", "state", state, "error", err)
	}
}

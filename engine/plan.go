package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/base/userdb"
	"berth/engine/bundle"
	"berth/engine/container"
	"berth/engine/mergedroot"
	"berth/kernel/cgroup"
	"berth/kernel/probe"
	"berth/network"
	"berth/runtime/keeper"
	"berth/runtime/launch"
)

// startPlan is a start that was decided and not yet done.
type startPlan struct {
	e     *Engine
	rec   *container.Record
	layer Layer
	bundle.Built
	sandbox network.Sandbox
	paths   sources
	cgroup  cgroup.Setup
	launch  keeper.Launch
}

// plan decides everything about a start. It changes nothing, unless the container's layer got lost.
func (e *Engine) plan(c *entry, sandbox network.Sandbox, paths sources) (*startPlan, error) {
	r := c.record()
	if r.Path == "" { // an empty word: there is no such program
		return nil, &launch.Error{Step: "execute the program", Errno: unix.ENOENT, Exec: true}
	}
	layer, err := e.layerOf(c)
	if err != nil {
		return nil, err
	}
	r = c.record() // layerOf may have changed it
	built, enters, err := e.buildSpec(r, layer, sandbox, paths)
	if err != nil {
		return nil, err
	}
	if r, err = e.settleRuntime(c, built.Spec); err != nil {
		return nil, err
	}
	setup, err := cgroup.Plan(e.layout, r.Cgroup, built.Spec.Linux.Resources)
	if err != nil {
		return nil, err
	}
	log, err := e.logConfig(r)
	if err != nil {
		return nil, err
	}
	s := r.Spec
	return &startPlan{e: e, rec: r, layer: layer, Built: built, sandbox: sandbox, paths: paths, cgroup: setup, launch: keeper.Launch{
		ID: c.id, Terminal: s.Process.TTY, Rows: uint16(s.ConsoleSize[0]), Cols: uint16(s.ConsoleSize[1]),
		Stdin: s.OpenStdin, StdinOnce: s.StdinOnce, Log: log, Enters: enters,
	}}, nil
}

// layerOf gives the container's layer. Layers are not made durable as records are: after a power cut a new one may be missing, and is
// then made again.
func (e *Engine) layerOf(c *entry) (Layer, error) {
	r := c.record()
	layer, err := e.images.Layer(r.ID)
	if !fault.Is(err, fault.NotFound) {
		return layer, err
	}
	img, ierr := e.images.Resolve(r.ImageID)
	if ierr != nil {
		return layer, errors.Join(err, ierr)
	}
	e.log.Warn("a container's layer is missing; it gets an empty one", "container", r.ID)
	again := *r // the number it had is given up: it may be somebody else's by now
	again.LayerProject = 0
	if err := e.makeLayer(context.Background(), &again, img); err != nil {
		return layer, err
	}
	if again.LayerProject != r.LayerProject {
		if err := e.store.Write(&again); err != nil {
			return layer, err
		}
		c.setRecord(&again)
	}
	return e.images.Layer(r.ID)
}

// buildSpec gathers the facts about a container that is to be started and has its OCI specification built.
func (e *Engine) buildSpec(r *container.Record, layer Layer, sandbox network.Sandbox, paths sources) (b bundle.Built, enters []keeper.Entered, err error) {
	in := e.input(r)
	in.Devices, in.NetPath, in.Sources, in.Inject = bundle.Host{}, sandbox.Key, paths, e.cdi.Inject
	if in.User, err = e.lookupIn(layer, r.ImageID, r.Spec.Process.User, r.Spec.Process.GroupAdd); err != nil {
		return b, nil, err
	}
	if err := checkMapped(r, in.User); err != nil {
		return b, nil, err
	}
	if ownsUserns(r) {
		in.UserPath = sandbox.Key // the user namespace that owns the network's; see compile
	}
	in.CanMap = e.mappable(r, paths)
	in.LinkEnv = e.linkEnv(r, sandbox)
	etc := e.etcOf(r.ID)
	for _, j := range joins(&in) {
		donor, err := e.donor(j.ref, j.what)
		if err != nil {
			return b, nil, err
		}
		pid := donor.snapshot().State.Pid
		*j.path = nsPath(pid, j.kind)
		enters = append(enters, keeper.Entered{ID: donor.id, PID: pid})
		switch j.what {
		case "IPC":
			in.Shm = e.shmPath(donor.id)
		case "network":
			etc = e.etcOf(e.networkOwner(donor).id)
		}
	}
	in.Hostname, in.Hosts, in.ResolvConf = etc.Hostname, etc.Hosts, etc.ResolvConf
	b, err = e.rules.Build(in)
	return b, enters, err
}

// networkOwner gives the container whose network a container lives in: its own, or at the end of a chain of joins the one that all share.
func (e *Engine) networkOwner(c *entry) *entry {
	for range 32 { // a circle cannot start
		next := e.index.get(joined(c.record().Spec.Network.Mode))
		if next == nil {
			return c
		}
		c = next
	}
	return c
}

// builtOf gives the OCI specification of a container that runs, for a further process in it. It is not kept from the start, nor asks it
// for what may be gone by now: devices, or containers whose namespaces were joined.
func (e *Engine) builtOf(c *entry) (bundle.Built, error) {
	if run := c.currentRun(); run.Spec != nil {
		return run.Built, nil
	}
	in := e.input(c.record())
	in.Devices, in.User.Home = noNodes{}, "/"
	for _, j := range joins(&in) {
		*j.path = nsPath(c.snapshot().State.Pid, j.kind)
	}
	built, err := e.rules.Build(in)
	if err != nil {
		return built, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run.cgroup != nil { // still that run
		c.run.Built = built
	}
	return built, nil
}

// input is what is known of a container without looking at anything.
func (e *Engine) input(r *container.Record) bundle.Input {
	r = e.namedAsDonor(r)
	s := r.Spec
	in := bundle.Input{Record: r, Init: e.wantsInit(s) && s.Namespaces.PID != "host" && joined(s.Namespaces.PID) == ""}
	if s.Namespaces.IPC == "shareable" {
		in.Shm = e.shmPath(r.ID)
	}
	return in
}

// namedAsDonor gives the record with the host name of the container whose network it lives in, as in Docker: names and network go together.
func (e *Engine) namedAsDonor(r *container.Record) *container.Record {
	donor := joined(r.Spec.Network.Mode)
	if donor == "" || r.Spec.Hostname != "" {
		return r
	}
	c, err := e.index.find(donor)
	if err != nil {
		return r
	}
	named, s := *r, *r.Spec
	s.Hostname, s.Domainname = c.record().Spec.Hostname, c.record().Spec.Domainname
	named.Spec = &s
	return &named
}

// join is a namespace that a container shares with another one.
type join struct {
	ref, what, kind string
	path            *string
}

func joins(in *bundle.Input) (all []join) {
	s := in.Record.Spec
	for _, j := range []join{
		{joined(s.Namespaces.PID), "PID", "pid", &in.PIDPath}, {joined(s.Namespaces.IPC), "IPC", "ipc", &in.IPCPath}, {joined(s.Network.Mode), "network", "net", &in.NetPath},
		{in.Record.UsernsOf, "user", "user", &in.UserPath},
	} {
		if j.ref != "" {
			all = append(all, j)
		}
	}
	return all
}

func nsPath(pid int, kind string) string { return fmt.Sprintf("/proc/%d/ns/%s", pid, kind) }

// noNodes is a host without devices.
type noNodes struct{}

// Expand finds nothing.
func (noNodes) Expand(string, string) ([]specs.LinuxDevice, error) { return nil, nil }

// All finds nothing.
func (noNodes) All() ([]specs.LinuxDevice, error) { return nil, nil }

// donor gives the container whose namespace is joined, if it can be.
func (e *Engine) donor(ref, what string) (*entry, error) {
	c, err := e.index.find(ref)
	if err != nil {
		return nil, err
	}
	s := c.snapshot()
	switch {
	case !s.State.Status.Alive() && what == "network":
		return nil, fault.New(fault.Conflict, "cannot join network of a non running container: %s", c.id)
	case !s.State.Status.Alive():
		return nil, fault.New(fault.Internal, "failed to join %s namespace: container %s is not running", what, c.id)
	case what == "IPC" && (s.Spec.Namespaces.IPC == "private" || s.Spec.Namespaces.IPC == "none"):
		return nil, fault.New(fault.Invalid, "failed to join IPC namespace: container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", c.id)
	}
	return c, nil
}

// prepareFiles makes what the container's mounts need on the host.
func (p *startPlan) prepareFiles(ctx context.Context) error {
	if !p.rec.Spec.Network.IsContainer() {
		if err := p.e.writeEtc(p.rec, p.sandbox); err != nil {
			return err
		}
	}
	for _, m := range p.rec.AllMounts() {
		if m.Type != "bind" {
			continue
		}
		if err := p.e.makeSource(ctx, m.Source, m.FromBinds || m.CreateMountpoint); err != nil {
			return err
		}
	}
	if err := p.e.applyConfinement(ctx, p.rec, p.paths); err != nil {
		return err
	}
	if err := p.e.mountShm(p.rec); err != nil {
		return err
	}
	return p.makeBundle()
}

func (p *startPlan) undoFiles() error {
	p.e.endForeign(p.rec)
	return p.e.unmountShm(p.rec)
}

// compileAside compiles for a cgroup that is being made meanwhile: the kernel takes as long for that as we for this. The function that it gives
// waits for the program, and has it compiled again where the cgroup is in another place than was planned.
func (p *startPlan) compileAside(planned cgroup.Attach) func(cgroup.Attach) ([]byte, error) {
	type result struct {
		program []byte
		err     error
	}
	done := make(chan result, 1)
	go func() {
		program, err := p.compile(planned)
		done <- result{program, err}
	}()
	return func(attach cgroup.Attach) ([]byte, error) {
		r := <-done
		if attach.V2Dir != planned.V2Dir || !slices.Equal(attach.V1Procs, planned.V1Procs) {
			return p.compile(attach)
		}
		return r.program, r.err
	}
}

// compile gives the launch program, or the commands of another runtime, encoded.
func (p *startPlan) compile(attach cgroup.Attach) ([]byte, error) {
	program, err := p.program(attach)
	if err != nil {
		return nil, err
	}
	return program.Encode(), nil
}

func (p *startPlan) program(attach cgroup.Attach) (encoder, error) {
	if rt, err := p.e.foreign(p.rec); err != nil {
		return nil, err
	} else if rt != nil {
		return rt.Create(p.e.placeOf(p.rec.ID, rt), p.rec.Spec.Process.TTY)
	}
	return launch.Compile(p.Spec, launch.Options{
		Overlay: &launch.Overlay{Lower: p.layer.Lower, Upper: p.layer.Upper, Work: p.layer.Work, Mapped: p.rec.IDMap != nil, UserXattr: p.e.cfg.UserXattr}, OwnerNS: ownsUserns(p.rec),
		Cgroup: attach, Covered: !p.e.cfg.UserXattr, InUserNS: p.e.cfg.UserXattr, NewKeyring: true, Seccomp: p.Filter, Facts: p.e.facts, Bundle: p.e.store.Dir(p.rec.ID),
	})
}

// compileExec gives the launch program of a further process.
func (e *Engine) compileExec(x *execution, process *specs.Process, b bundle.Built, cg *cgroup.Cgroup, pid int) (encoder, error) {
	if rt, err := e.foreign(x.c.record()); err != nil {
		return nil, err
	} else if rt != nil {
		return e.foreignExec(rt, x.c.id, x.id, process)
	}
	return launch.CompileExec(process, b.Spec, launch.Target{PID: pid}, launch.Options{Cgroup: cg.Attach(), InUserNS: e.cfg.UserXattr, NewKeyring: true, Seccomp: b.Filter, Facts: e.facts})
}

// entered is what an exec's program enters by number: another runtime knows its container itself.
func entered(program encoder, cid string, pid int) []keeper.Entered {
	if _, ours := program.(*launch.Program); !ours {
		return nil
	}
	return []keeper.Entered{{ID: cid, PID: pid}}
}

// lookupUser finds whom a process in c runs as.
func (e *Engine) lookupUser(c *entry, user string, groups []string) (userdb.User, error) {
	layer, err := e.images.Layer(c.id)
	if err != nil {
		return userdb.User{}, err
	}
	return e.lookupIn(layer, c.record().ImageID, user, groups)
}

// lookupIn reads the container's passwd and group files as it sees them now. As long as it has not touched /etc they are the image's,
// which are kept.
func (e *Engine) lookupIn(layer Layer, imageID, user string, groups []string) (userdb.User, error) {
	var d userDB
	var err error
	if _, serr := os.Lstat(filepath.Join(layer.Upper, "etc")); errors.Is(serr, fs.ErrNotExist) {
		d, err = e.users.get(imageID, func() (userDB, error) { return readUsers("", layer.Lower) })
	} else {
		d, err = readUsers(layer.Upper, layer.Lower)
	}
	if err != nil {
		return userdb.User{}, err
	}
	return userdb.Lookup(user, d.passwd, d.group, groups)
}

// userDB is the text of passwd and group; nil where there is none.
type userDB struct{ passwd, group []byte }

const maxUserDB = 4 << 20

func readUsers(upper string, lower []string) (d userDB, err error) {
	root, err := mergedroot.Open(upper, lower)
	if err != nil {
		return d, err
	}
	defer root.Close()
	for name, to := range map[string]*[]byte{"/etc/passwd": &d.passwd, "/etc/group": &d.group} {
		if *to, err = root.ReadFile(name, maxUserDB); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return d, fault.Wrap(fault.Internal, err, "reading the container's %s", name)
		}
	}
	return d, nil
}

// userCache keeps the user databases of images. The zero value is ready.
type userCache struct {
	mu      sync.Mutex
	byImage map[string]userDB
}

const usersKept = 128

func (u *userCache) get(imageID string, read func() (userDB, error)) (userDB, error) {
	u.mu.Lock()
	d, ok := u.byImage[imageID]
	u.mu.Unlock()
	if ok {
		return d, nil
	}
	d, err := read()
	if err != nil {
		return d, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byImage == nil || len(u.byImage) >= usersKept {
		u.byImage = map[string]userDB{}
	}
	u.byImage[imageID] = d
	return d, nil
}

// ruleConfig gives what the engine's configuration and the machine say for all containers.
func (e *Engine) ruleConfig() bundle.Config {
	return bundle.Config{
		Ulimits: e.cfg.DefaultUlimits, NofileHard: nofileHard(), SeccompProfile: e.cfg.SeccompProfile, NoNewPrivileges: e.cfg.NoNewPrivileges, InitPath: e.cfg.InitPath,
		RecursiveRO: e.facts.Has(probe.MountSetattr), AppArmor: e.confinement.apparmor, SELinux: e.facts.Has(probe.SELinux), CgroupV2: e.layout.Mode == cgroup.V2, Own: e.own(),
	}
}

// nofileHard is the hard limit of open files that this process may give to others; 0 when it cannot be asked.
func nofileHard() uint64 {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0
	}
	return l.Max
}

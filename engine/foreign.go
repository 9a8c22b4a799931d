package engine

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/engine/cdi"
	"berth/engine/container"
	"berth/engine/runtimes"
	"berth/kernel/overlay"
)

// Containers of another runtime than the built-in one. The engine does for them what it does for all: network, volumes, files, cgroup
// with its limits. Then, instead of a launch program, it writes a bundle with the same specification and has the keeper run the
// runtime's commands. From then on the container is a process of the keeper's like any other. What is different:
//
//	rootfs   mounted on the host, in the bundle, for the time of the run
//	signals  go through the runtime: its process may be a sandbox's (runsc)
//	exec     through the runtime
//	end      the runtime deletes its state; the rootfs is unmounted
//
// A bundle is EXEC-ROOT/oci/<the id's first 16 digits>: the path of a terminal's socket in it must stay short (unix(7)).

// encoder is a program that the keeper can run.
type encoder interface {
	Encode() []byte
	String() string
}

func (e *Engine) ociDir() string { return filepath.Join(e.cfg.ExecRoot, "oci") }

func (e *Engine) placeOf(cid string, rt *runtimes.Runtime) runtimes.Place {
	return runtimes.Place{Dir: filepath.Join(e.ociDir(), cid[:16]), State: filepath.Join(e.ociDir(), "state", rt.Name), ID: cid}
}

// foreign gives the runtime of a container that the built-in one does not serve; nil for the others. One that the engine is not told of
// any more is an error when the container is started.
func (e *Engine) foreign(r *container.Record) (*runtimes.Runtime, error) {
	switch {
	case r.Spec.Runtime != "":
		return e.cfg.Runtimes.Find(r.Spec.Runtime)
	case r.ViaOCI:
		return &runtimes.Runtime{Name: "berth-oci", Path: e.cfg.OCIPath}, nil
	}
	return nil, nil
}

// settleRuntime chooses berth-oci for a container of the built-in runtime whose devices ask for what the engine's own launch does not do,
// durably: whoever looks after the container later has to know. It gives the record as it is then.
func (e *Engine) settleRuntime(c *entry, s *specs.Spec) (*container.Record, error) {
	r := c.record()
	beyond := cdi.Beyond(s)
	if r.Spec.Runtime != "" || r.ViaOCI == (beyond != "") {
		return r, nil
	}
	if beyond != "" && e.cfg.OCIPath == "" {
		return nil, fault.New(fault.NotImplemented, "CDI: the devices ask for %s, which takes berth-oci beside berthd, or a --runtime", beyond)
	}
	changed := *r
	changed.ViaOCI = beyond != ""
	if err := e.store.Write(&changed); err != nil {
		return nil, err
	}
	c.setRecord(&changed)
	return &changed, nil
}

// makeBundle makes the container's bundle, where another runtime serves it.
func (p *startPlan) makeBundle() error {
	rt, err := p.e.foreign(p.rec)
	if rt == nil {
		return err
	}
	if p.rec.IDMap != nil {
		return fault.New(fault.NotImplemented, "runtime %s: user namespaces are the built-in runtime's matter in this build of Berth", rt.Name)
	}
	place := p.e.placeOf(p.rec.ID, rt)
	p.e.endForeign(p.rec) // what a run before left, if anything
	rootfs, scratch := filepath.Join(place.Dir, "rootfs"), filepath.Join(place.Dir, "scratch")
	if err := errors.Join(os.MkdirAll(place.State, 0o700), os.MkdirAll(rootfs, 0o755), os.MkdirAll(scratch, 0o700), os.Chmod(place.Dir, 0o700)); err != nil {
		return fault.Wrap(fault.Internal, err, "making the bundle for runtime %s", rt.Name)
	}
	old := *p.Spec
	old.Version = oldVersion
	spec, err := json.Marshal(&old)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "making the bundle for runtime %s", rt.Name)
	}
	if err := os.WriteFile(filepath.Join(place.Dir, "config.json"), spec, 0o600); err != nil {
		return fault.Wrap(fault.Internal, err, "making the bundle for runtime %s", rt.Name)
	}
	fd, err := overlay.Stack{Lower: p.layer.Lower, Upper: p.layer.Upper, Work: p.layer.Work, UserXattr: p.e.cfg.UserXattr, Label: p.Spec.Linux.MountLabel}.Mount(p.e.facts, scratch)
	if err != nil {
		return fault.In(err, "mounting the container's files for runtime %s", rt.Name)
	}
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, rootfs, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fault.Wrap(fault.Internal, err, "mounting the container's files for runtime %s", rt.Name)
	}
	return nil
}

// oldVersion is the runtime-spec version that bundles claim: a runtime refuses a newer one than its own, and ignores fields it does not
// know (crun 1.8 is content with 1.0 only).
const oldVersion = "1.0.2"

// foreignExec gives the commands that run a further process.
func (e *Engine) foreignExec(rt *runtimes.Runtime, cid, eid string, process *specs.Process) (encoder, error) {
	text, err := json.Marshal(process)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "exec through runtime %s", rt.Name)
	}
	return rt.Exec(e.placeOf(cid, rt), eid, text, process.Terminal)
}

// endForeign takes away what a run through another runtime had. The process has ended, or is killed by the runtime.
func (e *Engine) endForeign(r *container.Record) {
	rt, err := e.foreign(r)
	if err == nil && rt == nil {
		return
	}
	dir := filepath.Join(e.ociDir(), r.ID[:16])
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return
	}
	if rt != nil {
		if err := rt.Run(context.Background(), e.placeOf(r.ID, rt), "delete", "--force", r.ID); err != nil && !unknownThere.MatchString(err.Error()) {
			e.log.Warn("a runtime keeps its state of a container that has ended", "container", r.ID, "error", err)
		}
	}
	e.removeBundle(dir)
}

// unknownThere is how runtimes say that they do not know a container.
var unknownThere = regexp.MustCompile(`(?i)does not exist|not found|no such file|unknown container`)

func (e *Engine) removeBundle(dir string) {
	err := unix.Unmount(filepath.Join(dir, "rootfs"), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		e.log.Warn("a container's files stay mounted", "path", dir, "error", err)
		return // never remove beneath a mount
	}
	if err := os.RemoveAll(dir); err != nil {
		e.log.Warn("a bundle stays", "path", dir, "error", err)
	}
}

// sweepBundles removes bundles of containers that do not run: an engine that died left them.
func (e *Engine) sweepBundles() {
	entries, err := os.ReadDir(e.ociDir())
	if err != nil {
		return
	}
	for _, d := range entries {
		if len(d.Name()) != 16 {
			continue
		}
		c, err := e.index.find(d.Name())
		if err != nil {
			e.removeBundle(filepath.Join(e.ociDir(), d.Name()))
			continue
		}
		select {
		case c.op <- struct{}{}:
			if !c.snapshot().State.Status.Alive() {
				e.endForeign(c.record())
			}
			<-c.op
		default: // somebody is at work on it and will see to it
		}
	}
}

// sendSignal sends a signal to the container's first process: by its runtime, else, and when that fails, by the keeper.
func (e *Engine) sendSignal(ctx context.Context, c *entry, sig unix.Signal) error {
	rt, err := e.foreign(c.record())
	if err == nil && rt != nil {
		if err = rt.Run(ctx, e.placeOf(c.id, rt), "kill", c.id, strconv.Itoa(int(sig))); err == nil {
			return nil
		}
		e.log.Warn("a runtime does not pass a signal on; the process gets it directly", "container", c.id, "error", err)
	}
	return e.keeper.Signal(ctx, c.id, "", int(sig))
}

// foreignStart puts the failure of another runtime into the words and the exit code that clients know.
func foreignStart(err error, prefix string) (code int, _ error, is bool) {
	text := err.Error()
	if !strings.HasPrefix(text, "runtime ") {
		return 0, nil, false
	}
	code = exitStartOther
	switch low := strings.ToLower(text); {
	case strings.Contains(low, "executable file") && strings.Contains(low, "not found"), strings.Contains(low, "exec") && strings.Contains(low, "no such file or directory"):
		code = exitNotFound
	case strings.Contains(low, "exec") && strings.Contains(low, "permission denied"), strings.Contains(low, "exec") && strings.Contains(low, "is a directory"):
		code = exitCannotRun
	}
	kind := fault.KindOf(err)
	if code != exitStartOther {
		kind = fault.Invalid
	}
	lead := "failed to create task for container: failed to create shim task: OCI runtime create failed: "
	if strings.HasPrefix(prefix, execPrefix) {
		lead = execPrefix
	}
	return code, fault.New(kind, "%s%s: unknown", lead, text), true
}

// execPrefix begins what is told of an exec that failed.
const execPrefix = "OCI runtime exec failed: exec failed: "

// runtimeFacts is what info tells of runtimes.
func (e *Engine) runtimeFacts(ctx context.Context) (out []RuntimeFact) {
	for _, r := range e.cfg.Runtimes.All() {
		out = append(out, RuntimeFact{Name: r.Name, Path: r.Path, Args: r.Args, Features: e.cfg.Runtimes.Features(ctx, &r)})
	}
	return out
}

// RuntimeFact is one runtime beside the built-in one.
type RuntimeFact struct {
	Name, Path string
	Args       []string
	Features   string // JSON, as it says of itself; "" when it does not
}

package volume

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"berth/base/fault"
	base "berth/base/plugin"
	"berth/kernel/probe"
	"berth/kernel/tree"
	"berth/volume/driver"
	"berth/volume/external/csi"
	"berth/volume/external/plugin"
	"berth/volume/local"
	"berth/volume/turn"
	"berth/volume/use"
)

const localDriver = "local"

// Config says where volumes are and what serves them.
type Config struct {
	Root    string // DATA-ROOT/volumes
	RunRoot string // EXEC-ROOT/volume, of this boot
	// PluginDirs are where Docker volume plugins are looked for: the sockets' directory, then those of specs. nil: Docker's places.
	PluginDirs []string
	Managed    base.Supplier // plugins that the engine runs itself; nil: none
	// CSIDirs are where CSI drivers are looked for (package external/csi). nil: /etc/berth/csi, /run/berth/csi and kubelet's place.
	CSIDirs []string
	// CSITimeout bounds one step of a CSI driver, its retries included. 0: 2 minutes.
	CSITimeout time.Duration
	// MountTimeout bounds one mount or unmount of the local driver: a server that does not answer. 0: 30 s.
	MountTimeout time.Duration
	Trash        func() time.Duration                               // how long removed volumes can be restored, asked each time; nil or 0: not at all
	Emit         func(action, name string, attrs map[string]string) // events create, destroy and prune; nil: none
	Log          *slog.Logger                                       // nil: nothing is logged
	Facts        probe.Features
}

// finder gives drivers that are outside the engine.
type finder interface {
	// Find gives the driver of that name. nil without an error: there is none here.
	Find(ctx context.Context, name string) (driver.Driver, error)
	// All gives every driver that there is, by name, and what is wrong with those that do not answer.
	All(ctx context.Context) (map[string]driver.Driver, []string)
	Close()
}

// Volumes is all volumes of an engine. It is safe for concurrent use.
type Volumes struct {
	cfg     Config
	log     *slog.Logger
	lock    *tree.Dir
	local   *local.Driver
	notes   use.Notes // of all drivers
	finders []finder
	turns   turn.Turns
	taking  sync.Mutex // held while an entry leaves the trash
	pruning atomic.Bool

	stop    context.CancelFunc // ends what Recovered began
	stopped context.Context
	work    sync.WaitGroup

	mu      sync.Mutex                 // guards what follows; held for memory only
	records map[string]*Volume         // by name; a *Volume is replaced, never changed
	users   map[string]map[string]bool // by name: who has it mounted
	bin     map[string]trashed         // what can be restored, by its id in the trash
	usedBy  func(volume string) []string
}

// Open opens or makes the root and recovers it: what was half made or half removed goes, records are read. What is mounted stays
// until Recovered. A root that another process has open is Conflict.
func Open(ctx context.Context, cfg Config) (*Volumes, error) {
	v := &Volumes{cfg: cfg, log: cfg.Log, records: map[string]*Volume{}, users: map[string]map[string]bool{}, bin: map[string]trashed{}}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	v.stopped, v.stop = context.WithCancel(context.Background())
	if v.cfg.Emit == nil {
		v.cfg.Emit = func(string, string, map[string]string) {}
	}
	if err := v.open(ctx); err != nil {
		v.Close()
		return nil, fault.In(err, "open volumes")
	}
	return v, nil
}

func (v *Volumes) open(ctx context.Context) (err error) {
	// 0701 as Docker's: users of a remapped root must get through, but not look around.
	for _, dir := range []*string{&v.cfg.Root, &v.cfg.RunRoot} {
		if err := os.MkdirAll(*dir, 0o701); err != nil {
			return err
		}
		if *dir, err = filepath.EvalSymlinks(*dir); err != nil { // the kernel tells mounts by their real path
			return err
		}
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	if v.lock, err = tree.Lock(v.cfg.Root); err != nil {
		return err
	}
	if v.notes, err = use.Open(filepath.Join(v.cfg.RunRoot, "users")); err != nil {
		return err
	}
	v.local, err = local.Open(local.Config{Root: v.cfg.Root, RunRoot: v.cfg.RunRoot, MountTimeout: v.cfg.MountTimeout, Log: v.log})
	if err != nil {
		return err
	}
	dirs := v.cfg.CSIDirs
	if dirs == nil {
		dirs = []string{"/etc/berth/csi", "/run/berth/csi", "/var/lib/kubelet/plugins"}
	}
	drivers, err := csi.Open(csi.Config{Root: v.path(".csi"), RunRoot: filepath.Join(v.cfg.RunRoot, "csi"), Dirs: dirs,
		Timeout: v.cfg.CSITimeout, Notes: v.notes, Log: v.log})
	if err != nil {
		return err
	}
	v.finders = append(v.finders, drivers, plugin.Open(v.cfg.PluginDirs, v.cfg.Managed, v.notes, v.log))
	return v.recover(ctx)
}

// Close gives the root up. Mounts and their users stay for the next engine.
func (v *Volumes) Close() error {
	v.stop()
	v.work.Wait()
	for _, f := range v.finders {
		f.Close()
	}
	if v.local != nil {
		v.local.Close()
	}
	if v.lock != nil {
		return v.lock.Close()
	}
	return nil
}

// UsedBy plugs in who refers to a volume without having it mounted: ids of containers.
func (v *Volumes) UsedBy(users func(volume string) []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.usedBy = users
}

// recover reads what is on disk.
func (v *Volumes) recover(ctx context.Context) error {
	list, err := os.ReadDir(v.cfg.Root)
	if err != nil {
		return err
	}
	for _, e := range list {
		if name, ok := strings.CutPrefix(e.Name(), renamePrefix); ok {
			if err := v.finishRename(ctx, name); err != nil {
				v.log.Error("volume stays between two names", "volume", name, "error", err)
			}
		}
	}
	if list, err = os.ReadDir(v.cfg.Root); err != nil {
		return err
	}
	for _, e := range list {
		name := e.Name()
		switch {
		case strings.HasPrefix(name, stagePrefix), strings.HasPrefix(name, gonePrefix):
			v.sweep(name)
			continue
		case strings.HasPrefix(name, trashPrefix):
			v.readTrash(name)
			continue
		case !e.IsDir() || CheckName(name) != nil:
			continue
		}
		vol, err := v.read(name)
		if err != nil {
			v.log.Error("volume cannot be read and is left alone", "volume", name, "error", err)
			continue
		}
		if vol != nil {
			v.records[name] = vol
		}
	}
	return nil
}

// read reads one volume's directory, and tells the local driver of its own.
func (v *Volumes) read(name string) (*Volume, error) {
	dir := v.path(name)
	vol, found, err := readRecord(dir)
	if err != nil {
		return nil, err
	}
	if !found {
		if vol, found, err = foreignRecord(dir); err != nil || !found {
			return nil, err
		}
		v.log.Info("volume of another engine taken over", "volume", name)
	}
	if vol.Driver != localDriver {
		return &vol, nil
	}
	if err := v.local.Adopt(name, vol.Options); err != nil {
		return nil, err
	}
	return &vol, v.unfill(name)
}

func (v *Volumes) path(elem ...string) string {
	return filepath.Join(append([]string{v.cfg.Root}, elem...)...)
}

// Get gives a volume as it is now, asking its driver. One that this engine did not make is looked for at every driver.
// fault.NotFound: "get NAME: no such volume".
func (v *Volumes) Get(ctx context.Context, name string) (Volume, error) {
	vol, err := v.get(ctx, name)
	return vol, fault.In(err, "get %s", name)
}

func (v *Volumes) get(ctx context.Context, name string) (Volume, error) {
	rec, ok := v.record(name)
	if ok && rec.Driver == localDriver {
		return v.filled(*rec), nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if !ok {
		if vol, ok := v.elsewhere(ctx, name); ok {
			return vol, nil
		}
		return Volume{}, noSuchVolume()
	}
	d, err := v.driver(ctx, rec.Driver)
	if err != nil { // a plugin that is not there now does not make its volumes go away
		return Volume{}, fault.Wrap(fault.Unavailable, err, "error while checking if volume %q exists in driver %q", name, rec.Driver)
	}
	found, err := d.Get(ctx, name)
	switch {
	case fault.Is(err, fault.NotFound):
		return Volume{}, noSuchVolume()
	case err != nil:
		return Volume{}, fault.In(err, "error while checking if volume %q exists in driver %q", name, rec.Driver)
	}
	return merged(*rec, d.Scope(ctx), found), nil
}

func noSuchVolume() error { return fault.New(fault.NotFound, "no such volume") }

// askTimeout is how long drivers outside the engine have to tell what they serve.
const askTimeout = 10 * time.Second

// elsewhere looks for a volume that has no record at every driver outside the engine.
func (v *Volumes) elsewhere(ctx context.Context, name string) (Volume, bool) {
	if CheckName(name) != nil {
		return Volume{}, false // notes and pins are files of that name
	}
	for _, f := range v.finders {
		drivers, _ := f.All(ctx)
		for _, kind := range sorted(drivers) {
			d := drivers[kind]
			if found, err := d.Get(ctx, name); err == nil {
				return merged(Volume{Name: name, Driver: kind}, d.Scope(ctx), found), true
			}
		}
	}
	return Volume{}, false
}

// List gives all volumes, by name. Drivers that do not answer are told in warnings; of theirs, what is on record is listed.
func (v *Volumes) List(ctx context.Context) (list []Volume, warnings []string, err error) {
	v.mu.Lock()
	all := make(map[string]Volume, len(v.records))
	for name, rec := range v.records {
		all[name] = *rec
	}
	v.mu.Unlock()
	for name, vol := range all {
		if vol.Driver == localDriver {
			all[name] = v.filled(vol)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for _, a := range v.askAll(ctx) {
		warnings = append(warnings, a.warnings...)
		for _, found := range a.found {
			rec, ok := all[found.Name]
			if ok && rec.Driver != a.kind || CheckName(found.Name) != nil {
				continue // the name is taken, the first one counts; or nobody could use it
			}
			if !ok {
				rec = Volume{Name: found.Name, Driver: a.kind}
			}
			all[found.Name] = merged(rec, a.scope, found)
		}
	}
	for _, name := range sorted(all) {
		list = append(list, all[name])
	}
	return list, warnings, nil
}

// answer is what one driver tells of its volumes.
type answer struct {
	kind, scope string
	found       []driver.Found
	warnings    []string
}

// askAll asks every driver outside the engine for its volumes, all at once.
func (v *Volumes) askAll(ctx context.Context) []answer {
	var answers []answer
	for _, f := range v.finders {
		drivers, wrong := f.All(ctx)
		if len(wrong) > 0 {
			answers = append(answers, answer{warnings: wrong})
		}
		kinds := sorted(drivers)
		told := make([]answer, len(kinds))
		var all sync.WaitGroup
		for i, kind := range kinds {
			all.Go(func() {
				d := drivers[kind]
				found, err := d.List(ctx)
				told[i] = answer{kind: kind, scope: d.Scope(ctx), found: found}
				if err != nil {
					told[i].warnings = []string{"list " + kind + ": " + err.Error()}
				}
			})
		}
		all.Wait()
		answers = append(answers, told...)
	}
	return answers
}

// driver gives a driver by its name.
func (v *Volumes) driver(ctx context.Context, kind string) (driver.Driver, error) {
	if kind == "" || kind == localDriver {
		return v.local, nil
	}
	for _, f := range v.finders {
		d, err := f.Find(ctx, kind)
		if err != nil {
			return nil, fault.In(err, "error looking up volume plugin %s", kind)
		}
		if d != nil {
			return d, nil
		}
	}
	return nil, fault.New(fault.NotFound, "error looking up volume plugin %s: plugin %q not found", kind, kind)
}

func (v *Volumes) record(name string) (*Volume, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	rec, ok := v.records[name]
	return rec, ok
}

func (v *Volumes) keep(name string, rec *Volume) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if rec == nil {
		delete(v.records, name)
		return
	}
	v.records[name] = rec
}

// filled adds what is true of every local volume.
func (v *Volumes) filled(vol Volume) Volume {
	vol.Scope = "local"
	vol.Mountpoint = v.path(vol.Name, local.Data)
	if vol.SnapshotOf != "" {
		vol.Status = map[string]any{"snapshotOf": vol.SnapshotOf}
	}
	return vol
}

func merged(vol Volume, scope string, found driver.Found) Volume {
	vol.Scope, vol.Mountpoint, vol.Status = scope, found.Mountpoint, maps.Clone(found.Status)
	if vol.SnapshotOf != "" {
		if vol.Status == nil {
			vol.Status = map[string]any{}
		}
		vol.Status["snapshotOf"] = vol.SnapshotOf
	}
	if vol.Created.IsZero() {
		vol.Created = found.Created
	}
	return vol
}

func sorted[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

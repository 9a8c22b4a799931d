package local

import (
	"context"
	"hash/crc32"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/kernel/mount"
	"berth/kernel/quota"
	"berth/volume/driver"
	"berth/volume/use"
)

// Config says where and how.
type Config struct {
	Root         string        // the volumes' directories
	RunRoot      string        // users of mounted volumes; of this boot
	MountTimeout time.Duration // how long a mount may take; 0: 30 s
	Log          *slog.Logger
	Make         func(mount.Mount) (fd int, err error) // nil: mount.Make. Tests put a server that hangs here
}

// Driver is the local driver.
type Driver struct {
	cfg   Config
	users use.Notes
	names resolver

	quotas   sync.Mutex // one project number is chosen at a time
	projects *quota.Control
	noQuota  error

	mu    sync.Mutex // guards what follows
	stuck map[string]time.Time
	known map[string]options // by name: what Create or Adopt said
}

// Open opens the driver. Volumes are told to it by Adopt.
func Open(cfg Config) (*Driver, error) {
	if cfg.MountTimeout == 0 {
		cfg.MountTimeout = 30 * time.Second
	}
	if cfg.Make == nil {
		cfg.Make = mount.Make
	}
	d := &Driver{cfg: cfg, names: net.DefaultResolver, stuck: map[string]time.Time{}, known: map[string]options{}}
	var err error
	if d.users, err = use.Open(filepath.Join(cfg.RunRoot, "users")); err != nil {
		return nil, err
	}
	d.projects, d.noQuota = quota.Open(cfg.Root)
	return d, nil
}

// Close gives the driver up; mounts stay.
func (d *Driver) Close() {
	if d.projects != nil {
		d.projects.Close()
	}
}

// Adopt makes a volume known that was made by an earlier engine.
func (d *Driver) Adopt(name string, given map[string]string) error {
	o, err := parse(given)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[name] = o
	return nil
}

// Scope is "local".
func (d *Driver) Scope(context.Context) string { return "local" }

// Check refuses wrong options.
func (d *Driver) Check(given map[string]string) error {
	o, err := parse(given)
	if err != nil {
		return err
	}
	if o.size > 0 && d.projects == nil {
		return fault.Wrap(fault.Invalid, d.noQuota, "quota size requested but no quota support")
	}
	return nil
}

// Prepare makes the content's directory of a volume in dir, before the volume has a name: the caller renames dir.
func (d *Driver) Prepare(dir string, given map[string]string) error {
	o, err := parse(given)
	if err != nil {
		return err
	}
	data := filepath.Join(dir, Data)
	if err := os.Mkdir(data, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(data, 0o755); err != nil { // whatever the umask
		return err
	}
	if o.size == 0 {
		return nil
	}
	return d.limit(data, o.size)
}

// Data is the name of the directory with a volume's content, Docker's.
const Data = "_data"

// limit gives a new directory a project of its own.
func (d *Driver) limit(data string, bytes uint64) error {
	if d.projects == nil {
		return fault.Wrap(fault.Invalid, d.noQuota, "quota size requested but no quota support")
	}
	d.quotas.Lock()
	defer d.quotas.Unlock()
	project, err := d.projects.Free(d.firstProject(), func(uint32) bool { return false })
	if err != nil {
		return err
	}
	return d.projects.Set(data, project, bytes)
}

// firstProject is where this root's numbers begin: engines that share a file system seldom meet, and Free steps over
// what others took.
func (d *Driver) firstProject() uint32 {
	return 1<<30 | crc32.ChecksumIEEE([]byte(d.cfg.Root))&0xfff<<16
}

// Create makes the volume known; its directory has been made by Prepare.
func (d *Driver) Create(_ context.Context, name string, given map[string]string) error {
	return d.Adopt(name, given)
}

// Remove forgets the volume and undoes what is mounted for it. Its directory is the caller's to remove.
func (d *Driver) Remove(ctx context.Context, name string) error {
	if err := d.unmount(ctx, name); err != nil {
		return err
	}
	if err := d.users.Clear(name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.known, name)
	return nil
}

// Forget gives a removed volume's project number back. dir is its directory, content and all still there or already gone.
func (d *Driver) Forget(dir string) {
	if d.projects == nil {
		return
	}
	if p, err := quota.Project(filepath.Join(dir, Data)); err == nil && p >= 1<<30 {
		d.projects.Limit(p, 0)
	}
}

// Get gives the volume's path. The directory of a volume is there as long as the volume is.
func (d *Driver) Get(_ context.Context, name string) (driver.Found, error) {
	if _, ok := d.options(name); !ok {
		return driver.Found{}, fault.New(fault.NotFound, "no such volume")
	}
	return driver.Found{Name: name, Mountpoint: d.data(name)}, nil
}

// List lists what is known.
func (d *Driver) List(context.Context) ([]driver.Found, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]driver.Found, 0, len(d.known))
	for name := range d.known {
		list = append(list, driver.Found{Name: name, Mountpoint: d.data(name)})
	}
	return list, nil
}

// Mounts reports whether the volume is something that has to be mounted.
func (d *Driver) Mounts(name string) bool {
	o, ok := d.options(name)
	return ok && o.mounts()
}

// Mount gives the volume's path; with the first user it is mounted.
func (d *Driver) Mount(ctx context.Context, name, user string) (string, error) {
	o, ok := d.options(name)
	if !ok {
		return "", fault.New(fault.NotFound, "no such volume")
	}
	path := d.data(name)
	if !o.mounts() {
		return path, nil
	}
	_, fresh, err := d.users.Begin(name, user)
	if err != nil {
		return "", fault.In(err, "note the user of a volume")
	}
	failpoint.Hit("volume/mount-noted")
	err = d.mount(ctx, name, &o)
	if err == nil {
		err = failpoint.Hit("volume/mounted")
	}
	if err != nil {
		if fresh {
			d.users.End(name, user)
			if none, uerr := d.unused(name); uerr == nil && none {
				d.unmount(context.WithoutCancel(ctx), name)
			}
		}
		return "", fault.In(err, "error while mounting volume '%s'", path)
	}
	return path, nil
}

// Unmount ends a user's use, and the mount with the last.
func (d *Driver) Unmount(ctx context.Context, name, user string) error {
	if !d.Mounts(name) {
		return nil
	}
	if err := d.users.End(name, user); err != nil {
		return err
	}
	none, err := d.unused(name)
	if err != nil || !none {
		return err
	}
	return d.unmount(ctx, name)
}

func (d *Driver) unused(name string) (bool, error) {
	users, err := d.users.Users(name)
	return len(users) == 0, err
}

// Rename tells that the volume's directory has another name now. It must not be mounted.
func (d *Driver) Rename(_ context.Context, name, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if o, ok := d.known[name]; ok {
		delete(d.known, name)
		d.known[to] = o
	}
	return nil
}

func (d *Driver) options(name string) (options, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, ok := d.known[name]
	return o, ok
}

func (d *Driver) data(name string) string { return filepath.Join(d.cfg.Root, name, Data) }

// Resize changes the limit of a volume that has one.
func (d *Driver) Resize(_ context.Context, name string, bytes int64) error {
	o, ok := d.options(name)
	if !ok {
		return fault.New(fault.NotFound, "no such volume")
	}
	if o.size == 0 || d.projects == nil {
		return fault.New(fault.NotImplemented, "the volume was made without size: it has no limit to change")
	}
	project, err := quota.Project(d.data(name))
	if err != nil {
		return err
	}
	if project == 0 {
		return fault.New(fault.Internal, "the volume's directory has lost its project")
	}
	if err := d.projects.Limit(project, uint64(bytes)); err != nil {
		return err
	}
	o.size = uint64(bytes)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[name] = o
	return nil
}

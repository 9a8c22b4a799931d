package dir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"strings"
	"syscall"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/base/id"
	"berth/registry/storage"
)

const (
	tmpDir     = "tmp"
	uploadsDir = "uploads"
	fileMode   = 0o600
	dirMode    = 0o700
)

// Driver keeps keys in files.
type Driver struct {
	root *os.Root
	lock *os.File
	boot string // of the machine; "" when it cannot be known
}

var _ storage.Driver = (*Driver)(nil)

// Open opens the directory, or makes it. Conflict when another process serves it.
func Open(dir string) (*Driver, error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "registry root")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "registry root")
	}
	d := &Driver{root: root, boot: bootID()}
	if err := d.prepare(dir); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// bootID tells this start of the machine from others (random(4)).
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

func (d *Driver) prepare(dir string) error {
	var err error
	if d.lock, err = d.root.OpenFile("lock", os.O_CREATE|os.O_RDWR, fileMode); err != nil {
		return fault.Wrap(fault.Internal, err, "registry root")
	}
	if err := syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fault.New(fault.Conflict, "another process serves the registry in %s", dir)
	}
	if err := d.root.RemoveAll(tmpDir); err != nil {
		return fault.Wrap(fault.Internal, err, "registry root")
	}
	if err := d.mkdirs(tmpDir, uploadsDir); err != nil {
		return fault.Wrap(fault.Internal, err, "registry root")
	}
	return d.sweep()
}

// sweep removes notes of uploads that ended while a process was killed.
func (d *Driver) sweep() error {
	entries, err := fs.ReadDir(d.root.FS(), uploadsDir)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "registry root")
	}
	for _, e := range entries {
		name, isState := strings.CutSuffix(e.Name(), stateSuffix)
		if !isState {
			continue
		}
		if _, err := d.root.Lstat(path.Join(uploadsDir, name)); errors.Is(err, fs.ErrNotExist) {
			d.root.Remove(path.Join(uploadsDir, e.Name())) // the next process tries again
		}
	}
	return nil
}

func (d *Driver) mkdirs(dirs ...string) error {
	for _, dir := range dirs {
		if err := d.mkdir(dir); err != nil {
			return err
		}
	}
	return nil
}

// mkdir makes a directory and those above it, each durable in the one above before the next is made.
func (d *Driver) mkdir(dir string) error {
	err := d.root.Mkdir(dir, dirMode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.mkdir(path.Dir(dir)); err != nil {
			return err
		}
		err = d.root.Mkdir(dir, dirMode)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.syncDir(path.Dir(dir))
}

func (d *Driver) syncDir(dir string) error {
	f, err := d.root.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return atomicfile.Sync(f)
}

// Close lets another process have the directory.
func (d *Driver) Close() error {
	if d.lock != nil {
		d.lock.Close()
	}
	return d.root.Close()
}

// Read gives the value of a small key.
func (d *Driver) Read(ctx context.Context, key string) ([]byte, error) {
	c, err := d.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	defer c.Body.Close()
	if c.Size > storage.SmallValue {
		return nil, fault.New(fault.Internal, "%s has %d bytes, which is too much to be read whole", key, c.Size)
	}
	data := make([]byte, c.Size)
	if _, err := io.ReadFull(c.Body, data); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "%s", key)
	}
	return data, nil
}

// Open gives a value to read.
func (d *Driver) Open(_ context.Context, key string) (*storage.Content, error) {
	f, err := d.root.Open(key)
	if err != nil {
		return nil, keyError(key, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		f.Close()
		return nil, keyError(key, err)
	}
	return &storage.Content{Body: f, Size: info.Size(), Modified: info.ModTime()}, nil
}

// Stat says what Open would find.
func (d *Driver) Stat(_ context.Context, key string) (storage.Entry, error) {
	info, err := d.root.Lstat(key)
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return storage.Entry{}, keyError(key, err)
	}
	return storage.Entry{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil
}

// Write sets a small key.
func (d *Driver) Write(_ context.Context, key string, value []byte) error {
	tmp := path.Join(tmpDir, id.New())
	f, err := d.root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
	if err != nil {
		return keyError(key, err)
	}
	_, err = f.Write(value)
	if err == nil {
		err = atomicfile.Sync(f)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = d.name(tmp, key)
	}
	if err != nil {
		d.root.Remove(tmp)
		return keyError(key, err)
	}
	return nil
}

// name gives a file whose bytes are on disk its name, durably. Remove takes directories away that are empty, so one that
// was there a moment ago may have to be made again.
func (d *Driver) name(tmp, key string) error {
	dir := path.Dir(key)
	err := d.root.Rename(tmp, key)
	for try := 0; errors.Is(err, fs.ErrNotExist) && try < 100; try++ {
		if _, gone := d.root.Lstat(tmp); gone != nil {
			return err
		}
		if err := d.mkdir(dir); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return err
		}
		err = d.root.Rename(tmp, key)
	}
	if err != nil {
		return err
	}
	if err := d.syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil // somebody else has removed the key since, and the directory with it
}

// Remove takes a key away, and directories that became empty.
func (d *Driver) Remove(_ context.Context, key string) error {
	err := d.root.Remove(key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return keyError(key, err)
	}
	dir := path.Dir(key)
	for strings.Contains(dir, "/") && d.root.Remove(dir) == nil {
		dir = path.Dir(dir)
	}
	if err := d.syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return keyError(key, err)
	}
	return nil
}

// List gives every key below prefix.
func (d *Driver) List(ctx context.Context, prefix string) iter.Seq2[storage.Entry, error] {
	return func(yield func(storage.Entry, error) bool) { d.walk(ctx, strings.TrimSuffix(prefix, "/"), yield) }
}

func (d *Driver) walk(ctx context.Context, dir string, yield func(storage.Entry, error) bool) bool {
	if err := ctx.Err(); err != nil {
		return yield(storage.Entry{}, err) && false
	}
	entries, err := fs.ReadDir(d.root.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return true
	}
	if err != nil {
		yield(storage.Entry{}, keyError(dir, err))
		return false
	}
	for _, e := range entries {
		key := path.Join(dir, e.Name())
		if e.IsDir() {
			if !d.walk(ctx, key, yield) {
				return false
			}
			continue
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // it went away, or is none of ours
		}
		if !yield(storage.Entry{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil) {
			return false
		}
	}
	return true
}

// keyError gives an error of the file system its kind.
func keyError(key string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return fault.New(fault.NotFound, "%s is not there", key)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.Wrap(fault.Unavailable, err, "the registry's disk is full")
	}
	return fault.Wrap(fault.Internal, err, "%s", key)
}

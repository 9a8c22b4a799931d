package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"berth/base/failpoint"
)

const tmpPrefix = ".tmp-"

// syncs counts the fsyncs of this process, so that tests can state how many a verb costs.
var syncs atomic.Int64

// Syncs gives the number of fsyncs that this package has made since the process started. Tests compare two readings.
func Syncs() int64 { return syncs.Load() }

// Write replaces the file at path by data, durably. The mode is exactly perm, whatever the umask.
func Write(path string, data []byte, perm fs.FileMode) error {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// File is a file in the making. It appears under its name at Commit; Abort, which may follow Commit, drops it.
type File struct {
	*os.File
	path string
	done bool
}

// Create starts a file that will replace path. Its temporary name is in the same directory.
func Create(path string, perm fs.FileMode) (*File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), tmpPrefix+filepath.Base(path)+"-*")
	if err != nil {
		return nil, err
	}
	a := &File{File: f, path: path}
	if err := f.Chmod(perm); err != nil {
		a.Abort()
		return nil, err
	}
	return a, nil
}

// Commit makes the content durable, gives the file its name and makes the name durable. also are further directories whose names become
// durable at the same time: such as the one in which the file's own directory was made.
// After an error the old file is still in place, unless only the last step (fsync of the directories) failed.
func (a *File) Commit(also ...string) error {
	if err := failpoint.Hit("atomicfile/before-sync"); err != nil {
		return err
	}
	if err := Sync(a.File); err != nil {
		return err
	}
	if err := a.Close(); err != nil {
		return err
	}
	if err := failpoint.Hit("atomicfile/before-rename"); err != nil {
		return err
	}
	if err := os.Rename(a.Name(), a.path); err != nil {
		return err
	}
	a.done = true
	_ = failpoint.Hit("atomicfile/renamed") // done for whoever reads: only dying makes sense
	return syncDirs(filepath.Dir(a.path), also)
}

// Abort removes the temporary file. After a Commit that succeeded it does nothing.
func (a *File) Abort() {
	if a.done {
		return
	}
	a.done = true
	a.Close()
	os.Remove(a.Name())
}

// Remove deletes the file durably. A file that is not there is no error.
func Remove(path string) error {
	if err := failpoint.Hit("atomicfile/before-remove"); err != nil {
		return err
	}
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_ = failpoint.Hit("atomicfile/removed")
	return SyncDir(filepath.Dir(path))
}

// Rename renames within one file system and makes it durable in both directories.
func Rename(from, to string) error {
	if err := failpoint.Hit("atomicfile/before-move"); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	_ = failpoint.Hit("atomicfile/moved")
	if err := SyncDir(filepath.Dir(to)); err != nil {
		return err
	}
	if filepath.Dir(from) == filepath.Dir(to) {
		return nil
	}
	return SyncDir(filepath.Dir(from))
}

// Sync is fsync, counted.
func Sync(f *os.File) error {
	syncs.Add(1)
	return f.Sync()
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return Sync(f)
}

// syncDirs is SyncDir of several directories at once: a disk takes less time for them together than one after the other.
func syncDirs(dir string, also []string) error {
	errs := make([]error, len(also))
	var others sync.WaitGroup
	for i, d := range also {
		others.Go(func() { errs[i] = SyncDir(d) })
	}
	err := SyncDir(dir)
	others.Wait()
	return errors.Join(append(errs, err)...)
}

// Sweep removes what writers that died left in dir. Only the directory's one owner may call it, before it writes.
func Sweep(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range names {
		if !strings.HasPrefix(e.Name(), tmpPrefix) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

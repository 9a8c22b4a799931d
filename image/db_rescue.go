package image

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"berth/base/atomicfile"
	"berth/base/fault"
)

// A database that a disk or a person has damaged must not keep the engine from starting. It is set aside, and the copy that was made
// when it was last opened whole takes its place. What came since has no record then, but its layers and documents are still there, and
// stay: nothing is swept while a damaged database lies beside. `system check` tells of it, and a repair ends that state.
//
//	images.db               the database
//	images.db.old           as it was when it was opened last
//	images.db.damaged-TIME  set aside
const (
	dbName      = "images.db"
	dbOld       = "images.db.old"
	dbSetAside  = "images.db.damaged-"
	dbTimestamp = "20060102T150405"
)

// openOrRescue opens the database of a store, or what can be had instead.
func openOrRescue(root string, log *slog.Logger) (*bolt.DB, error) {
	path, old := filepath.Join(root, dbName), filepath.Join(root, dbOld)
	st, missing := os.Lstat(path)
	_, noCopy := os.Lstat(old)
	if missing == nil || noCopy != nil {
		db, err := (*bolt.DB)(nil), error(nil)
		if missing == nil && st.Size() == 0 && noCopy == nil { // bbolt would take it for a new one, and everything would be swept
			err = fmt.Errorf("%w: %s is empty", errDamaged, path)
		} else {
			db, err = openSafely(path)
		}
		if err == nil {
			keepCopy(db, old, log)
			return db, nil
		}
		if !errors.Is(err, errDamaged) {
			return nil, err
		}
		aside := filepath.Join(root, dbSetAside+time.Now().UTC().Format(dbTimestamp))
		log.Error("the database of images is damaged: it is set aside, and the copy of the last start takes its place; images that came since have to be pulled or loaded again", "damaged", aside, "error", err)
		if err := os.Rename(path, aside); err != nil {
			return nil, fault.Wrap(fault.Internal, err, "setting the damaged database of images aside")
		}
	} else {
		log.Error("the database of images is missing: the copy of the last start takes its place; images that came since have to be pulled or loaded again", "path", path)
		note := filepath.Join(root, dbSetAside+time.Now().UTC().Format(dbTimestamp))
		if err := os.WriteFile(note, nil, 0o600); err != nil {
			return nil, fault.Wrap(fault.Internal, err, "noting that the database of images was missing")
		}
	}
	if noCopy == nil {
		if db, err := openSafely(old); err == nil { // whole, so it may be copied
			err = copyTo(db, path)
			db.Close()
			if err == nil {
				return openSafely(path)
			}
			log.Error("the copy of the database cannot be used", "error", err)
		}
		os.Remove(path)
	}
	return openSafely(path) // a new one
}

var errDamaged = errors.New("the database is damaged")

// openSafely opens a database and reads all of it. bbolt panics, or reads beyond the end of what is mapped, where its pages are not
// what they should be; both become errDamaged.
func openSafely(path string) (db *bolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, fmt.Errorf("%w: %s: %v", errDamaged, path, p) // what bbolt has open of it goes with the process
		}
	}()
	if err := checkPages(path); err != nil {
		if ofTheMachine(err) {
			return nil, fault.Wrap(fault.Internal, err, "reading %s", path)
		}
		return nil, fmt.Errorf("%w: %s: %w", errDamaged, path, err)
	}
	if db, err = openDB(path); err != nil {
		if fault.Is(err, fault.Conflict) || fault.Is(err, fault.Invalid) || ofTheMachine(err) {
			return nil, err // in use, of a newer version, or no matter of its content
		}
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	err = db.View(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketImages, bucketNames, bucketSources} {
			b := tx.Bucket(name)
			if b == nil {
				return fmt.Errorf("%w: %s: bucket %s is missing", errDamaged, path, name)
			}
			read := 0
			if err := b.ForEach(func(k, v []byte) error {
				for _, c := range v {
					read += int(c)
				}
				return nil
			}); err != nil {
				return fmt.Errorf("%w: %w", errDamaged, err)
			}
		}
		return nil
	})
	if err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// keepCopy replaces the copy by the database as it is.
func keepCopy(db *bolt.DB, old string, log *slog.Logger) {
	if err := copyTo(db, old); err != nil {
		log.Warn("no copy of the database of images is kept", "error", err)
	}
}

func copyTo(db *bolt.DB, path string) error {
	tmp := path + ".new"
	err := db.View(func(tx *bolt.Tx) error { return tx.CopyFile(tmp, 0o600) })
	if err == nil {
		err = syncFile(tmp) // or a power cut could leave an empty one where a whole one was
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(atomicfile.Sync(f), f.Close())
}

// setAside lists damaged databases that lie beside. While there are any, nothing is swept.
func (s *Store) setAside() []string {
	names, _ := filepath.Glob(filepath.Join(s.cfg.Root, dbSetAside+"*"))
	return names
}

// ofTheMachine tells errors that say nothing about a file's content: no room, no right, no memory, no descriptor. A file that cannot be read
// where it lies on the disk (EIO) or that the file system itself finds broken is damaged.
func ofTheMachine(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && errno != syscall.EIO && errno != syscall.EUCLEAN && errno != syscall.EBADMSG
}

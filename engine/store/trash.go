package store

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/id"
	"berth/engine/container"
)

// A container in the trash is its directory under another name, DATA-ROOT/containers/.trash/ID, with a note in it. The note is written
// before the directory is renamed: a crash in between leaves a removal that was begun, which is finished at the next start.
const (
	trashDir     = ".trash"
	trashFile    = "trash.json"
	trashVersion = 1
)

// Note is what is kept of a container in the trash beside its record.
type Note struct {
	Version  int       `json:"version"`
	Removed  time.Time `json:"removed"`
	Expires  time.Time `json:"expires"`
	Standing Standing  `json:"standing"` // as it was before its removal began
}

// Trashed is a container in the trash.
type Trashed struct {
	Note
	Record *container.Record
}

// Trash makes the container not exist, durably, but for what Restore needs.
func (s *Store) Trash(cid string, n Note) error {
	n.Version = trashVersion
	b, err := json.Marshal(n)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "moving container %s into the trash", cid)
	}
	if _, err := os.Lstat(s.Dir(cid)); errors.Is(err, fs.ErrNotExist) && s.InTrash(cid) {
		return nil // done before a crash
	}
	err = os.MkdirAll(s.trashPath(), 0o700)
	if err == nil {
		err = atomicfile.Write(filepath.Join(s.Dir(cid), trashFile), append(b, '\n'), 0o600)
	}
	if err == nil {
		err = failpoint.Hit("engine/store/before-trash")
	}
	if err == nil {
		err = os.Rename(s.Dir(cid), s.trashPath(cid))
	}
	failpoint.Hit("engine/store/trashed")
	if err == nil {
		err = errors.Join(atomicfile.SyncDir(s.trashPath()), atomicfile.SyncDir(s.dir))
	}
	if err != nil {
		return fault.Wrap(fault.Internal, err, "moving container %s into the trash", cid)
	}
	s.late.drop(cid)
	s.gone.Store(cid, struct{}{})
	return nil
}

func (s *Store) trashPath(elem ...string) string {
	return filepath.Join(append([]string{s.dir, trashDir}, elem...)...)
}

// InTrash reports whether a container is in the trash. Where that cannot be found out it may be: what it left is not to be taken away.
func (s *Store) InTrash(cid string) bool {
	_, err := os.Lstat(s.trashPath(cid))
	return !errors.Is(err, fs.ErrNotExist)
}

// ReadTrash reads what is in the trash. What cannot be read is logged and left alone.
func (s *Store) ReadTrash() []Trashed {
	entries, err := os.ReadDir(s.trashPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("the containers in the trash cannot be read", "error", err)
	}
	var all []Trashed
	for _, e := range entries {
		if !id.Valid(e.Name()) {
			continue
		}
		t, err := s.Trashed(e.Name())
		if err != nil {
			s.log.Error("a container in the trash cannot be restored and is left alone", "container", e.Name(), "error", err)
			continue
		}
		all = append(all, t)
	}
	return all
}

// Trashed reads one container in the trash; fault.NotFound where it is not there.
func (s *Store) Trashed(cid string) (t Trashed, err error) {
	b, err := os.ReadFile(s.trashPath(cid, trashFile))
	if errors.Is(err, fs.ErrNotExist) {
		return t, fault.New(fault.NotFound, "no container %s in the trash", cid)
	}
	if err == nil {
		err = json.Unmarshal(b, &t.Note)
	}
	if err == nil && t.Version != trashVersion {
		err = fault.New(fault.Invalid, "format %d is not known", t.Version)
	}
	if err == nil {
		b, err = os.ReadFile(s.trashPath(cid, recordFile))
	}
	if err == nil {
		t.Record, err = container.DecodeRecord(b, cid)
	}
	return t, fault.Wrap(fault.Internal, err, "reading container %s in the trash", cid)
}

// Restore brings a container back with this record, which may have another name.
func (s *Store) Restore(r *container.Record, at Standing) error {
	b, err := r.Encode()
	if err != nil {
		return err
	}
	if err := atomicfile.Write(s.trashPath(r.ID, recordFile), b, 0o600); err != nil {
		return fault.Wrap(fault.Internal, err, "restoring container %s", r.ID)
	}
	s.gone.Delete(r.ID)
	// The journal first: a line for a container that does not exist is passed over.
	err = s.SetStanding(r.ID, at)
	if err == nil {
		err = failpoint.Hit("engine/store/before-restore")
	}
	if err == nil {
		err = os.Rename(s.trashPath(r.ID), s.Dir(r.ID))
	}
	if err == nil {
		err = errors.Join(atomicfile.SyncDir(s.dir), atomicfile.SyncDir(s.trashPath()))
	}
	if err != nil {
		return fault.Wrap(fault.Internal, err, "restoring container %s", r.ID)
	}
	if err := atomicfile.Remove(filepath.Join(s.Dir(r.ID), trashFile)); err != nil {
		s.log.Warn("a note of the trash stays with a container", "container", r.ID, "error", err)
	}
	return nil
}

// Discard deletes a container from the trash.
func (s *Store) Discard(cid string) error {
	gone := filepath.Join(s.dir, gonePrefix+cid)
	err := failpoint.Hit("engine/store/before-discard")
	if err == nil {
		err = os.Rename(s.trashPath(cid), gone)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "no container %s in the trash", cid)
	}
	if err == nil {
		err = atomicfile.SyncDir(s.trashPath())
	}
	if err != nil {
		return fault.Wrap(fault.Internal, err, "deleting container %s from the trash", cid)
	}
	s.sweep.take(gone)
	return nil
}

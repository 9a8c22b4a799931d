package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"berth/base/fault"
	"berth/base/id"
	"berth/engine/container"
)

// Found is what lies on disk of one container.
type Found struct {
	ID     string
	Record *container.Record // nil: there is none, or none that can be read
	Err    error             // why it cannot be read; fs.ErrNotExist: there is none
}

// Look reads every container's directory as it is on disk now, and names what lies there and belongs to nobody.
func (s *Store) Look() (found []Found, strays []string, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case name == ".trash": // which has a check of its own
			continue
		case strings.HasPrefix(name, gonePrefix):
			if _, removing := s.gone.Load(strings.TrimPrefix(name, gonePrefix)); !removing && !s.sweep.has(filepath.Join(s.dir, name)) {
				strays = append(strays, name)
			}
			continue
		case !id.Valid(name):
			strays = append(strays, name)
			continue
		}
		f, _ := s.LookOne(name)
		found = append(found, f)
	}
	return found, strays, nil
}

// Same reports whether what lies on disk says the same as a record in memory.
func (f *Found) Same(r *container.Record) bool {
	if f.Record == nil {
		return false
	}
	a, aerr := f.Record.Encode()
	b, berr := r.Encode()
	return aerr == nil && berr == nil && bytes.Equal(a, b)
}

// JournalState is what a journal looks like on disk.
type JournalState struct {
	Name       string // "states.journal", and where
	Lines, Bad int
	Err        error // it cannot be read at all
}

// LookAtJournals reads both journals as they are on disk now.
func (s *Store) LookAtJournals() []JournalState {
	var all []JournalState
	for _, j := range []struct {
		name string
		j    *journal
	}{{"states.journal", s.disk}, {"states.journal of this boot", s.now}} {
		st := JournalState{Name: j.name}
		j.j.swap.Lock() // no line is half written
		b, err := os.ReadFile(j.j.path)
		j.j.swap.Unlock()
		if err == nil {
			first, _, _ := bytes.Cut(b, []byte("\n"))
			var h header
			if json.Unmarshal(first, &h) != nil || h.Format != format {
				st.Bad++
			}
			ls := newLines()
			var bad int
			if bad, err = readJournal(b, ls); err == nil {
				st.Bad = max(st.Bad, bad)
				st.Lines = len(ls.standings) + len(ls.execs)
			}
		}
		st.Err = err
		all = append(all, st)
	}
	return all
}

// Renew writes both journals anew: the standings that the engine has in memory, and the execs that the journals tell.
func (s *Store) Renew(standings map[string]Standing) error {
	ls := newLines()
	if old, err := readJournals(s.log, s.now.path, s.disk.path); err == nil {
		ls.execs = old.execs
		for cid := range s.left {
			if l := old.standings[cid]; l != nil {
				ls.put(*l)
			}
		}
	}
	for cid, at := range standings {
		ls.put(line{ID: cid, Boot: s.boot, Time: s.stamp.next(), Standing: &at})
	}
	err := errors.Join(s.now.rewrite(ls, false), s.disk.rewrite(ls, true))
	return fault.Wrap(fault.Internal, err, "writing the journals anew")
}

// Left reports whether a container could not be loaded, as its record was damaged or missing, and is left as it is for that.
func (s *Store) Left(cid string) bool { return s.left[cid] }

// Ours reports whether a stray is a left-over of this package: anything else somebody may want.
func Ours(stray string) bool {
	return strings.HasPrefix(stray, gonePrefix) || strings.HasPrefix(stray, ".tmp-")
}

// RemoveStray deletes what Look named a stray.
func (s *Store) RemoveStray(name string) error {
	if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// LookOne reads one container's record.
func (s *Store) LookOne(cid string) (Found, error) {
	f := Found{ID: cid}
	b, err := os.ReadFile(filepath.Join(s.dir, cid, recordFile))
	if err == nil {
		f.Record, err = container.DecodeRecord(b, cid)
	}
	f.Err = err
	return f, err
}

// Rewrite is Write for a container whose directory may be missing, too.
func (s *Store) Rewrite(r *container.Record) error {
	if err := os.MkdirAll(s.Dir(r.ID), 0o710); err != nil {
		return fault.Wrap(fault.Internal, err, "recording container %s", r.ID)
	}
	return s.Create(r)
}

// LookAtTrash reads what containers are in the trash as it is on disk now; what cannot be read has an Err.
func (s *Store) LookAtTrash() (found []Found) {
	entries, _ := os.ReadDir(filepath.Join(s.dir, ".trash"))
	for _, e := range entries {
		if !id.Valid(e.Name()) {
			continue
		}
		t, err := s.Trashed(e.Name())
		if fault.Is(err, fault.NotFound) {
			if _, serr := os.Lstat(filepath.Join(s.dir, ".trash", e.Name())); serr != nil {
				continue // deleted for good meanwhile
			}
		}
		found = append(found, Found{ID: e.Name(), Record: t.Record, Err: err})
	}
	return found
}

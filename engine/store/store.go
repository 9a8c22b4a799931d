package store

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/id"
	"berth/engine/container"
)

const (
	recordFile  = "container.json"
	volumesFile = "volumes"
	gonePrefix  = ".gone-"
)

// Store is the containers' directory and their journals. Its methods may be called from many goroutines, but for one container by one
// at a time.
type Store struct {
	dir  string // DATA-ROOT/containers
	boot string
	now  *journal // in EXEC-ROOT
	disk *journal // in DATA-ROOT, behind by up to a second
	late *behind
	gone sync.Map // ids of containers removed since the last compaction
	log  *slog.Logger

	sweep sweeper

	left  map[string]bool // containers that could not be loaded and are left as they are; not changed after Open
	stamp stamps
}

// execKept is how long an ended exec is remembered, so that a client may still ask for its exit code.
const execKept = 10 * time.Minute

// Standing is where a container stands.
type Standing struct {
	State        container.State `json:"state"`
	RestartCount int             `json:"restarts,omitzero"`
	RestartWait  time.Duration   `json:"wait,omitzero"`     // the last wait before a restart by policy
	Relapses     int             `json:"relapses,omitzero"` // restarts by on-unhealthy since it was healthy or a person started it
	Unwell       bool            `json:"unwell,omitzero"`   // the engine is ending this run, because it is unhealthy
	Op           string          `json:"op,omitzero"`       // an operation that must be finished after a crash: "remove"
	Figures      *Figures        `json:"figures,omitempty"`
	Reboot       bool            `json:"reboot,omitzero"` // it ended because the machine went down
}

// Figures are what the cgroup of a process that ended badly said at its end.
type Figures struct {
	OOMKills     uint64 `json:"oomKills,omitzero"`
	MemoryPeak   uint64 `json:"memoryPeak,omitzero"`  // bytes
	MemoryLimit  uint64 `json:"memoryLimit,omitzero"` // bytes; 0: none
	ForksRefused uint64 `json:"forksRefused,omitzero"`
	ProcessLimit uint64 `json:"processLimit,omitzero"` // 0: none
}

// Loaded is one container as found on disk.
type Loaded struct {
	Record   *container.Record
	Standing Standing // State.Status is Created where nothing is known
	Boot     string   // boot id in which the standing was written; "" if none was
	Execs    []Exec
}

// Open reads everything. boot is the kernel's boot id. half lists ids of which there is a directory but no record: creations that a
// crash cut off, to be swept by the caller, who knows what else belongs to them. A record that cannot be read is left alone and logged,
// and so is one that is missing although a journal tells where its container stood: only damage does that, and what the container wrote
// may be all that is left of it.
func Open(dataRoot, execRoot, boot string, log *slog.Logger) (s *Store, all []Loaded, half []string, err error) {
	s = &Store{dir: filepath.Join(dataRoot, "containers"), boot: boot, log: log, sweep: sweeper{log: log}, left: map[string]bool{}}
	if err := os.MkdirAll(s.dir, 0o710); err != nil {
		return nil, nil, nil, fault.Wrap(fault.Internal, err, "making the containers' directory")
	}
	records, half, err := s.readRecords()
	if err != nil {
		return nil, nil, nil, err
	}
	nowPath, diskPath := filepath.Join(execRoot, "states.journal"), filepath.Join(dataRoot, "states.journal")
	lines, err := readJournals(log, nowPath, diskPath)
	if err != nil {
		return nil, nil, nil, err
	}
	half = slices.DeleteFunc(half, func(cid string) bool {
		if lines.standings[cid] == nil {
			return false
		}
		s.log.Error("the record of a container is missing; its directory and what it wrote are left as they are", "container", cid)
		s.left[cid] = true
		return true
	})
	lines.keep(func(cid string) bool { return records[cid] != nil || s.left[cid] })
	s.stamp.after(lines)
	if s.now, err = newJournal(nowPath, lines, false, log); err != nil {
		return nil, nil, nil, err
	}
	if s.disk, err = newJournal(diskPath, lines, true, log); err != nil {
		s.now.close()
		return nil, nil, nil, err
	}
	s.late = newBehind(s.disk, s.compact, log)
	for cid, r := range records {
		l := Loaded{Record: r, Standing: Standing{State: container.State{Status: container.Created}}}
		if at := lines.standings[cid]; at != nil {
			l.Standing, l.Boot = *at.Standing, at.Boot
		}
		for _, e := range lines.execs {
			if e.Exec.Container == cid {
				l.Execs = append(l.Execs, *e.Exec)
			}
		}
		all = append(all, l)
	}
	return s, all, half, nil
}

// Close brings everything to disk.
func (s *Store) Close() error {
	s.sweep.close()
	return errors.Join(s.late.close(), s.now.close(), s.disk.close())
}

// Settle waits until the files of removed containers are off the disk: a removal is answered before.
func (s *Store) Settle(ctx context.Context) error { return s.sweep.settle(ctx) }

// Dir is the container's directory.
func (s *Store) Dir(cid string) string { return filepath.Join(s.dir, cid) }

// MakeDir makes the container's directory, which claims its id. Without a record it is swept after a crash.
func (s *Store) MakeDir(cid string) error {
	return fault.Wrap(fault.Internal, os.Mkdir(s.Dir(cid), 0o710), "making the directory of container %s", cid)
}

// Create writes the first record of a container durably.
func (s *Store) Create(r *container.Record) error { return s.write(r, s.dir) }

// NoteVolumes notes, before they are made, the volumes of a container that is being created: if a crash cuts the creation off, they are
// known. The note is for who comes after a kill; after a power cut a volume may stay, unused.
func (s *Store) NoteVolumes(cid string, names []string) error {
	if err := failpoint.Hit("store/before-volumes-note"); err != nil {
		return fault.In(err, "noting the volumes of container %s", cid)
	}
	err := os.WriteFile(filepath.Join(s.Dir(cid), volumesFile), []byte(strings.Join(names, "\n")), 0o600)
	return fault.Wrap(fault.Internal, err, "noting the volumes of container %s", cid)
}

// NotedVolumes gives what NoteVolumes noted.
func (s *Store) NotedVolumes(cid string) []string {
	b, err := os.ReadFile(filepath.Join(s.Dir(cid), volumesFile))
	if err != nil {
		return nil // none, or nothing that can be known
	}
	return strings.Fields(string(b))
}

// Write replaces the record durably.
func (s *Store) Write(r *container.Record) error { return s.write(r) }

// write is Write. also are directories whose names become durable with it.
func (s *Store) write(r *container.Record, also ...string) error {
	b, err := r.Encode()
	if err != nil {
		return err
	}
	f, err := atomicfile.Create(filepath.Join(s.Dir(r.ID), recordFile), 0o600)
	if err == nil {
		defer f.Abort()
		_, err = f.Write(b)
	}
	if err == nil {
		err = f.Commit(also...)
	}
	return fault.Wrap(fault.Internal, err, "recording container %s", r.ID)
}

// Remove makes the container not exist, durably; its files are deleted soon after. Removing twice is no error.
func (s *Store) Remove(cid string) error {
	if err := failpoint.Hit("store/before-gone"); err != nil {
		return fault.In(err, "removing container %s", cid)
	}
	gone := filepath.Join(s.dir, gonePrefix+cid)
	if err := os.Rename(s.Dir(cid), gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.Internal, err, "removing container %s", cid)
	}
	_ = failpoint.Hit("store/gone-unsynced")
	if err := atomicfile.SyncDir(s.dir); err != nil {
		return fault.Wrap(fault.Internal, err, "removing container %s", cid)
	}
	_ = failpoint.Hit("store/gone")
	s.late.drop(cid)
	s.gone.Store(cid, struct{}{})
	s.sweep.take(gone)
	return nil
}

// Abandon removes the directory of a creation that did not get as far as a record.
func (s *Store) Abandon(cid string) error {
	return fault.Wrap(fault.Internal, os.RemoveAll(s.Dir(cid)), "removing the directory of container %s", cid)
}

// SetStanding notes where a container stands. It is there after a crash of the engine at once, after one of the machine within a second.
func (s *Store) SetStanding(cid string, at Standing) error {
	l, err := encode(line{ID: cid, Boot: s.boot, Time: s.stamp.next(), Standing: &at})
	if err != nil {
		return err
	}
	if err := failpoint.Hit("store/before-standing"); err != nil {
		return fault.In(err, "noting where container %s stands", cid)
	}
	s.late.put(cid, l)
	return s.now.append(l)
}

// Flush brings every standing to disk that is not there yet.
func (s *Store) Flush() error { return s.late.flush() }

// SetExec notes an exec, for this boot only.
func (s *Store) SetExec(e Exec) error {
	l, err := encode(line{ID: e.ID, Boot: s.boot, Time: s.stamp.next(), Exec: &e})
	if err != nil {
		return err
	}
	return s.now.append(l)
}

// compact rewrites a journal that has grown to many times what it holds.
func (s *Store) compact() {
	useless := func(l line) bool {
		owner := l.ID
		if l.Exec != nil {
			owner = l.Exec.Container
			if !l.Exec.Running && time.Since(l.Time) > execKept {
				return true
			}
		}
		_, removed := s.gone.Load(owner)
		return removed
	}
	if !s.now.bloated() && !s.disk.bloated() {
		return
	}
	if err := errors.Join(s.now.compact(useless, false), s.disk.compact(useless, true)); err != nil {
		s.log.Warn("cannot rewrite a journal; it goes on growing", "error", err)
		return
	}
	s.gone.Clear()
}

func (s *Store) readRecords() (map[string]*container.Record, []string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Internal, err, "reading the containers' directory")
	}
	records, half := map[string]*container.Record{}, []string(nil)
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, gonePrefix) {
			if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
				s.log.Warn("cannot delete what a removed container left", "path", filepath.Join(s.dir, name), "error", err)
			}
			continue
		}
		if !id.Valid(name) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(s.dir, name, recordFile))
		if errors.Is(err, fs.ErrNotExist) {
			half = append(half, name)
			continue
		}
		var r *container.Record
		if err == nil {
			r, err = container.DecodeRecord(b, name)
		}
		if err != nil {
			s.log.Error("a container cannot be loaded and is left as it is", "container", name, "error", err)
			s.left[name] = true
			continue
		}
		if container.Unsealed(b) {
			s.log.Warn("the record of a container is not what the engine wrote: it was changed by hand, or the disk damaged it; it is taken as it reads", "container", name, "name", r.Name)
		}
		records[name] = r
		if err := atomicfile.Sweep(filepath.Join(s.dir, name)); err != nil {
			s.log.Warn("cannot delete a left-over file", "container", name, "error", err)
		}
	}
	return records, half, nil
}

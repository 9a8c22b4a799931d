package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/engine/container"
)

// journalVersion is in the first line; a newer journal is refused.
const journalVersion = 1

// Exec is a further process of a container, as it is remembered through a restart of the engine.
type Exec struct {
	ID        string             `json:"id"`
	Container string             `json:"container"`
	Spec      container.ExecSpec `json:"spec"`
	Pid       int                `json:"pid,omitzero"`
	Running   bool               `json:"running,omitzero"`
	ExitCode  *int               `json:"exit,omitempty"`
}

// line is one entry of a journal. Time orders the entries, also those of two journals; see stamps.
type line struct {
	ID       string    `json:"id"`
	Boot     string    `json:"boot"`
	Time     time.Time `json:"time"`
	Standing *Standing `json:"standing,omitempty"`
	Exec     *Exec     `json:"exec,omitempty"`
}

type header struct {
	Format  string `json:"format"` // "berth-states"
	Version int    `json:"version"`
}

const format = "berth-states"

// lines are the last entries for each container and exec.
type lines struct {
	standings map[string]*line
	execs     map[string]*line
}

func newLines() lines { return lines{map[string]*line{}, map[string]*line{}} }

func (ls lines) put(l line) {
	m := ls.standings
	if l.Exec != nil {
		m = ls.execs
	}
	if old := m[l.ID]; old == nil || !l.Time.Before(old.Time) {
		m[l.ID] = &l
	}
}

// keep drops what belongs to no container that is known.
func (ls lines) keep(known func(cid string) bool) {
	maps.DeleteFunc(ls.standings, func(cid string, _ *line) bool { return !known(cid) })
	maps.DeleteFunc(ls.execs, func(_ string, l *line) bool { return !known(l.Exec.Container) })
}

// stamps are the times of lines. Each is later than all before it, also where somebody sets the machine's clock back: otherwise an older
// line would hold, and a container that was stopped would be one that runs.
type stamps struct{ last atomic.Int64 } // nanoseconds since 1970

func (s *stamps) next() time.Time {
	for {
		last := s.last.Load()
		now := max(time.Now().UnixNano(), last+1)
		if s.last.CompareAndSwap(last, now) {
			return time.Unix(0, now)
		}
	}
}

// after lets all stamps to come be later than what was read.
func (s *stamps) after(ls lines) {
	for _, m := range []map[string]*line{ls.standings, ls.execs} {
		for _, l := range m {
			s.last.Store(max(s.last.Load(), l.Time.UnixNano()))
		}
	}
}

func encode(l line) ([]byte, error) {
	b, err := json.Marshal(l)
	return append(b, '\n'), fault.Wrap(fault.Internal, err, "encoding the standing of %s", l.ID)
}

// readJournals joins the journals that exist. A torn last line and lines that mean nothing are passed over and counted in the log.
func readJournals(log *slog.Logger, paths ...string) (lines, error) {
	all := newLines()
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return all, fault.Wrap(fault.Internal, err, "reading the journal")
		}
		bad, err := readJournal(b, all)
		if err != nil {
			return all, fault.In(err, "reading %s", path)
		}
		if bad > 0 {
			log.Warn("a journal has lines that cannot be read", "path", path, "lines", bad)
		}
	}
	return all, nil
}

func readJournal(b []byte, into lines) (bad int, err error) {
	first := true
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return bad + 1, nil // torn by a power cut
		}
		raw := b[:i]
		b = b[i+1:]
		if first {
			first = false
			var h header
			if json.Unmarshal(raw, &h) == nil && h.Format == format {
				if h.Version > journalVersion {
					return bad, fault.New(fault.Internal, "the journal has version %d; this build reads up to %d", h.Version, journalVersion)
				}
				continue
			}
		}
		var l line
		if json.Unmarshal(raw, &l) != nil || l.ID == "" || (l.Standing == nil) == (l.Exec == nil) {
			bad++
			continue
		}
		into.put(l)
	}
	return bad, nil
}

// journal is one file, appended to by single writes.
type journal struct {
	path  string
	need  atomic.Int64 // lines that counted at the last rewrite
	count atomic.Int64 // lines in the file
	torn  atomic.Bool  // the file ends in the middle of a line

	swap sync.RWMutex // held for reading while appending, for writing while the file is replaced
	file *os.File
}

func newJournal(path string, ls lines, durable bool, log *slog.Logger) (*journal, error) {
	j := &journal{path: path}
	err := j.rewrite(ls, durable)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		// What is there is good enough to go on with: an engine that does not start on a full disk cannot be told to remove anything.
		if f, oerr := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0); oerr == nil {
			log.Warn("a journal could not be rewritten, as the disk is full; it is gone on with", "path", path)
			b, _ := os.ReadFile(path)
			j.torn.Store(len(b) > 0 && b[len(b)-1] != '\n')
			j.file = f
			return j, nil
		}
	}
	return j, err
}

// append writes whole lines at the end.
func (j *journal) append(b []byte) error {
	j.swap.RLock()
	defer j.swap.RUnlock()
	j.count.Add(1)
	if j.torn.Load() {
		b = append([]byte{'\n'}, b...) // what was torn stays alone
	}
	n, err := j.file.Write(b)
	j.torn.Store(err != nil && (n > 0 || j.torn.Load()))
	return fault.Wrap(fault.Internal, err, "writing %s", j.path)
}

func (j *journal) sync() error {
	j.swap.RLock()
	defer j.swap.RUnlock()
	return fault.Wrap(fault.Internal, atomicfile.Sync(j.file), "syncing %s", j.path)
}

func (j *journal) bloated() bool { return j.count.Load() > 4*j.need.Load()+2000 }

// rewrite replaces the file by one with only ls.
func (j *journal) rewrite(ls lines, durable bool) error {
	j.swap.Lock()
	defer j.swap.Unlock()
	return j.rewriteLocked(ls, durable)
}

// compact reads the file back and rewrites it with the last lines only, without the useless ones.
func (j *journal) compact(useless func(line) bool, durable bool) error {
	j.swap.Lock()
	defer j.swap.Unlock()
	b, err := os.ReadFile(j.path)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "reading %s", j.path)
	}
	ls := newLines()
	if _, err := readJournal(b, ls); err != nil {
		return err
	}
	for _, m := range []map[string]*line{ls.standings, ls.execs} {
		maps.DeleteFunc(m, func(_ string, l *line) bool { return useless(*l) })
	}
	return j.rewriteLocked(ls, durable)
}

func (j *journal) rewriteLocked(ls lines, durable bool) error {
	head, err := json.Marshal(header{format, journalVersion})
	if err != nil {
		return fault.Wrap(fault.Internal, err, "encoding the journal's header")
	}
	text := append(head, '\n')
	for _, m := range []map[string]*line{ls.standings, ls.execs} {
		for _, l := range m {
			b, err := encode(*l)
			if err != nil {
				return err
			}
			text = append(text, b...)
		}
	}
	if err := replace(j.path, text, durable); err != nil {
		return fault.Wrap(fault.Internal, err, "writing %s", j.path)
	}
	f, err := os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "opening %s", j.path)
	}
	if j.file != nil {
		j.file.Close()
	}
	n := int64(len(ls.standings) + len(ls.execs))
	j.file = f
	j.need.Store(n)
	j.count.Store(n)
	return nil
}

func (j *journal) close() error { return j.file.Close() }

func replace(path string, text []byte, durable bool) error {
	if durable {
		return atomicfile.Write(path, text, 0o600)
	}
	tmp := filepath.Join(filepath.Dir(path), ".tmp-"+filepath.Base(path))
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return err
	}
	if err := failpoint.Hit("store/journal-rewritten"); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

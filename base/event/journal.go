package event

import (
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"berth/base/fault"
)

// The journal's directory has segments, NUMBER.events, where NUMBER is the twenty-digit decimal number of the first event that may be in
// it. A segment is text:
//
//	berth-events 1
//	CHECKSUM NUMBER TIME {"type":…,"action":…,"id":…,"attributes":{…}}
//	…
//
// CHECKSUM is the CRC-32C of the rest of the line without its line feed, in eight hexadecimal digits; TIME is nanoseconds since 1970.
// Numbers and, but for a clock that was set back, times grow. Lines that are damaged are passed over; what comes after the last line
// feed of the last segment was torn by a crash and is cut off. The oldest segments are deleted when all together are too large.
const (
	segmentFormat = "berth-events "
	segmentHeader = segmentFormat + "1\n"
	segmentSuffix = ".events"
	segmentsKept  = 8        // into how many segments the allowed size is divided
	queueMax      = 16 << 10 // events that wait for a disk that does not take them
)

// MinJournal is the least size that a journal can be limited to, in bytes.
const MinJournal = 64 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// JournalOptions say how a journal is kept.
type JournalOptions struct {
	MaxBytes int64 // of all segments; 0: 16 MiB
	Log      *slog.Logger
}

// Journal keeps events on disk. A Bus writes it; see NewDurable.
type Journal struct {
	dir string
	max int64
	log *slog.Logger

	wake chan struct{}
	quit chan struct{}
	done chan struct{}
	once sync.Once

	mu       sync.Mutex // guards what follows; held for memory only
	queue    []numbered // not written yet
	flight   []numbered // being written, before those of queue
	dropped  int        // of the queue, as the disk took nothing for too long
	segments []segment  // the oldest first; the last one is written
	next     uint64     // number after the last event on disk, while opening
	last     time.Time  // of the last event on disk, while opening

	// Of the writer.
	file  *os.File
	dirty bool // written since the last fsync
	stuck bool // the last write failed

	resumed bool // the last segment of an earlier process was opened
}

type numbered struct {
	n uint64
	e Event
}

// OpenJournal opens or makes the journal in dir. Damage is no error: what can be read is kept. It fails where the directory cannot be
// made or written to at all.
func OpenJournal(dir string, o JournalOptions) (*Journal, error) {
	j := &Journal{dir: dir, max: o.MaxBytes, log: o.Log, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	if j.log == nil {
		j.log = slog.New(slog.DiscardHandler)
	}
	if j.max == 0 {
		j.max = 16 << 20
	}
	j.max = max(j.max, MinJournal)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "open the journal of events")
	}
	if err := j.scan(); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "open the journal of events")
	}
	go j.write()
	return j, nil
}

// end gives the number that the next event gets, and the time of the last one.
func (j *Journal) end() (uint64, time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next, j.last
}

// put has an event written, soon. It never blocks.
func (j *Journal) put(n uint64, e Event) {
	j.mu.Lock()
	if len(j.queue) == queueMax {
		j.queue = append(j.queue[:0:0], j.queue[queueMax/4:]...)
		j.dropped += queueMax / 4
	}
	j.queue = append(j.queue, numbered{n, e})
	j.mu.Unlock()
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// waiting gives the first event from number from on and before limit that is not on disk yet.
func (j *Journal) waiting(from, limit uint64) (uint64, Event, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, list := range [][]numbered{j.flight, j.queue} {
		i := sort.Search(len(list), func(i int) bool { return list[i].n >= from })
		if i < len(list) && list[i].n < limit {
			return list[i].n, list[i].e, true
		}
	}
	return 0, Event{}, false
}

// waitingSince gives the number of the first event that is not older than t and not on disk yet.
func (j *Journal) waitingSince(t time.Time) (uint64, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, list := range [][]numbered{j.flight, j.queue} {
		if i := slices.IndexFunc(list, func(x numbered) bool { return !x.e.Time.Before(t) }); i >= 0 {
			return list[i].n, true
		}
	}
	return 0, false
}

// Close writes what waits, as far as the disk takes it, and closes the files.
func (j *Journal) Close() {
	j.once.Do(func() { close(j.quit) })
	<-j.done
}

// scan reads what segments there are. It changes nothing.
func (j *Journal) scan() error {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return err
	}
	for _, e := range entries { // sorted by name, and so by number
		text, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		first, err := strconv.ParseUint(text, 10, 64)
		if !ok || err != nil || len(text) != 20 || first > 1<<62 {
			continue
		}
		j.segments = append(j.segments, segment{first: first})
	}
	for i := range j.segments {
		if err := j.scanSegment(&j.segments[i]); err != nil {
			j.log.Warn("a part of the journal of events cannot be read", "path", j.path(j.segments[i].first), "error", err)
			j.segments[i].size = 0
		}
	}
	j.segments = slices.DeleteFunc(j.segments, func(s segment) bool { return s.size == 0 })
	return nil
}

// resume opens the last segment for writing and cuts what a crash tore. It is done with the first event: whoever opens a journal and finds
// that the house belongs to another process has changed nothing then.
func (j *Journal) resume() {
	j.resumed = true
	j.mu.Lock()
	n := len(j.segments)
	var s segment
	if n > 0 {
		s = j.segments[n-1]
	}
	j.mu.Unlock()
	if n == 0 {
		return
	}
	f, err := os.OpenFile(j.path(s.first), os.O_RDWR, 0)
	if err == nil {
		err = f.Truncate(s.size)
	}
	if err == nil {
		_, err = f.Seek(s.size, io.SeekStart)
	}
	if err != nil { // it stays readable; a new one is begun
		j.log.Warn("the journal of events is continued in a new file", "error", err)
		if f != nil {
			f.Close()
		}
		return
	}
	j.file = f
}

// syncAfter is how long an event may be in the kernel's hands alone; retryAfter is the pause after a write that failed.
const (
	syncAfter  = time.Second
	retryAfter = time.Second
)

// write is the journal's one writer.
func (j *Journal) write() {
	defer close(j.done)
	var sync <-chan time.Time
	for {
		select {
		case <-j.wake:
		case <-sync:
			sync = nil
			j.sync()
			continue
		case <-j.quit:
			j.flush()
			j.sync()
			if j.file != nil {
				j.file.Close()
			}
			return
		}
		if !j.flush() {
			select {
			case <-time.After(retryAfter):
				select {
				case j.wake <- struct{}{}:
				default:
				}
			case <-j.quit:
				if j.file != nil {
					j.file.Close()
				}
				return
			}
		}
		if j.dirty && sync == nil {
			sync = time.After(syncAfter)
		}
	}
}

// flush writes what waits. It reports false when the disk did not take it; it waits on then.
func (j *Journal) flush() bool {
	j.mu.Lock()
	batch, dropped := j.queue, j.dropped
	j.queue, j.dropped, j.flight = nil, 0, batch
	j.mu.Unlock()
	if dropped > 0 {
		j.log.Error("the journal of events could not be written for too long; events are missing in it", "events", dropped)
	}
	for len(batch) > 0 {
		done, err := j.writeSome(batch)
		batch = batch[done:]
		j.mu.Lock()
		j.flight = batch
		j.mu.Unlock()
		if err == nil {
			j.stuck = false
			continue
		}
		if !j.stuck {
			j.log.Error("the journal of events cannot be written; it is tried again", "error", err)
		}
		j.stuck = true
		j.mu.Lock()
		j.flight = nil
		j.queue = append(batch, j.queue...)
		if over := len(j.queue) - queueMax; over > 0 {
			j.queue, j.dropped = j.queue[over:], j.dropped+over
		}
		j.mu.Unlock()
		return false
	}
	return true
}

// writeSome writes as many events as still belong into one segment, and gives how many these were.
func (j *Journal) writeSome(batch []numbered) (int, error) {
	if !j.resumed {
		j.resume()
	}
	size := int64(0)
	if j.file != nil {
		j.mu.Lock()
		size = j.segments[len(j.segments)-1].size
		j.mu.Unlock()
	}
	if j.file == nil || size > j.max/segmentsKept {
		if err := j.rotate(batch[0].n); err != nil {
			return 0, err
		}
		size = int64(len(segmentHeader))
	}
	var text []byte
	done := 0
	for done < len(batch) && (done == 0 || size+int64(len(text)) <= j.max/segmentsKept) {
		text = append(text, encodeLine(batch[done].n, batch[done].e)...)
		done++
	}
	if n, err := j.file.Write(text); err != nil {
		if n > 0 { // half of it must not stand before what comes
			err = errors.Join(err, j.file.Truncate(size))
		}
		if _, serr := j.file.Seek(size, io.SeekStart); serr != nil {
			err = errors.Join(err, serr)
		}
		return 0, err
	}
	j.dirty = true
	j.mu.Lock()
	s := &j.segments[len(j.segments)-1]
	s.size, s.newest = size+int64(len(text)), batch[done-1].e.Time
	j.mu.Unlock()
	return done, nil
}

// rotate begins a segment and deletes the oldest ones that are too many.
func (j *Journal) rotate(first uint64) error {
	f, err := os.OpenFile(j.path(first), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(segmentHeader); err != nil {
		f.Close()
		os.Remove(f.Name())
		return err
	}
	if j.file != nil {
		j.sync()
		j.file.Close()
	}
	j.file, j.dirty = f, true
	var gone []uint64
	j.mu.Lock()
	j.segments = slices.DeleteFunc(j.segments, func(s segment) bool { return s.first == first })
	j.segments = append(j.segments, segment{first: first, size: int64(len(segmentHeader))})
	total := int64(0)
	for _, s := range j.segments {
		total += s.size
	}
	for len(j.segments) > 1 && total > j.max-j.max/segmentsKept {
		total -= j.segments[0].size
		gone = append(gone, j.segments[0].first)
		j.segments = j.segments[1:]
	}
	j.mu.Unlock()
	for _, n := range gone {
		if err := os.Remove(j.path(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			j.log.Warn("an old part of the journal of events stays", "error", err)
		}
	}
	if dir, err := os.Open(j.dir); err == nil {
		_ = dir.Sync()
		dir.Close()
	}
	return nil
}

// sync brings what was written to the disk. It is not counted among the fsyncs of verbs: none waits for it.
func (j *Journal) sync() {
	if !j.dirty || j.file == nil {
		return
	}
	if err := j.file.Sync(); err != nil {
		j.log.Warn("the journal of events may not survive a power cut", "error", err)
	}
	j.dirty = false
}

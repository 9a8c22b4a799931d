package event

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
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

type segment struct {
	first  uint64 // in its name
	size   int64  // bytes up to the end of a whole line
	newest time.Time
}

// record is an event as a line has it.
type record struct {
	Type       string            `json:"type"`
	Action     string            `json:"action"`
	ID         string            `json:"id,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
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

func (j *Journal) path(first uint64) string {
	return filepath.Join(j.dir, fmt.Sprintf("%020d%s", first, segmentSuffix))
}

// scanSegment finds out where the whole lines of a segment end and what is the last of them.
func (j *Journal) scanSegment(s *segment) error {
	j.next = max(j.next, s.first)
	f, err := os.Open(j.path(s.first))
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 64<<10)
	header := make([]byte, len(segmentHeader))
	if _, err := io.ReadFull(r, header); err != nil || string(header) != segmentHeader {
		return errors.New("it is no segment of this format")
	}
	s.size = int64(len(header))
	bad := 0
	for at := s.size; ; {
		line, err := readLine(r)
		if err != nil {
			break
		}
		at += int64(len(line))
		n, t, _, ok := parseHead(line)
		if !ok {
			bad++
			continue // s.size stays before it: if nothing good follows, it was torn
		}
		s.size = at
		s.newest, j.last = t, t
		j.next = max(j.next, n+1)
	}
	if bad > 0 {
		j.log.Warn("the journal of events has damaged lines", "path", f.Name(), "lines", bad)
	}
	return nil
}

// readLine gives a line with its line feed. The text is valid until the next call. io.EOF: there is no whole line any more. A line may be
// as long as a segment: events name commands and labels, which nobody bounds but the size of a request.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err == nil || !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	long := bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = r.ReadSlice('\n')
		long = append(long, line...)
	}
	return long, err
}

func encodeLine(n uint64, e Event) []byte {
	text, err := json.Marshal(record{e.Type, e.Action, e.ID, e.Attributes})
	if err != nil {
		text = []byte("{}") // cannot be: strings only
	}
	rest := fmt.Appendf(make([]byte, 0, len(text)+50), "%08x %d %d %s\n", 0, n, e.Time.UnixNano(), text)
	sum := fmt.Sprintf("%08x", crc32.Checksum(rest[9:len(rest)-1], castagnoli))
	copy(rest, sum)
	return rest
}

// parseHead checks a line and reads its number and time; text is its JSON.
func parseHead(line []byte) (n uint64, t time.Time, text []byte, ok bool) {
	line, ok = bytes.CutSuffix(line, []byte("\n"))
	if !ok || len(line) < 12 || line[8] != ' ' {
		return 0, t, nil, false
	}
	sum, err := strconv.ParseUint(string(line[:8]), 16, 32)
	if err != nil || uint32(sum) != crc32.Checksum(line[9:], castagnoli) {
		return 0, t, nil, false
	}
	number, rest, _ := bytes.Cut(line[9:], []byte(" "))
	nanos, text, _ := bytes.Cut(rest, []byte(" "))
	n, err = strconv.ParseUint(string(number), 10, 62)
	if err != nil {
		return 0, t, nil, false
	}
	ns, err := strconv.ParseInt(string(nanos), 10, 64)
	return n, time.Unix(0, ns), text, err == nil
}

func parseLine(line []byte) (n uint64, e Event, ok bool) {
	n, t, text, ok := parseHead(line)
	if !ok {
		return 0, e, false
	}
	var r record
	if json.Unmarshal(text, &r) != nil {
		return 0, e, false
	}
	return n, Event{Type: r.Type, Action: r.Action, ID: r.ID, Attributes: r.Attributes, Time: t}, true
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

// cursor is a place in the journal. It belongs to one goroutine.
type cursor struct {
	j     *Journal
	file  *os.File
	first uint64 // of the segment that is open
	at    int64  // bytes of it that were read
	tried int64  // at, when what follows was last looked for
	r     *bufio.Reader
	held  *numbered // read already, and to be given next
	since time.Time // what is older is passed over; zero: nothing
}

func (j *Journal) cursor() *cursor { return &cursor{j: j} }

func (c *cursor) close() {
	if c != nil && c.file != nil {
		c.file.Close()
		c.file = nil
	}
}

// seek gives the number of the first event on disk that is not older than t.
func (c *cursor) seek(t time.Time) (n uint64, found bool) {
	c.j.mu.Lock()
	i := slices.IndexFunc(c.j.segments, func(s segment) bool { return !s.newest.Before(t) })
	from := uint64(0)
	if i >= 0 {
		from = c.j.segments[i].first
	}
	c.j.mu.Unlock()
	if i < 0 {
		return 0, false
	}
	c.since = t
	n, e, found := c.read(from, 1<<63)
	c.since = time.Time{}
	if found {
		c.held = &numbered{n, e}
	}
	return n, found
}

// read gives the first event on disk from number from on and before limit.
func (c *cursor) read(from, limit uint64) (uint64, Event, bool) {
	if h := c.held; h != nil && h.n >= from {
		if h.n >= limit {
			return 0, Event{}, false
		}
		c.held = nil
		return h.n, h.e, true
	}
	c.held = nil
	for {
		if c.file == nil && !c.open(from) {
			return 0, Event{}, false
		}
		line, err := readLine(c.r)
		if err != nil {
			if !c.further(from) {
				return 0, Event{}, false
			}
			continue
		}
		c.at += int64(len(line))
		n, t, _, ok := parseHead(line)
		if !ok || n < from || t.Before(c.since) {
			continue
		}
		_, e, ok := parseLine(line)
		if !ok {
			continue
		}
		if n >= limit {
			c.held = &numbered{n, e}
			return 0, Event{}, false
		}
		return n, e, true
	}
}

// giveBack puts an event back that was read, to be given next.
func (c *cursor) giveBack(n uint64, e Event, ok bool) {
	if ok {
		c.held = &numbered{n, e}
	}
}

// open opens the segment in which number n is, or the next one there is.
func (c *cursor) open(n uint64) bool {
	c.j.mu.Lock()
	var s segment
	found := false
	for _, x := range c.j.segments {
		if x.first <= n || !found {
			s, found = x, true
		}
	}
	c.j.mu.Unlock()
	return found && c.use(s)
}

func (c *cursor) use(s segment) bool {
	f, err := os.Open(c.j.path(s.first))
	if err != nil {
		return false // deleted meanwhile
	}
	c.close()
	c.file, c.first, c.at, c.tried = f, s.first, int64(len(segmentHeader)), 0
	c.r = bufio.NewReaderSize(io.NewSectionReader(f, c.at, s.size-c.at), 32<<10)
	return true
}

// further goes on where the segment was written on, or with the next one. It reports false at the journal's end.
func (c *cursor) further(from uint64) bool {
	c.j.mu.Lock()
	var next *segment
	size := c.at
	for _, s := range c.j.segments {
		if s.first == c.first {
			size = s.size
		}
		if s.first > c.first && next == nil {
			next = &segment{first: s.first, size: s.size}
		}
	}
	c.j.mu.Unlock()
	switch {
	case size > c.at && c.tried != c.at: // a file that is shorter than it should be has nothing there, also the second time
		c.tried = c.at
		c.r.Reset(io.NewSectionReader(c.file, c.at, size-c.at))
		return true
	case next != nil:
		return c.use(*next)
	}
	return false
}

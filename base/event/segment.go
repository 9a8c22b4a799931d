package event

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// segment is a file of the journal; journal.go draws its format.
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

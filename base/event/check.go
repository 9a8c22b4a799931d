package event

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"berth/base/atomicfile"
	"berth/base/checkup"
)

// CheckStore reads the whole journal. Lines that are damaged are lost, and passed over by everybody; a repair takes them out of the
// segments that are not written any more.
func (j *Journal) CheckStore(ctx context.Context, repair bool) checkup.Room {
	room := checkup.Room{Name: "events"}
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		room.Found(checkup.Damage{Subject: filepath.Base(j.dir), What: err.Error(), Advice: "the next start of the engine makes the directory"}, nil)
		return room
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), segmentSuffix) {
			names = append(names, e.Name())
		}
	}
	events := 0
	for i, name := range names {
		if ctx.Err() != nil {
			break
		}
		path := filepath.Join(j.dir, name)
		good, bad, whole, err := readSegment(path)
		events += good
		d := checkup.Damage{Subject: filepath.Join(filepath.Base(j.dir), name)}
		switch {
		case errors.Is(err, fs.ErrNotExist): // the oldest go while new ones come
			continue
		case err != nil: // nothing is known of what is in it: it stays
			d.What, d.Advice = err.Error(), "it is passed over; move it away, or put it back from a backup"
			room.Found(d, nil)
			continue
		case bad > 0:
			d.What = fmt.Sprintf("%d lines are damaged: their events are lost", bad)
		default:
			continue
		}
		if i == len(names)-1 { // being written; its end may be half written at this very moment
			d.Advice = "they are passed over, and go with the oldest events"
			room.Found(d, nil)
			continue
		}
		d.Repair = "the damaged lines are taken out"
		var fix func() error
		if repair {
			fix = func() error { return atomicfile.Write(path, whole, 0o600) }
		}
		room.Found(d, fix)
	}
	room.Count("events", events)
	room.Count("segments", len(names))
	return room
}

// readSegment counts the lines of a segment; whole is the segment without the bad ones. A header that is damaged counts as a bad line: what
// follows can be read all the same. A last line without its end is not counted: it is being written. An error says that the segment cannot
// be read, or is of another format.
func readSegment(path string) (good, bad int, whole []byte, err error) {
	whole = []byte(segmentHeader)
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, whole, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 64<<10)
	header := make([]byte, len(segmentHeader))
	_, err = io.ReadFull(r, header)
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return 0, 1, whole, nil
	case err != nil:
		return 0, 0, whole, err
	case string(header) != segmentHeader && bytes.HasPrefix(header, []byte(segmentFormat)):
		return 0, 0, whole, fmt.Errorf("it is of another format: %q", strings.TrimSpace(string(header)))
	case string(header) != segmentHeader:
		bad++
	}
	for {
		line, err := readLine(r)
		if err == io.EOF {
			return good, bad, whole, nil
		}
		if _, _, ok := parseLine(line); ok {
			good++
			whole = append(whole, line...)
		} else {
			bad++
		}
		if err != nil {
			return good, bad, whole, err
		}
	}
}

// CheckStore verifies the journal of a bus that has one.
func (b *Bus) CheckStore(ctx context.Context, repair bool) checkup.Room {
	if b.journal == nil {
		room := checkup.Room{Name: "events"}
		room.Found(checkup.Damage{Subject: "events", What: "they are kept in memory only: the journal could not be opened at the start", Advice: "see the engine's log; restart it once the disk is fine"}, nil)
		return room
	}
	return b.journal.CheckStore(ctx, repair)
}

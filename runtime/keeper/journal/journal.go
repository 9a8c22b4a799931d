package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"berth/runtime/keeper/wire"
)

const (
	magic = "BKJ1"

	headLen = 8
	// maxRecord bounds a record's claim; a launch with very long log attributes is far below.
	maxRecord = 1 << 20

	compactAbove = 256 << 10
)

// Entry is a process as the journal knows it: acknowledged ones are not in it any more.
type Entry struct {
	Desc    wire.Desc
	Exit    *wire.Exit // nil: no end is known
	Drained bool       // all its output has been read, too
	Boot    bool       // launched under the present boot
}

// Journal is the open file. It is used by one goroutine.
type Journal struct {
	path string
	boot string
	f    *os.File
	size int64
	good int64 // bytes that records of live entries take, about
	buf  []byte
}

// Open opens or makes the journal and gives what it holds, in the order of launch. cut is how many
// bytes of a damaged tail were dropped.
func Open(path, boot string) (j *Journal, held []Entry, cut int64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, 0, err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		f.Close()
		return nil, nil, 0, err
	}
	held, good := Parse(b, boot)
	cut = int64(len(b) - good)
	j = &Journal{path: path, boot: boot, f: f, size: int64(good)}
	if j.Rewrite(held) == nil {
		return j, held, cut, nil
	}
	// A full file system must not keep a keeper from coming back: go on in the old file.
	if good < len(magic) {
		j.Close()
		return nil, nil, 0, fmt.Errorf("journal: cannot begin %s", path)
	}
	if err := f.Truncate(j.size); err != nil {
		j.Close()
		return nil, nil, 0, fmt.Errorf("journal: %w", err)
	}
	j.write(appendRecord(nil, 'B', nil, boot))
	return j, held, cut, nil
}

// Parse reads a journal's bytes; good is the length of the undamaged part.
func Parse(b []byte, boot string) (held []Entry, good int) {
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return nil, 0
	}
	good = len(magic)
	index := map[string]int{}
	current := false
	for {
		payload, n := record(b[good:])
		if n == 0 {
			break
		}
		good += n
		switch payload[0] {
		case 'B':
			current = string(payload[1:]) == boot
		case 'L':
			var d wire.Desc
			if wire.Unmarshal(payload[1:], &d) != nil {
				continue
			}
			key := d.ID + "\x00" + d.Proc
			if i, ok := index[key]; ok {
				if e := &held[i]; e.Desc.PID == d.PID {
					e.Desc, e.Boot = d, current // adopted, perhaps after its end
				} else {
					*e = Entry{Desc: d, Boot: current}
				}
				continue
			}
			index[key] = len(held)
			held = append(held, Entry{Desc: d, Boot: current})
		case 'X':
			var x wire.Exit
			if wire.Unmarshal(payload[1:], &x) != nil {
				continue
			}
			if i, ok := index[x.ID+"\x00"+x.Proc]; ok {
				held[i].Exit = &x
			}
		case 'D':
			var r wire.Request
			if wire.Unmarshal(payload[1:], &r) != nil {
				continue
			}
			if i, ok := index[r.ID+"\x00"+r.Proc]; ok {
				held[i].Drained = true
			}
		case 'A':
			var r wire.Request
			if wire.Unmarshal(payload[1:], &r) != nil {
				continue
			}
			key := r.ID + "\x00" + r.Proc
			if i, ok := index[key]; ok {
				held[i].Desc.ID = "" // dropped below, so that the other indexes stay
				delete(index, key)
			}
		}
	}
	live := held[:0]
	for _, e := range held {
		if e.Desc.ID != "" {
			live = append(live, e)
		}
	}
	return live, good
}

// record gives the first record's payload and its whole length; 0 when there is no good one.
func record(b []byte) (payload []byte, n int) {
	if len(b) < headLen+1 {
		return nil, 0
	}
	length := binary.LittleEndian.Uint32(b)
	if length == 0 || length > maxRecord || int64(length) > int64(len(b)-headLen) {
		return nil, 0
	}
	payload = b[headLen : headLen+int(length)]
	if crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, 0
	}
	return payload, headLen + int(length)
}

func appendRecord(b []byte, kind byte, m wire.Message, raw string) []byte {
	at := len(b)
	e := wire.Enc{B: append(b, 0, 0, 0, 0, 0, 0, 0, 0, kind)}
	if m != nil {
		m.Encode(&e)
	}
	b = append(e.B, raw...)
	payload := b[at+headLen:]
	binary.LittleEndian.PutUint32(b[at:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[at+4:], crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// Launched records a process.
func (j *Journal) Launched(d *wire.Desc) error { return j.append('L', d) }

// Exited records a process's end.
func (j *Journal) Exited(x *wire.Exit) error { return j.append('X', x) }

// Drained records that an ended process's output has been read to its end.
func (j *Journal) Drained(id, proc string) error {
	return j.append('D', &wire.Request{ID: id, Proc: proc})
}

// Acked records that a process is forgotten.
func (j *Journal) Acked(id, proc string) error {
	return j.append('A', &wire.Request{ID: id, Proc: proc})
}

// append writes one record with one write, so that kill -9 leaves all of it or nothing.
func (j *Journal) append(kind byte, m wire.Message) error {
	j.buf = appendRecord(j.buf[:0], kind, m, "")
	return j.write(j.buf)
}

func (j *Journal) write(b []byte) error {
	n, err := j.f.Write(b)
	if err != nil {
		if n > 0 { // a torn record would hide all that follow it
			j.f.Truncate(j.size)
		}
		return fmt.Errorf("journal: %w", err)
	}
	j.size += int64(n)
	return nil
}

// Bloated reports that the file is large and, with live entries alone, would be much smaller.
func (j *Journal) Bloated() bool { return j.size > compactAbove && j.size > 4*j.good }

// Rewrite replaces the file by one that holds only these entries.
func (j *Journal) Rewrite(held []Entry) error {
	b := appendRecord([]byte(magic), 'B', nil, j.boot)
	current := true
	for i := range held {
		e := &held[i]
		if e.Boot != current {
			id := j.boot
			if !e.Boot {
				id = "earlier"
			}
			b = appendRecord(b, 'B', nil, id)
			current = e.Boot
		}
		b = appendRecord(b, 'L', &e.Desc, "")
		if e.Exit != nil {
			b = appendRecord(b, 'X', e.Exit, "")
		}
		if e.Drained {
			b = appendRecord(b, 'D', &wire.Request{ID: e.Desc.ID, Proc: e.Desc.Proc}, "")
		}
	}
	if !current {
		b = appendRecord(b, 'B', nil, j.boot)
	}
	tmp := j.path + ".new"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if _, err = f.Write(b); err == nil {
		err = os.Rename(tmp, j.path)
	}
	if err != nil {
		f.Close()
		os.Remove(tmp)
		return fmt.Errorf("journal: %w", err)
	}
	j.f.Close()
	j.f, j.size, j.good = f, int64(len(b)), int64(len(b))
	return nil
}

// Close closes the file.
func (j *Journal) Close() error { return j.f.Close() }

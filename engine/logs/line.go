package logs

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"time"

	"berth/runtime/keeper/localfile"
)

// Line is one decoded log line.
type Line struct {
	Stream byte // 1 stdout, 2 stderr
	Time   time.Time
	Data   []byte // with its newline, if one follows
	Attrs  map[string]string
	Part   localfile.Partial // of the local format: which piece of a line it is; Ordinal 0: the whole
}

// maxLine bounds one line of a json-file. The keeper splits output at 16 KiB, which JSON may blow up sixfold, plus attributes.
const maxLine = 4 << 20

// errNoTail says that a file cannot be read backwards.
var errNoTail = errors.New("not readable from its end")

// format is one of the two kinds of files. It may have a state, of the file that is being read.
type format interface {
	// cut takes the first record off b: the record, nil for what is damaged, and how much of b is done with; 0 where more is needed.
	cut(b []byte) (record []byte, n int)
	decode(record []byte) (Line, bool)
	// tail finds where the last n whole records begin, and how many there are, n at most. errNoTail: they must be counted.
	tail(f io.ReaderAt, info fs.FileInfo, n int) (off int64, found int, err error)
	// resume gives where in b, to which nothing will be added and off which nothing can be cut, the next record begins; 0: nowhere.
	resume(b []byte) int
	reset()
}

func newFormat(local bool) format {
	if local {
		return localFormat{}
	}
	return &jsonFormat{}
}

// jsonFormat is Docker's json-file.
type jsonFormat struct {
	drop bool // skipping the rest of a line that is too long
}

func (j *jsonFormat) reset() { j.drop = false }

func (j *jsonFormat) resume([]byte) int { return 0 } // lines have no lengths: each begins behind a newline

func (j *jsonFormat) cut(b []byte) ([]byte, int) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		if len(b) > maxLine {
			j.drop = true
			return nil, len(b)
		}
		return nil, 0
	}
	if j.drop {
		j.drop = false
		return nil, i + 1
	}
	return b[:i:i], i + 1
}

type jsonLine struct {
	Log    string            `json:"log"`
	Stream string            `json:"stream"`
	Time   time.Time         `json:"time"`
	Attrs  map[string]string `json:"attrs"`
}

// decode reads one line of a file. A line that is no log line (torn by a power cut, for instance) is not ok.
func (*jsonFormat) decode(b []byte) (Line, bool) {
	if l, ok := quick(b); ok {
		return l, true
	}
	return slow(b)
}

func slow(b []byte) (Line, bool) {
	var j jsonLine
	if err := json.Unmarshal(b, &j); err != nil {
		return Line{}, false
	}
	l := Line{Stream: streamOf(j.Stream), Time: j.Time, Data: []byte(j.Log), Attrs: j.Attrs}
	return l, l.Stream != 0
}

func streamOf(name string) byte {
	switch name {
	case "stdout":
		return 1
	case "stderr":
		return 2
	}
	return 0
}

// tail reads from the end.
func (*jsonFormat) tail(f io.ReaderAt, info fs.FileInfo, n int) (off int64, found int, err error) {
	end := info.Size() // exclusive end of what was not looked at
	buf := make([]byte, chunk)
	lastLineEnd := int64(-1)
	for end > 0 {
		from := max(0, end-chunk)
		b := buf[:end-from]
		if _, err := f.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		for i := len(b) - 1; i >= 0; i-- {
			if b[i] != '\n' {
				continue
			}
			at := from + int64(i) + 1 // a line ends before at; the next begins there
			if lastLineEnd < 0 {
				if lastLineEnd = at; n == 0 {
					return at, 0, nil
				}
				continue
			}
			if found++; found == n {
				return at, found, nil
			}
		}
		end = from
	}
	if lastLineEnd < 0 { // not one whole line yet
		return 0, 0, nil
	}
	return 0, found + 1, nil
}

// localFormat is that of Docker's local driver.
type localFormat struct{}

func (localFormat) reset() {}

func (localFormat) cut(b []byte) ([]byte, int) {
	record, n, err := localfile.Cut(b)
	switch {
	case err == nil:
		return record, n
	case errors.Is(err, localfile.ErrShort):
		return nil, 0
	}
	// Damaged: on to the next that looks like one.
	if at := localfile.Find(b, 1); at < len(b) {
		return nil, at
	}
	return nil, max(0, len(b)-localfile.MaxEntry-8)
}

func (localFormat) resume(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	if at := localfile.Find(b, 1); at < len(b) {
		return at
	}
	return 0
}

func (localFormat) decode(b []byte) (Line, bool) {
	var e localfile.Entry
	if err := e.Decode(b); err != nil {
		return Line{}, false
	}
	l := Line{Stream: streamOf(e.Source), Time: time.Unix(0, e.Time).UTC(), Part: e.Partial}
	l.Data = make([]byte, len(e.Line), len(e.Line)+1)
	copy(l.Data, e.Line)
	if e.Newline() {
		l.Data = append(l.Data, '\n')
	}
	if len(e.Keys) > 0 {
		l.Attrs = make(map[string]string, len(e.Keys))
		for i, k := range e.Keys {
			l.Attrs[k] = e.Values[i]
		}
	}
	return l, l.Stream != 0
}

// tail walks backwards along the second lengths. A record begins where its first length says the same.
func (localFormat) tail(f io.ReaderAt, info fs.FileInfo, n int) (off int64, found int, err error) {
	off = info.Size()
	var b [4]byte
	length := func(at int64) (int64, error) {
		if _, err := f.ReadAt(b[:], at); err != nil {
			return 0, errNoTail
		}
		size, err := localfile.LastLen(b[:])
		if err != nil {
			return 0, errNoTail
		}
		return size, nil
	}
	for off > 0 && found < n {
		if off < 8 {
			return 0, 0, errNoTail
		}
		size, err := length(off - 4)
		if err != nil || size > off {
			return 0, 0, errNoTail
		}
		if first, err := length(off - size); err != nil || first != size {
			return 0, 0, errNoTail
		}
		off -= size
		found++
	}
	if n == 0 && off > 0 { // the end must be that of a record
		if _, err := length(off - 4); err != nil || binary.BigEndian.Uint32(b[:]) == 0 {
			return 0, 0, errNoTail
		}
	}
	return off, found, nil
}

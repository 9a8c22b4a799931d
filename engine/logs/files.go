package logs

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"berth/base/fault"
)

// file is one file of a log, open for reading.
type file struct {
	*os.File
	info fs.FileInfo // as it was opened

	// Of a compressed one:
	gz     *gzip.Reader
	gzOff  int64     // how far gz was read
	origin uint64    // the inode of the file that it is a copy of; 0: unknown
	last   time.Time // of its last record; zero: unknown
}

func (f *file) packed() bool { return f.gz != nil }

// inode is that of the plain file that this is, or was.
func (f *file) inode() uint64 {
	if f.packed() {
		return f.origin
	}
	return inodeOf(f.info)
}

func inodeOf(st fs.FileInfo) uint64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Ino
	}
	return 0
}

// packNote is the extra field of a compressed file's gzip header: Docker's, and whose copy it is.
type packNote struct {
	LastTime time.Time `json:"lastTime,omitzero"`
	Inode    uint64    `json:"inode,omitempty"`
}

const packedSuffix = ".gz"

// openFile opens file n of a log, plain if it can be.
func openFile(path string, n int) (*file, error) {
	f, err := os.Open(numbered(path, n))
	if err == nil {
		return stated(&file{File: f})
	}
	if n == 0 || !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if f, err = os.Open(numbered(path, n) + packedSuffix); err != nil {
		return nil, err
	}
	out := &file{File: f}
	if out.gz, err = gzip.NewReader(f); err != nil {
		// No gzip file at all. Whose it is is unknown; to stop at it would hide what is whole.
		out.gz, _ = gzip.NewReader(bytes.NewReader(emptyGzip))
	}
	var note packNote
	if json.Unmarshal(out.gz.Extra, &note) == nil {
		out.origin, out.last = note.Inode, note.LastTime
	}
	return stated(out)
}

// emptyGzip is a gzip file of nothing.
var emptyGzip = func() []byte {
	var b bytes.Buffer
	_ = gzip.NewWriter(&b).Close()
	return b.Bytes()
}()

func stated(f *file) (*file, error) {
	var err error
	if f.info, err = f.File.Stat(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// read reads at off; of a compressed file that must be where the last read ended. Where such a file is damaged it ends.
func (f *file) read(b []byte, off int64) (int, error) {
	if !f.packed() {
		return f.ReadAt(b, off)
	}
	n, err := io.ReadFull(f.gz, b)
	f.gzOff += int64(n)
	if err != nil {
		err = io.EOF
	}
	return n, err
}

// rewind makes the next read begin at the start again.
func (f *file) rewind() error {
	if !f.packed() || f.gzOff == 0 {
		return nil
	}
	f.gzOff = 0
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return f.gz.Reset(f.File)
}

// tailEnd says where the last records of a file begin: at off, and there skip records on.
type tailEnd struct {
	off   int64
	skip  int
	found int // how many they are
}

// tail finds the last n records.
func (f *file) tail(form format, n int) (tailEnd, error) {
	if !f.packed() {
		off, found, err := form.tail(f, f.info, n)
		if err == nil || !errors.Is(err, errNoTail) {
			return tailEnd{off: off, found: found}, err
		}
	}
	all, err := f.count(form)
	if err != nil {
		return tailEnd{}, err
	}
	found := min(all, n)
	return tailEnd{skip: all - found, found: found}, nil
}

// count reads the whole file.
func (f *file) count(form format) (n int, err error) {
	form.reset()
	defer form.reset()
	buf := make([]byte, 0, 4*chunk)
	for off := int64(0); ; {
		if cap(buf)-len(buf) < chunk {
			buf = append(make([]byte, 0, 2*len(buf)+chunk), buf...)
		}
		got, err := f.read(buf[len(buf):len(buf)+chunk], off)
		buf, off = buf[:len(buf)+got], off+int64(got)
		for {
			record, done := form.cut(buf)
			if done == 0 {
				break
			}
			if buf = buf[done:]; record != nil {
				n++
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return n, err
		}
		if got == 0 {
			return n, f.rewind()
		}
	}
}

// newerThan drops the files up to last and closes them: last itself, or, where it was compressed meanwhile, the copy of it. If neither
// is there any more, all are newer.
func newerThan(files []*file, last *file) []*file {
	at := slices.IndexFunc(files, func(f *file) bool { return os.SameFile(f.info, last.info) })
	for i := len(files) - 1; i >= 0 && at < 0; i-- { // the newest: an inode may have been another file's before
		if files[i].packed() && files[i].origin != 0 && files[i].origin == last.inode() {
			at = i
		}
	}
	closeFiles(files[:at+1])
	return files[at+1:]
}

func closeFiles(files []*file) {
	for _, f := range files {
		f.Close()
	}
}

// openAll opens all files of the log, oldest first, as they were at one moment between two rotations.
func openAll(path string) ([]*file, error) {
	for try := range 200 {
		if try > 10 {
			time.Sleep(time.Millisecond) // a rotation under way is a few renames
		}
		files, seen, err := openOnce(path)
		// A hole that stays is no rotation: its keeper was killed, and the next one fills it with the next rotation.
		if err == nil && (seen == whole || seen == hole && try > 60) {
			return files, nil
		}
		closeFiles(files)
		if err != nil {
			return nil, err
		}
	}
	return nil, fault.New(fault.Unavailable, "the log rotates faster than it can be opened")
}

// What openOnce saw.
type sight int

const (
	whole sight = iota
	hole        // a number is missing
	moved       // a file was at two places, or another is at the log's path by now
)

// openOnce also tells whether it saw the whole log: a rotation, which renames from the oldest file to the newest, leaves a hole while
// it is under way, may show a file at two places, and puts another file at path when it is done.
func openOnce(path string) (files []*file, seen sight, err error) {
	missing := 0
	for n := 0; missing < 2; n++ {
		f, err := openFile(path, n)
		if errors.Is(err, fs.ErrNotExist) {
			missing++
			continue
		}
		if err != nil {
			return files, whole, err
		}
		if missing > 0 {
			seen = hole
		}
		missing = 0
		if len(files) > 0 && os.SameFile(f.info, files[len(files)-1].info) {
			f.Close()
			return oldestFirst(files), moved, nil
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, whole, nil
	}
	now, err := os.Stat(path)
	if err == nil && !os.SameFile(files[0].info, now) || err != nil && seen != hole {
		seen = moved
	}
	return oldestFirst(files), seen, nil
}

// oldestFirst puts files that were opened newest first into the order of reading.
func oldestFirst(files []*file) []*file {
	slices.Reverse(files)
	return files
}

func numbered(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}

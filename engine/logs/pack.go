package logs

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/klauspost/compress/gzip"

	"berth/base/failpoint"
	"berth/base/fault"
)

// packing is the suffix of a copy that is being made.
const packing = ".packing"

// Pack compresses the rotated files of a log, oldest first. keep says which file, that was seen as number n, is to stay plain (and all newer
// ones); put names a copy that is safe on disk: it takes the place of the plain file of that inode, wherever that has been rotated to by
// then. A copy that was not finished has a name that no reader opens.
func Pack(ctx context.Context, path string, local bool, keep func(n int, inode uint64) bool, put func(inode uint64, copy string) error) error {
	for {
		n, inode, err := oldestPlain(path)
		if err != nil || n == 0 || keep(n, inode) {
			return err
		}
		err = packOne(ctx, path, n, inode, local, put)
		switch {
		case fault.Is(err, fault.NotFound), errors.Is(err, fs.ErrNotExist), errors.Is(err, errRotated):
			continue // rotated meanwhile: look again
		case err != nil:
			return err
		}
	}
}

// errRotated: the number is another file's by now.
var errRotated = errors.New("rotated meanwhile")

// oldestPlain finds the oldest rotated file that is not compressed; 0 where there is none. While the log is rotated it may be one that is newer.
func oldestPlain(path string) (n int, inode uint64, err error) {
	missing := 0
	for i := 1; missing < 2; i++ {
		st, err := os.Lstat(numbered(path, i))
		if err == nil {
			n, inode, missing = i, inodeOf(st), 0
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return 0, 0, err
		}
		if _, err := os.Lstat(numbered(path, i) + packedSuffix); err != nil {
			missing++
		} else {
			missing = 0
		}
	}
	return n, inode, nil
}

func packOne(ctx context.Context, path string, n int, inode uint64, local bool, put func(uint64, string) error) (err error) {
	f, err := os.Open(numbered(path, n))
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if inodeOf(st) != inode {
		return errRotated
	}
	out, err := os.OpenFile(path+packing, os.O_RDWR|os.O_CREATE|os.O_TRUNC, st.Mode().Perm())
	if err != nil {
		return fault.Wrap(fault.Internal, err, "compressing a log")
	}
	defer func() {
		out.Close()
		if err != nil {
			os.Remove(out.Name())
		}
	}()
	note := packNote{Inode: inode}
	src := &file{File: f, info: st}
	if t, err := src.tail(newFormat(local), 1); err == nil && t.found == 1 && t.skip == 0 {
		note.LastTime = timeAt(f, t.off, local)
	}
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if z.Extra, err = json.Marshal(note); err != nil {
		return err
	}
	if _, err = io.Copy(z, &pieces{ctx, f}); err == nil {
		err = z.Close()
	}
	if err == nil {
		err = out.Sync() // the plain file is the only other copy
	}
	if err != nil {
		return fault.Wrap(fault.Internal, err, "compressing a log")
	}
	_ = failpoint.Hit("logs/packed")
	return put(inode, out.Name())
}

// pieces reads until the work is called off.
type pieces struct {
	ctx context.Context
	f   *os.File
}

// Read reads on.
func (p *pieces) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	return p.f.Read(b)
}

// Unpacked reports whether rotated files wait for compression.
func Unpacked(path string) bool {
	n, _, err := oldestPlain(path)
	return err == nil && n > 0
}

// Sweep removes what a Pack that was killed left. No Pack of the log may be under way.
func Sweep(path string) { os.Remove(path + packing) }

// Size gives the bytes of all files of a log, and their number.
func Size(path string) (bytes int64, files int) {
	missing := 0
	for n := 0; missing < 2; n++ {
		missing++
		for _, suffix := range []string{"", packedSuffix} {
			if st, err := os.Lstat(numbered(path, n) + suffix); err == nil {
				bytes += st.Size()
				files++
				missing = 0
			}
		}
	}
	return bytes, files
}

// timeAt gives the time of the record that begins at off; zero where there is none.
func timeAt(f io.ReaderAt, off int64, local bool) (at time.Time) {
	b, err := io.ReadAll(io.NewSectionReader(f, off, maxLine))
	if err != nil {
		return at
	}
	form := newFormat(local)
	if record, n := form.cut(b); n > 0 && record != nil {
		if l, ok := form.decode(record); ok {
			at = l.Time
		}
	}
	return at
}

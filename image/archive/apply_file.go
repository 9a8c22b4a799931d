package archive

import (
	"bytes"
	"errors"
	"io"
	"math"

	"berth/base/fault"
	"berth/base/tarstream"
	"berth/kernel/tree"
)

// Zeros in stretches of this size are left out of large files: log files indexed by user number are terabytes of nothing.
const (
	holeSize    = 32 << 10
	holeMinFile = 256 << 10 // smaller files are written as they are
)

var zeros [holeSize]byte

// regular makes a file with its content. Order: owner, then permissions and attributes, which a change of owner
// would drop, then times.
func (a *applier) regular(e *making) error {
	if a.stored += e.h.Stored; a.stored > a.o.Limits.Bytes {
		return fault.New(fault.Invalid, "the archive unpacks to more than the limit of %d bytes", a.o.Limits.Bytes)
	}
	if a.done.Size > math.MaxInt64-e.h.Size {
		return fault.New(fault.Invalid, "the archive's files are larger than can be counted")
	}
	var f *tree.File
	err := a.fresh(e, func() (err error) {
		f, err = e.dir.Create(e.base, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	if err = a.content(f, e); err == nil {
		err = a.dress(f, e)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	a.done.Size += e.h.Size
	return err
}

func (a *applier) dress(f *tree.File, e *making) error {
	if err := f.Chown(int(e.uid), int(e.gid)); err != nil {
		return err
	}
	if err := f.Chmod(e.perm); err != nil {
		return err
	}
	if err := setXattrs(e.h.Xattrs, f.SetXattr); err != nil {
		return err
	}
	atime, mtime := timesOf(e.h)
	return f.Chtimes(atime, mtime)
}

// content writes an entry's payload to its file.
func (a *applier) content(f *tree.File, e *making) error {
	if !e.h.IsSparse {
		return a.stretch(f, e, tarstream.Fragment{Length: e.h.Size})
	}
	for _, frag := range e.h.Sparse {
		if err := a.stretch(f, e, frag); err != nil {
			return err
		}
	}
	return f.Truncate(e.h.Size)
}

// stretch writes the next bytes of the payload to one place in the file.
func (a *applier) stretch(f *tree.File, e *making, frag tarstream.Fragment) error {
	if frag.Length == 0 {
		return nil
	}
	if a.o.Record != nil {
		n, err := a.o.Record.File(e.real, frag.Offset, frag.Length)
		if err != nil {
			return err
		}
		a.position = n + 1
	}
	holes := frag.Length >= holeMinFile
	at, left := frag.Offset, frag.Length
	hole := false // the last bytes were left out
	for left > 0 {
		b, err := a.r.Payload(left)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		left -= int64(len(b))
		if !holes {
			if _, err := f.WriteAt(b, at); err != nil {
				return err
			}
			at += int64(len(b))
			if err := a.grown(int64(len(b))); err != nil {
				return err
			}
			continue
		}
		var written int64
		if hole, written, err = writeSparse(f, b, at); err != nil {
			return err
		}
		if err := a.grown(written); err != nil {
			return err
		}
		at += int64(len(b))
		if err := a.ctx.Err(); err != nil {
			return err
		}
	}
	if hole && !e.h.IsSparse {
		return f.Truncate(at)
	}
	return nil
}

// grown counts bytes that went to the disk, and refuses an archive that grows out of all proportion.
func (a *applier) grown(n int64) error {
	a.written += n
	if a.written <= a.o.Limits.RatioFrom || a.o.Input == nil {
		return nil
	}
	if in := a.o.Input(); a.written/a.o.Limits.Ratio > in {
		return fault.New(fault.Invalid, "%d bytes of the archive unpack to more than %d: that is more than %d times as much", in, a.written, a.o.Limits.Ratio)
	}
	return nil
}

// writeSparse writes b at an offset of a new file and leaves out what is zero in aligned windows. hole tells that b's end
// was left out.
func writeSparse(f *tree.File, b []byte, at int64) (hole bool, written int64, err error) {
	for len(b) > 0 {
		run := 0 // bytes to write before the next hole
		window := windowAt(b, at)
		for window > 0 && !bytes.Equal(b[run:run+window], zeros[:window]) {
			run += window
			window = windowAt(b[run:], at+int64(run))
		}
		if _, err := f.WriteAt(b[:run], at); err != nil {
			return false, written, err
		}
		written += int64(run)
		b, at = b[run+window:], at+int64(run+window)
		hole = window > 0
	}
	return hole, written, nil
}

// windowAt gives how much of b, which starts at an offset, lies in the first window.
func windowAt(b []byte, at int64) int {
	return min(len(b), int(holeSize-at%holeSize))
}

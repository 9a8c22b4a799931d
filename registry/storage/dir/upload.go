package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"strconv"
	"strings"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/base/id"
	"berth/registry/storage"
)

const stateSuffix = ".state"

// staged is an upload in a file. The file is open only while bytes are added.
type staged struct {
	driver *Driver
	id     string
	size   int64
	state  []byte // of the last Save
	saved  int64  // size at the last Save
}

func (s *staged) path() string { return path.Join(uploadsDir, s.id) }

// StartUpload makes an empty upload.
func (d *Driver) StartUpload(_ context.Context, id string) (storage.Staged, error) {
	s := &staged{driver: d, id: id}
	f, err := d.root.OpenFile(s.path(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
	if err != nil {
		return nil, keyError(s.path(), err)
	}
	return s, f.Close()
}

// ResumeUpload gives an upload as it was left.
func (d *Driver) ResumeUpload(ctx context.Context, id string) (storage.Staged, error) {
	s := &staged{driver: d, id: id}
	e, err := d.Stat(ctx, s.path())
	if err != nil {
		return nil, err
	}
	s.size = e.Size
	data, err := d.Read(ctx, s.path()+stateSuffix)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	s.state, s.saved = d.readState(data)
	return s, nil
}

// readState reads what Save has written. Bytes that were written before the machine was started last need not be those that arrived.
func (d *Driver) readState(data []byte) (state []byte, size int64) {
	line, note, ok := strings.Cut(string(data), "\n")
	number, boot, _ := strings.Cut(line, " ")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil {
		return nil, 0
	}
	if boot == "" || boot != d.boot {
		n = -1
	}
	return []byte(note), n
}

// Uploads gives all uploads that exist.
func (d *Driver) Uploads(ctx context.Context) iter.Seq2[storage.Entry, error] {
	return func(yield func(storage.Entry, error) bool) {
		for e, err := range d.List(ctx, uploadsDir+"/") {
			e.Key = path.Base(e.Key)
			if err == nil && strings.HasSuffix(e.Key, stateSuffix) {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func (s *staged) Size() int64 { return s.size }

func (s *staged) State() ([]byte, int64) { return s.state, s.saved }

// Append adds bytes at the end.
func (s *staged) Append(ctx context.Context, r io.Reader) (int64, error) {
	f, err := s.driver.root.OpenFile(s.path(), os.O_WRONLY|os.O_APPEND, fileMode)
	if err != nil {
		return 0, keyError(s.path(), err)
	}
	defer f.Close()
	// Buffers of this size keep the number of system calls small beside the copying itself; io.Copy would take 32 KiB.
	buf := make([]byte, 256<<10)
	total := int64(0)
	for {
		n, readErr := r.Read(buf)
		if n > 0 {
			w, err := f.Write(buf[:n])
			total += int64(w)
			s.size += int64(w)
			if err != nil {
				return total, &storage.ShortError{Err: keyError(s.path(), err)}
			}
		}
		if readErr == io.EOF {
			return total, nil
		}
		if readErr != nil {
			return total, readErr
		}
		if err := ctx.Err(); err != nil {
			return total, err
		}
	}
}

// Save keeps a note. Neither it nor the bytes are synced: a note of another boot, or one that is lost, costs reading the bytes again.
func (s *staged) Save(_ context.Context, state []byte) error {
	tmp := path.Join(tmpDir, id.New())
	value := fmt.Appendf(nil, "%d %s\n%s", s.size, s.driver.boot, state)
	if err := s.driver.root.WriteFile(tmp, value, fileMode); err != nil {
		s.driver.root.Remove(tmp)
		return keyError(s.path(), err)
	}
	if err := s.driver.root.Rename(tmp, s.path()+stateSuffix); err != nil {
		s.driver.root.Remove(tmp)
		return keyError(s.path(), err)
	}
	s.state, s.saved = state, s.size
	return nil
}

// Bytes reads all that has arrived.
func (s *staged) Bytes(ctx context.Context) (io.ReadCloser, error) {
	c, err := s.driver.Open(ctx, s.path())
	if err != nil {
		return nil, err
	}
	return c.Body, nil
}

// Finish syncs the bytes and gives them their name.
func (s *staged) Finish(_ context.Context, key string) error {
	f, err := s.driver.root.OpenFile(s.path(), os.O_WRONLY, fileMode)
	if err != nil {
		return keyError(s.path(), err)
	}
	err = atomicfile.Sync(f)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = s.driver.name(s.path(), key)
	}
	if err != nil {
		return keyError(key, err)
	}
	return s.drop(s.path() + stateSuffix)
}

// Cancel drops the bytes.
func (s *staged) Cancel(context.Context) error {
	return errors.Join(s.drop(s.path()), s.drop(s.path()+stateSuffix))
}

func (s *staged) drop(file string) error {
	if err := s.driver.root.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return keyError(file, err)
	}
	return nil
}

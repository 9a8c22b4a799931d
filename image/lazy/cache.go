package lazy

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

const (
	pieceSize = 64 << 10  // bytes that are read, stored and counted at a time
	fetchMin  = 256 << 10 // bytes that a reader's fetch asks for where they are missing: files lie beside their neighbours
	skipMin   = 1 << 20   // bytes that must be here already for the fill to ask anew behind them
	saveEvery = 8 << 20   // bytes between two writes of the list of ranges
)

// cache is a compressed blob as far as it is here.
type cache struct {
	dir     string
	desc    ocispec.Descriptor
	patient time.Duration // without a byte
	source  func(ctx context.Context) (Ranger, error)

	mu      sync.Mutex // guards what follows; held for memory only
	file    *os.File   // nil when the layer is whole
	have    ranges
	fetches []*fetch
	urgent  int           // readers that wait: the fill stands back
	changed chan struct{} // closed and made anew when something above changes
	unsaved int64
	last    time.Time // when a byte came
	missed  int64
}

// fetch is a range on its way for somebody who waits.
type fetch struct{ from, to int64 }

func openCache(dir string, d ocispec.Descriptor, patient time.Duration, source func(ctx context.Context) (Ranger, error)) (*cache, error) {
	f, err := os.OpenFile(filepath.Join(dir, "blob"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	c := &cache{dir: dir, desc: d, patient: patient, source: source, file: f, changed: make(chan struct{})}
	if st, err := f.Stat(); err == nil && st.Size() == d.Size {
		if b, err := os.ReadFile(filepath.Join(dir, "ranges")); err == nil {
			c.have = decodeRanges(b, d.Size)
		}
	}
	if err := f.Truncate(d.Size); err != nil {
		f.Close()
		return nil, err
	}
	return c, nil
}

// close ends the cache; what is there is kept for the next process.
func (c *cache) close() {
	c.save()
	c.mu.Lock()
	f := c.file
	c.file = nil
	c.tell()
	c.mu.Unlock()
	if f != nil {
		f.Close()
	}
}

// save writes the list of ranges. It is no harm if it is lost or too short.
func (c *cache) save() {
	c.mu.Lock()
	b, open := c.have.encode(), c.file != nil
	c.unsaved = 0
	c.mu.Unlock()
	if !open {
		return
	}
	tmp := filepath.Join(c.dir, "ranges.new")
	if os.WriteFile(tmp, b, 0o600) == nil {
		os.Rename(tmp, filepath.Join(c.dir, "ranges"))
	}
}

// tell wakes who waits for a change. mu is held.
func (c *cache) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// here tells how many bytes are in the cache.
func (c *cache) here() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.have.size()
}

// forget has a range fetched again.
func (c *cache) forget(from, to int64) {
	c.mu.Lock()
	c.have = c.have.remove(from, to)
	c.mu.Unlock()
}

// readAt reads what is here.
func (c *cache) readAt(b []byte, offset int64) error {
	c.mu.Lock()
	f := c.file
	c.mu.Unlock()
	if f == nil {
		return fault.New(fault.Unavailable, "the layer's cache is closed")
	}
	_, err := f.ReadAt(b, offset)
	return err
}

// need waits until [from, to) is in the cache and has it fetched before everything else. It fails when no byte came for the
// time that readers are patient, or when the registry refuses for good.
func (c *cache) need(ctx context.Context, from, to int64) error {
	c.mu.Lock()
	if _, _, missing := c.have.gap(from, to); !missing {
		c.mu.Unlock()
		return nil
	}
	c.urgent++
	c.missed++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		if c.urgent--; c.urgent == 0 {
			c.tell()
		}
		c.mu.Unlock()
	}()
	start := time.Now()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := c.needOnce(ctx, from, to)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if k := fault.KindOf(err); k == fault.NotFound || k == fault.Forbidden || k == fault.Unauthorized {
			return err
		}
		c.mu.Lock()
		since := c.last
		c.mu.Unlock()
		if since.Before(start) {
			since = start
		}
		if time.Since(since)+wait > c.patient {
			return fault.Wrap(fault.Unavailable, err, "nothing came from the registry for %s", c.patient)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// needOnce fetches what is missing, or waits for who does already. An error is that of a fetch of its own.
func (c *cache) needOnce(ctx context.Context, from, to int64) error {
	for {
		c.mu.Lock()
		a, b, missing := c.have.gap(from, to)
		if !missing {
			c.mu.Unlock()
			return nil
		}
		var other *fetch
		for _, f := range c.fetches {
			if f.from <= a && a < f.to {
				other = f
			} else if a < f.from && f.from < b {
				b = f.from
			}
		}
		if other != nil {
			changed := c.changed
			c.mu.Unlock()
			select {
			case <-changed:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		if b < a+fetchMin { // its neighbours are read next
			_, b, _ = c.have.gap(a, min(c.desc.Size, a+fetchMin))
		}
		f := &fetch{a, b}
		c.fetches = append(c.fetches, f)
		c.mu.Unlock()
		err := c.fetch(ctx, a, b, nil)
		c.mu.Lock()
		for i := range c.fetches {
			if c.fetches[i] == f {
				c.fetches = append(c.fetches[:i:i], c.fetches[i+1:]...)
				break
			}
		}
		c.tell()
		c.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// fetch asks the registry for [from, to) and stores what comes, piece by piece. between, unless nil, is called before each piece;
// its error ends the fetch.
func (c *cache) fetch(ctx context.Context, from, to int64, between func(at int64) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(c.patient, func() {
		cancel(fault.New(fault.Unavailable, "the registry sent nothing for %s", c.patient))
	})
	defer silence.Stop()
	src, err := c.source(ctx)
	if err != nil {
		return causeOf(ctx, err)
	}
	r, err := src.BlobRange(ctx, c.desc, from, to-from)
	if err != nil {
		return causeOf(ctx, err)
	}
	defer r.Close()
	buf := make([]byte, pieceSize)
	for from < to {
		if between != nil {
			silence.Stop()
			if err := between(from); err != nil {
				return err
			}
		}
		silence.Reset(c.patient)
		n, err := io.ReadFull(r, buf[:min(pieceSize, to-from)])
		if n > 0 {
			if err := c.store(buf[:n], from); err != nil {
				return err
			}
			from += int64(n)
		}
		if err != nil && from < to {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = fault.New(fault.Unavailable, "the registry sent less than was asked for")
			}
			return causeOf(ctx, err)
		}
	}
	return nil
}

// causeOf gives the reason for which a fetch was ended, where that is why it failed.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (c *cache) store(b []byte, at int64) error {
	c.mu.Lock()
	f := c.file
	c.mu.Unlock()
	if f == nil {
		return fault.New(fault.Unavailable, "the layer's cache is closed")
	}
	if _, err := f.WriteAt(b, at); err != nil {
		return err
	}
	c.mu.Lock()
	c.have = c.have.add(at, at+int64(len(b)))
	c.last = time.Now()
	c.unsaved += int64(len(b))
	save := c.unsaved >= saveEvery
	c.tell()
	c.mu.Unlock()
	if save {
		c.save()
	}
	return nil
}

// fill fetches what is missing, first to last, and stands back while somebody waits for something.
func (c *cache) fill(ctx context.Context) error {
	for at := int64(0); ; {
		c.mu.Lock()
		from, to, missing := c.have.gap(at, c.desc.Size)
		if !missing && at > 0 { // what was forgotten meanwhile
			from, to, missing = c.have.gap(0, c.desc.Size)
		}
		// Holes that readers made are not worth a request of their own.
		for missing && to < c.desc.Size {
			next, end, more := c.have.gap(to, c.desc.Size)
			if !more || next-to > skipMin {
				break
			}
			to = end
		}
		c.mu.Unlock()
		if !missing {
			return nil
		}
		if err := c.standBack(ctx); err != nil {
			return err
		}
		err := c.fetch(ctx, from, to, func(pos int64) error {
			at = pos
			if err := c.standBack(ctx); err != nil {
				return err
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if next, _, more := c.have.gap(pos, to); !more || next-pos > skipMin {
				return errSkip
			}
			return nil
		})
		if errors.Is(err, errSkip) {
			continue
		}
		if err != nil {
			return err
		}
		at = to
	}
}

var errSkip = errors.New("what comes next is here already")

// standBack waits until no reader waits.
func (c *cache) standBack(ctx context.Context) error {
	for {
		c.mu.Lock()
		urgent, changed, open := c.urgent, c.changed, c.file != nil
		c.mu.Unlock()
		switch {
		case !open:
			return fault.New(fault.Unavailable, "the layer's cache is closed")
		case urgent == 0:
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// reader reads the whole blob, which is here.
func (c *cache) reader() io.Reader {
	return io.NewSectionReader(readerAt{c}, 0, c.desc.Size)
}

type readerAt struct{ c *cache }

func (r readerAt) ReadAt(b []byte, at int64) (int, error) {
	if err := r.c.readAt(b, at); err != nil {
		return 0, err
	}
	return len(b), nil
}

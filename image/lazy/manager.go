package lazy

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/image/layer"
	"berth/kernel/fuse"
	"berth/kernel/probe"
)

const (
	readTimeout  = time.Minute
	memorySize   = 16 << 20
	fillsAtOnce  = 3
	decodeAtOnce = 4
	looksAtOnce  = 6
	parkPrefix   = "fuse/"
	parkPatience = 10 * time.Second
)

// Manager serves and fills lazy layers. It is safe for concurrent use.
type Manager struct {
	cfg      Config
	log      *slog.Logger
	why      string
	memory   *memory
	decoders decoders
	fills    chan struct{} // a place for each fill that may run
	looks    chan struct{} // and for each table of contents that may be read
	decodes  chan struct{} // and for each chunk that may be decompressed: it is in memory twice

	adding sync.Mutex // held by Add and by the end of a layer; taken before mu

	mu       sync.Mutex // guards what follows; held for memory only
	contents map[digest.Digest]*content
	closed   bool
}

// Open takes up the lazy layers that earlier processes left: views whose descriptors are in the keeper are served on, the others
// are mounted anew, and filling goes on. It is called after the layer store was opened and before containers are made.
func Open(ctx context.Context, cfg Config) (*Manager, error) {
	if cfg.ReadTimeout <= 0 {
		cfg.ReadTimeout = readTimeout
	}
	m := &Manager{cfg: cfg, log: cfg.Log, memory: newMemory(memorySize), fills: make(chan struct{}, fillsAtOnce), looks: make(chan struct{}, looksAtOnce), decodes: make(chan struct{}, decodeAtOnce), contents: map[digest.Digest]*content{}}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.why = cfg.Facts.Why(probe.FuseResend); m.why == "" && os.Geteuid() != 0 {
		m.why = "mounting needs root"
	}
	if err := os.MkdirAll(cfg.Root, 0o700); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "open lazy layers")
	}
	if err := m.recover(ctx); err != nil {
		m.Close()
		return nil, fault.In(err, "open lazy layers")
	}
	cfg.Layers.ServeLazy(m)
	return m, nil
}

// Why tells why layers cannot be served lazily on this machine, "" when they can.
func (m *Manager) Why() string { return m.why }

// Can reports whether a layer says of itself that it can be served lazily; Add may still refuse. d has its annotations.
func (m *Manager) Can(d ocispec.Descriptor) bool {
	_, err := planOf(d)
	return err == nil && m.why == ""
}

func (m *Manager) held(d digest.Digest) (layer.Info, error) {
	info, err := m.cfg.Layers.Stat(d)
	if err != nil {
		m.cfg.Layers.Release(d)
	}
	return info, err
}

// admit gives a prepared layer its name here and its place in the store.
func (m *Manager) admit(c *content) (layer.Info, error) {
	m.adding.Lock()
	defer m.adding.Unlock()
	d := c.record.DiffID
	m.mu.Lock()
	other, closed := m.contents[d], m.closed
	m.mu.Unlock()
	if closed {
		return layer.Info{}, fault.New(fault.Unavailable, "the engine is shutting down")
	}
	if m.cfg.Layers.Retain(d) == nil { // somebody else was faster
		c.end(true)
		return m.held(d)
	}
	if other != nil { // left of a layer of that id that is gone from the store
		other.end(true)
	}
	final := filepath.Join(m.cfg.Root, c.short)
	if err := os.RemoveAll(final); err != nil {
		return layer.Info{}, fault.Wrap(fault.Internal, err, "add lazy layer")
	}
	if err := atomicfile.Rename(c.dir, final); err != nil {
		return layer.Info{}, fault.In(err, "add lazy layer")
	}
	c.dir, c.cache.dir = final, final
	c.tree.info.DiffID = d
	m.mu.Lock()
	m.contents[d] = c
	m.mu.Unlock()
	if err := failpoint.Hit("lazy/before-admit"); err != nil {
		return layer.Info{}, err
	}
	added, err := m.cfg.Layers.AdmitLazy(c.tree.info, c.show)
	if err != nil {
		m.forget(c)
		return layer.Info{}, err
	}
	if !added {
		m.forget(c)
		c.end(true)
		return m.held(d)
	}
	c.startFill(m.cfg.FillDelay)
	return c.tree.info, nil
}

// forget takes a layer out of the table, if it is still this one.
func (m *Manager) forget(c *content) {
	m.mu.Lock()
	if m.contents[c.record.DiffID] == c {
		delete(m.contents, c.record.DiffID)
	}
	m.mu.Unlock()
}

func (m *Manager) newContent(dir string, r record) *content {
	c := &content{m: m, record: r, dir: dir, short: shortName(r.DiffID), form: r.Form, views: map[string]*view{}, changed: make(chan struct{}), over: make(chan struct{})}
	c.log = m.log.With("layer", r.DiffID, "blob", r.Blob.Digest)
	return c
}

// shortName is a layer's directory: the first half of its digest.
func shortName(d digest.Digest) string {
	h := d.Encoded()
	return h[:min(len(h), 32)]
}

func (m *Manager) content(d digest.Digest) *content {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.contents[d]
}

// Supply gives a layer a new way to its blob, with the credentials of a later pull. A layer that is not lazy is none of its business.
func (m *Manager) Supply(d digest.Digest, from Ranger) {
	c := m.content(d)
	if c == nil || from == nil {
		return
	}
	c.mu.Lock()
	c.from = from
	c.tell()
	c.mu.Unlock()
}

// Whole has a layer fetched to its end and unpacked, and waits for it. It fails when nothing came for Config.ReadTimeout.
func (m *Manager) Whole(ctx context.Context, d digest.Digest) error {
	start := time.Now()
	for {
		c := m.content(d)
		info, err := m.cfg.Layers.Stat(d)
		if err != nil || !info.Lazy {
			return err
		}
		if c == nil {
			return fault.New(fault.Unavailable, "layer %s was not fetched to its end, and where it comes from is lost", d)
		}
		c.mu.Lock()
		if !c.hurry {
			c.hurry = true
			c.tell()
		}
		changed, problem := c.changed, c.problem
		c.mu.Unlock()
		c.cache.mu.Lock()
		came := c.cache.changed
		last := c.cache.last
		c.cache.mu.Unlock()
		if last.Before(start) {
			last = start
		}
		if problem != "" && time.Since(last) > m.cfg.ReadTimeout {
			return fault.New(fault.Unavailable, "layer %s cannot be fetched to its end: %s", d, problem)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-came:
		case <-time.After(time.Second):
		}
	}
}

// Wait waits for several layers, see Whole.
func (m *Manager) Wait(ctx context.Context, ids ...digest.Digest) error {
	for _, d := range ids {
		if err := m.Whole(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// Dropped is told by the layer store that a layer is gone.
func (m *Manager) Dropped(d digest.Digest) {
	c := m.content(d)
	if c == nil {
		return
	}
	m.adding.Lock()
	defer m.adding.Unlock()
	m.forget(c)
	c.end(true)
}

// Status tells of all layers that are lazy or have views.
func (m *Manager) Status() []Status {
	m.mu.Lock()
	var all []*content
	for _, c := range m.contents {
		all = append(all, c)
	}
	m.mu.Unlock()
	var list []Status
	for _, c := range all {
		s := Status{DiffID: c.record.DiffID, Blob: c.record.Blob.Digest, Size: c.record.Blob.Size, Whole: c.whole.Load(), Reads: c.reads.Load()}
		c.mu.Lock()
		s.Views, s.Problem = len(c.views), c.problem
		c.mu.Unlock()
		if s.Here = s.Size; !s.Whole {
			s.Here = c.cache.here()
		}
		c.cache.mu.Lock()
		s.Missed = c.cache.missed
		c.cache.mu.Unlock()
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(string(a.DiffID), string(b.DiffID)) })
	return list
}

// Repark parks the descriptors of all views again, for a keeper that is new.
func (m *Manager) Repark(ctx context.Context) error {
	if m.cfg.Keeper == nil {
		return nil
	}
	m.mu.Lock()
	var all []*view
	for _, c := range m.contents {
		c.mu.Lock()
		for _, v := range c.views {
			all = append(all, v)
		}
		c.mu.Unlock()
	}
	m.mu.Unlock()
	var errs []error
	for _, v := range all {
		errs = append(errs, m.cfg.Keeper.Park(ctx, v.name, v.conn))
	}
	return errors.Join(errs...)
}

// Close stops serving and filling. Views stay, parked in the keeper, for the next process; whoever reads from one waits until then.
// Without a keeper they go.
func (m *Manager) Close() error {
	for _, c := range m.closing() {
		if m.cfg.Keeper == nil {
			c.hide()
		}
		c.end(false)
	}
	return nil
}

// Shutdown is Close for when no container is left and the keeper ends too: views are unmounted. The next process mounts new ones.
func (m *Manager) Shutdown() error {
	for _, c := range m.closing() {
		c.hide()
		c.unpark()
		c.end(false)
	}
	return nil
}

func (m *Manager) closing() []*content {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	var all []*content
	for _, c := range m.contents {
		all = append(all, c)
	}
	clear(m.contents)
	return all
}

// Rescue answers what processes that are being killed wait for in views. An engine that was killed while it looked into a view that
// it served itself cannot end before, and holds its locks: whoever finds the store locked calls Rescue before he tries again. An
// engine that is alive is only disturbed a little.
func Rescue(ctx context.Context, k Parker) (released int, err error) {
	names, err := k.Parked(ctx)
	if err != nil {
		return 0, fault.In(err, "list parked views")
	}
	for _, n := range names {
		if !strings.HasPrefix(n, parkPrefix) {
			continue
		}
		f, err := k.Take(ctx, n)
		if err != nil {
			continue // gone meanwhile
		}
		got, err := fuse.Release(f)
		f.Close()
		if err != nil {
			return released, err
		}
		released += got
	}
	return released, nil
}

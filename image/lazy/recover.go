package lazy

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/mount"
)

// recover takes up what earlier processes left.
func (m *Manager) recover(ctx context.Context) error {
	parked := map[string][]string{}
	if m.cfg.Keeper != nil {
		names, err := m.cfg.Keeper.Parked(ctx)
		if err != nil {
			return fault.In(err, "list parked views")
		}
		parked = parkedViews(names)
	}
	dirs, err := os.ReadDir(m.cfg.Root)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "list lazy layers")
	}
	// A table of contents takes a while to read: 50 ms for 10,000 files.
	taken := make([]bool, len(dirs))
	var readers errgroup.Group
	readers.SetLimit(runtime.GOMAXPROCS(0))
	for i, d := range dirs {
		readers.Go(func() error {
			dir := filepath.Join(m.cfg.Root, d.Name())
			if taken[i] = m.take(ctx, dir, d.Name(), parked[d.Name()]); taken[i] {
				return nil
			}
			if err := os.RemoveAll(dir); err != nil {
				m.log.Warn("delete lazy layer's cache", "dir", d.Name(), "error", err)
			}
			return nil
		})
	}
	readers.Wait()
	for i, d := range dirs {
		if taken[i] {
			delete(parked, d.Name())
		}
	}
	for _, views := range parked { // of layers that are gone: whoever still looks gets errors
		for _, name := range views {
			m.cfg.Keeper.Unpark(ctx, name)
		}
	}
	for _, d := range m.cfg.Layers.LazyDiffs() {
		if m.content(d) == nil {
			mount.Unmount(m.cfg.Layers.FSPath(d))
			m.log.Error("a lazy layer cannot be served or finished: its image must be removed and pulled again", "layer", d)
		}
	}
	return nil
}

// take takes one layer up; false when there is nothing to go on with.
func (m *Manager) take(ctx context.Context, dir, name string, views []string) bool {
	var r record
	b, err := os.ReadFile(filepath.Join(dir, "lazy.json"))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && (r.Version != recordVersion || r.DiffID.Validate() != nil || shortName(r.DiffID) != name) {
		err = errors.New("not a lazy layer of this format")
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.log.Error("lazy layer is unreadable", "dir", name, "error", err)
		}
		return false
	}
	info, err := m.cfg.Layers.Stat(r.DiffID)
	if err != nil {
		return false // removed
	}
	c := m.newContent(dir, r)
	c.whole.Store(!info.Lazy)
	if err := c.readTree(ctx); err != nil {
		c.log.Error("a lazy layer's table of contents is lost: it is fetched whole", "error", err)
	}
	if m.why != "" || r.Numbering != numbering {
		c.tree = nil
	}
	if info.Lazy {
		if c.cache, err = openCache(dir, r.Blob, m.cfg.ReadTimeout, c.source); err != nil {
			c.log.Error("a lazy layer's cache cannot be opened", "error", err)
			return false
		}
	} else {
		c.cache = &cache{desc: r.Blob, changed: make(chan struct{})}
	}
	for _, v := range views {
		m.takeView(ctx, c, v)
	}
	m.mu.Lock()
	m.contents[r.DiffID] = c
	m.mu.Unlock()
	if info.Lazy {
		m.showAgain(c)
		c.startFill(0)
	} else {
		c.leave() // unless somebody looks at it through a view
	}
	return true
}

// readTree reads the TOC that was verified when the layer was added.
func (c *content) readTree(ctx context.Context) error {
	b, err := os.ReadFile(filepath.Join(c.dir, "toc"))
	if err != nil {
		return err
	}
	if digest.FromBytes(b) != c.record.TOC {
		return errors.New("it is damaged on disk")
	}
	t := &toc{form: c.record.Form, json: b, offset: c.record.TOCOffset}
	if err := t.parse(); err != nil {
		return err
	}
	c.tree, err = buildTree(ctx, t, c.m.cfg.Layers.OpaqueAttr())
	return err
}

// takeView goes on serving a view of an earlier process.
func (m *Manager) takeView(ctx context.Context, c *content, name string) {
	if c.tree == nil {
		m.cfg.Keeper.Unpark(ctx, name)
		return
	}
	conn, err := m.cfg.Keeper.Take(ctx, name)
	if err == nil {
		v := &view{name: name, conn: conn}
		c.mu.Lock()
		c.next = max(c.next, numberOf(name)+1)
		c.mu.Unlock()
		if err = c.serve(v, true); err != nil {
			conn.Close()
		}
	}
	if err != nil {
		c.log.Error("a view cannot be taken over", "view", name, "error", err)
	}
}

// showAgain sees to it that the layer's directory shows it in this mount namespace.
func (m *Manager) showAgain(c *content) {
	d := c.record.DiffID
	path := m.cfg.Layers.FSPath(d)
	if c.tree == nil {
		mount.Unmount(path)
		return
	}
	if c.viewCount() == 0 || !mounted(path) {
		if err := mount.Unmount(path); err != nil {
			c.log.Error("unmount the dead view of a lazy layer", "error", err)
			return
		}
		if err := c.show(path); err != nil {
			c.log.Error("a lazy layer cannot be shown; containers on it wait until it is whole", "error", err)
			return
		}
	}
	m.cfg.Layers.Shown(d, true)
}

// mounted reports whether a file system that answers is mounted on a directory. Its server runs already.
func mounted(path string) bool {
	var here, above unix.Stat_t
	return unix.Stat(path, &here) == nil && unix.Stat(filepath.Dir(path), &above) == nil && here.Dev != above.Dev
}

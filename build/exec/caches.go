package exec

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/id"
	"berth/image/layer"
	"berth/kernel/tree"
)

// caches are the cache mounts of an engine.
//
//	ROOT/ID/cache.json  what it is (cacheFile); a directory without it is the leftover of a crash
//	ROOT/ID/fs          the files
//	ROOT/trash-ID       being deleted
//
// Several directories may have one key: a private mount gets another one while the first is in use.
type caches struct {
	root string
	log  *slog.Logger

	deleting sync.WaitGroup

	mu      sync.Mutex // guards what follows and the fields of every cacheDir
	all     map[string]*cacheDir
	free    chan struct{} // closed and replaced when a directory becomes free, or has been made
	renewed []renewal     // the last ones
}

// renewal is a build that has begun a cache anew.
type renewal struct{ build, id string }

// renewals bounds how many are remembered: those of builds that may still run.
const renewals = 1024

// cacheFile is cache.json.
type cacheFile struct {
	Version     int       `json:"version"`
	Key         string    `json:"key"` // the id, and the identity of what it was filled with at first
	Description string    `json:"description"`
	Created     time.Time `json:"created"`
	LastUsed    time.Time `json:"lastUsed"`
	Uses        int       `json:"uses"`
}

const cacheVersion = 1

// cacheDir is one of them.
type cacheDir struct {
	id string
	cacheFile
	users  int  // boxes that have it mounted
	shared bool // its users take further ones in
	doomed bool // nobody else gets it; it goes with its last user
	size   int64
	sized  bool // size is right: nobody has used it since
}

func openCaches(root string, log *slog.Logger) (*caches, error) {
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, err
	}
	c := &caches{root: root, log: log, all: map[string]*cacheDir{}, free: make(chan struct{})}
	list, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		d, err := readCache(filepath.Join(root, e.Name()))
		if err != nil {
			c.delete(filepath.Join(root, e.Name())) // cut short in its making, or in its deletion
			continue
		}
		d.id = e.Name()
		c.all[d.id] = d
	}
	return c, nil
}

func readCache(dir string) (*cacheDir, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cache.json"))
	if err != nil {
		return nil, err
	}
	d := &cacheDir{}
	if err := json.Unmarshal(text, &d.cacheFile); err != nil {
		return nil, err
	}
	if d.Version != cacheVersion || !id.IsHex(filepath.Base(dir)) {
		return nil, fault.New(fault.Invalid, "not a cache mount")
	}
	_, err = os.Stat(filepath.Join(dir, "fs"))
	return d, err
}

func (c *caches) close() error {
	c.deleting.Wait()
	return nil
}

// hold is a cache mount in use.
type hold struct {
	c      *caches
	d      *cacheDir
	looked bool // that it was held is no use of it
}

// get gives a cache mount of the key for use, and waits for a locked one, and for one to be shared that another step is making. A new one is
// filled by fill first.
func (c *caches) get(ctx context.Context, key, description string, sharing pb.CacheSharingOpt, fill func(dir string) error) (*hold, error) {
	for {
		c.mu.Lock()
		d, busy, soon := c.pick(key, sharing)
		if d != nil {
			d.users++
			d.shared = sharing == pb.CacheSharingOpt_SHARED
			d.sized = false
			c.mu.Unlock()
			return &hold{c: c, d: d}, nil
		}
		wait := c.free
		if !soon && (!busy || sharing != pb.CacheSharingOpt_LOCKED) {
			d = c.reserve(key, description, sharing)
			c.mu.Unlock()
			if err := c.make(d, fill); err != nil {
				c.forget(d)
				return nil, err
			}
			return &hold{c: c, d: d}, nil
		}
		c.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// existing gives the newest cache mount of a key alone, once nobody uses it; NotFound where there is none.
func (c *caches) existing(ctx context.Context, key string) (*hold, error) {
	for {
		c.mu.Lock()
		d, busy, _ := c.pick(key, pb.CacheSharingOpt_LOCKED)
		if d != nil {
			d.users++
			c.mu.Unlock()
			return &hold{c: c, d: d, looked: true}, nil
		}
		wait := c.free
		c.mu.Unlock()
		if !busy {
			return nil, fault.New(fault.NotFound, "there is no cache mount %s", key)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// fresh makes a cache mount of a key that has none, and tells whether it did.
func (c *caches) fresh(key, description string, fill func(dir string) error) (bool, error) {
	c.mu.Lock()
	for _, d := range c.all {
		if d.Key == key && !d.doomed {
			c.mu.Unlock()
			return false, nil
		}
	}
	d := c.reserve(key, description, pb.CacheSharingOpt_PRIVATE)
	c.mu.Unlock()
	if err := c.make(d, fill); err != nil {
		c.forget(d)
		return false, err
	}
	(&hold{c: c, d: d, looked: true}).release()
	return true, nil
}

// pick finds a directory that can be used; busy tells that there is one which others use, soon that one can be shared once it is made. mu
// is held.
func (c *caches) pick(key string, sharing pb.CacheSharingOpt) (best *cacheDir, busy, soon bool) {
	for _, d := range c.all {
		switch {
		case d.Key != key || d.doomed:
		case d.users > 0 && d.shared && sharing == pb.CacheSharingOpt_SHARED:
			if d.Uses > 0 {
				return d, true, false
			}
			soon = true
		case d.users > 0:
			busy = true
		case best == nil || d.LastUsed.After(best.LastUsed):
			best = d
		}
	}
	return best, busy, soon
}

// reserve enters a directory that is about to be made. Nobody else takes it before it is: it has no uses. mu is held.
func (c *caches) reserve(key, description string, sharing pb.CacheSharingOpt) *cacheDir {
	now := time.Now().UTC()
	d := &cacheDir{id: id.New()[:32], users: 1, shared: sharing == pb.CacheSharingOpt_SHARED,
		cacheFile: cacheFile{Version: cacheVersion, Key: key, Description: description, Created: now, LastUsed: now}}
	c.all[d.id] = d
	return d
}

func (c *caches) make(d *cacheDir, fill func(dir string) error) error {
	fs := filepath.Join(c.root, d.id, "fs")
	if err := os.Mkdir(filepath.Dir(fs), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(fs, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(fs, 0o755); err != nil {
		return err
	}
	if fill != nil {
		if err := fill(fs); err != nil {
			return err
		}
	}
	if err := failpoint.Hit("build/cache-mount-made"); err != nil {
		return err
	}
	f := d.cacheFile // nobody else has it yet
	f.Uses = 1
	if err := c.write(d.id, f); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d.Uses = 1
	c.wake()
	return nil
}

func (c *caches) write(id string, f cacheFile) error {
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(c.root, id, "cache.json"), text, 0o600)
}

// forget takes back a directory that could not be made.
func (c *caches) forget(d *cacheDir) {
	c.mu.Lock()
	delete(c.all, d.id)
	c.wake()
	c.mu.Unlock()
	c.delete(filepath.Join(c.root, d.id))
}

// wake lets those look again who wait for a directory. mu is held.
func (c *caches) wake() {
	close(c.free)
	c.free = make(chan struct{})
}

// dir is where the files are.
func (h *hold) dir() string { return filepath.Join(h.c.root, h.d.id, "fs") }

// release gives the cache mount back. That it was used is noted without a sync: it only decides what is pruned first.
func (h *hold) release() {
	c, d := h.c, h.d
	c.mu.Lock()
	if !h.looked {
		d.LastUsed = time.Now().UTC()
		d.Uses++
	}
	f, doomed := d.cacheFile, false
	if d.users--; d.users == 0 {
		d.shared, doomed = false, d.doomed
		c.wake()
	}
	c.mu.Unlock()
	if doomed {
		_ = c.remove(d.id)
	}
	if doomed || h.looked {
		return
	}
	if text, err := json.Marshal(f); err == nil {
		file := filepath.Join(c.root, d.id, "cache.json")
		if os.WriteFile(file+".used", text, 0o600) == nil {
			_ = os.Rename(file+".used", file)
		}
	}
}

// renew has a build begin with a new directory for an id, whatever it is filled with: once for each build, which then finds there what its
// own steps have left.
func (c *caches) renew(build, id string) {
	c.mu.Lock()
	if r := (renewal{build, id}); slices.Contains(c.renewed, r) {
		c.mu.Unlock()
		return
	} else if c.renewed = append(c.renewed, r); len(c.renewed) > renewals {
		c.renewed = c.renewed[1:]
	}
	var idle []string
	for _, d := range c.all {
		if d.Key == id || strings.HasPrefix(d.Key, id+":sha256:") {
			if d.doomed = true; d.users == 0 {
				idle = append(idle, d.id)
			}
		}
	}
	c.mu.Unlock()
	for _, name := range idle {
		_ = c.remove(name)
	}
}

// list gives all, and which are in use, by id.
func (c *caches) list() []cacheDir {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []cacheDir
	for _, id := range slices.Sorted(maps.Keys(c.all)) {
		if d := c.all[id]; d.Uses > 0 {
			out = append(out, *d)
		}
	}
	return out
}

// remove deletes one that nobody uses.
func (c *caches) remove(id string) error {
	c.mu.Lock()
	d := c.all[id]
	if d == nil || d.users > 0 {
		c.mu.Unlock()
		return nil
	}
	delete(c.all, id)
	c.mu.Unlock()
	c.delete(filepath.Join(c.root, id))
	return nil
}

// delete takes a directory away at once; its files go in the background.
func (c *caches) delete(dir string) {
	trash := filepath.Join(c.root, "trash-"+id.New()[:16])
	if err := os.Rename(dir, trash); err != nil {
		if !os.IsNotExist(err) {
			c.log.Error("a cache mount of builds cannot be deleted", "dir", dir, "error", err)
		}
		return
	}
	c.deleting.Go(func() {
		// Steps decide how deep it is; they must not decide how many descriptors the engine has left.
		if err := inside(c.root, func(root *tree.Dir) error { return root.RemoveAll(filepath.Base(trash)) }); err != nil {
			c.log.Error("a cache mount of builds is not wholly deleted", "dir", trash, "error", err)
		}
	})
}

// measure gives the bytes that a directory takes. Nothing is looked at that nobody has used since the last time.
func (c *caches) measure(ctx context.Context, d cacheDir) (int64, error) {
	if d.sized {
		return d.size, nil
	}
	space, err := layer.Measure(ctx, filepath.Join(c.root, d.id, "fs"))
	if err != nil {
		if os.IsNotExist(err) || fault.Is(err, fault.NotFound) {
			return 0, nil // pruned meanwhile
		}
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.all[d.id]; now != nil && now.users == 0 && now.Uses == d.Uses {
		now.size, now.sized = space.Size, true
	}
	return space.Size, nil
}

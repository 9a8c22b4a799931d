package lazy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/fuse"
	ktree "berth/kernel/tree"
)

// content is one lazy layer. It is the file system (fuse.FS) that its views show.
type content struct {
	m      *Manager
	record record
	dir    string // ROOT/SHORT
	short  string
	tree   *tree // nil: the TOC is lost, and nothing is shown
	form   form
	cache  *cache
	log    *slog.Logger

	whole   atomic.Bool // reads go to the unpacked files
	reads   atomic.Int64
	logged  atomic.Int64  // when a failed read was last logged, in seconds
	over    chan struct{} // closed when it ends
	stopped sync.WaitGroup

	mu      sync.Mutex // guards what follows
	from    Ranger     // nil: Config.Open is asked
	views   map[string]*view
	next    int    // number of the next view
	problem string // of the fill
	hurry   bool   // somebody waits for the whole layer
	changed chan struct{}
	gone    bool               // it ended
	stop    context.CancelFunc // of the fill
}

// record is ROOT/SHORT/lazy.json.
type record struct {
	Version    int                `json:"version"`
	Numbering  int                `json:"numbering"`
	DiffID     digest.Digest      `json:"diffID"`
	Repository string             `json:"repository"`
	Blob       ocispec.Descriptor `json:"blob"`
	Form       form               `json:"form"`
	TOC        digest.Digest      `json:"toc"`       // of the file toc
	TOCOffset  int64              `json:"tocOffset"` // in the blob
}

const recordVersion = 1

// source finds where to fetch from.
func (c *content) source(ctx context.Context) (Ranger, error) {
	c.mu.Lock()
	from := c.from
	c.mu.Unlock()
	if from != nil {
		return from, nil
	}
	if c.m.cfg.Open == nil {
		return nil, fault.New(fault.Unavailable, "where layer %s comes from is not known until its image is pulled again", c.record.DiffID)
	}
	from, err := c.m.cfg.Open(ctx, c.record.Repository, c.record.Blob)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	if c.from == nil {
		c.from = from
	}
	c.mu.Unlock()
	return from, nil
}

// tell wakes who waits for a change of the content. mu is held.
func (c *content) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Features tells what the tree has.
func (c *content) Features() fuse.Features { return c.tree.has }

// Statfs tells the layer's size.
func (c *content) Statfs() fuse.Statfs {
	return fuse.Statfs{Bytes: uint64(c.tree.info.Size), Files: uint64(len(c.tree.nodes) - 1)}
}

func (c *content) node(n fuse.Node) (*node, error) {
	if n < fuse.Root || n >= fuse.Node(len(c.tree.nodes)) {
		return nil, unix.ESTALE
	}
	return &c.tree.nodes[n], nil
}

// Attr gives a file's attributes.
func (c *content) Attr(n fuse.Node) (fuse.Attr, error) {
	f, err := c.node(n)
	if err != nil {
		return fuse.Attr{}, err
	}
	return f.attr, nil
}

// Lookup finds a name in a directory.
func (c *content) Lookup(dir fuse.Node, name string) (fuse.Node, error) {
	d, err := c.node(dir)
	if err != nil {
		return 0, err
	}
	if !d.isDir() {
		return 0, unix.ENOTDIR
	}
	i := sort.Search(len(d.kids), func(i int) bool { return d.kids[i].name >= name })
	if i < len(d.kids) && d.kids[i].name == name {
		return d.kids[i].node, nil
	}
	return 0, unix.ENOENT
}

// Entry gives a directory's names by position.
func (c *content) Entry(dir fuse.Node, position int) (string, fuse.Node, bool) {
	d, err := c.node(dir)
	if err != nil || position < 0 || position >= len(d.kids) {
		return "", 0, false
	}
	return d.kids[position].name, d.kids[position].node, true
}

// Readlink gives a symbolic link's target.
func (c *content) Readlink(n fuse.Node) (string, error) {
	f, err := c.node(n)
	if err != nil {
		return "", err
	}
	if f.attr.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	return f.target, nil
}

// Xattr gives an extended attribute.
func (c *content) Xattr(n fuse.Node, name string) ([]byte, error) {
	f, err := c.node(n)
	if err != nil {
		return nil, err
	}
	v, ok := f.xattrs[name]
	if !ok {
		return nil, unix.ENODATA
	}
	return v, nil
}

// Xattrs lists extended attributes.
func (c *content) Xattrs(n fuse.Node) ([]string, error) {
	f, err := c.node(n)
	if err != nil {
		return nil, err
	}
	var names []string
	for k := range f.xattrs {
		names = append(names, k)
	}
	sort.Strings(names)
	return names, nil
}

// chunksOf gives the chunks that a stretch of a file touches.
func (c *content) chunksOf(f *node, offset, size int64) (first, end int) {
	all := c.tree.chunks[f.first : f.first+f.count]
	i := sort.Search(len(all), func(i int) bool { return all[i].at+all[i].size > offset })
	j := i
	for j < len(all) && all[j].at < offset+size {
		j++
	}
	return f.first + i, f.first + j
}

// Fetch has the chunks of a stretch here.
func (c *content) Fetch(ctx context.Context, n fuse.Node, offset int64, size int) error {
	f, err := c.node(n)
	if err != nil {
		return err
	}
	if c.whole.Load() || f.isTOC {
		return nil
	}
	first, end := c.chunksOf(f, offset, int64(size))
	// What lies together is fetched together.
	from, to := int64(math.MaxInt64), int64(0)
	for i := first; i < end; i++ {
		if k := &c.tree.chunks[i]; !k.zero {
			from, to = min(from, k.off), max(to, k.end)
		}
	}
	if from < to {
		if err := c.cache.need(ctx, from, to); err != nil && !c.whole.Load() {
			return c.failed(ctx, n, err)
		}
	}
	return nil
}

// Read reads a stretch of a file.
func (c *content) Read(ctx context.Context, n fuse.Node, b []byte, offset int64) (int, error) {
	f, err := c.node(n)
	if err != nil {
		return 0, err
	}
	if f.attr.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, unix.EINVAL
	}
	if offset >= f.attr.Size {
		return 0, nil
	}
	b = b[:min(int64(len(b)), f.attr.Size-offset)]
	c.reads.Add(1)
	if c.whole.Load() {
		return c.readUnpacked(n, b, offset)
	}
	if f.isTOC {
		err = readFileAt(filepath.Join(c.dir, "toc"), b, offset)
	} else {
		err = c.readChunks(ctx, f, b, offset)
	}
	if err != nil && c.whole.Load() { // became whole meanwhile, and the cache is gone
		return c.readUnpacked(n, b, offset)
	}
	if err != nil {
		return 0, c.failed(ctx, n, err)
	}
	return len(b), nil
}

func (c *content) readChunks(ctx context.Context, f *node, b []byte, offset int64) error {
	first, end := c.chunksOf(f, offset, int64(len(b)))
	for i := first; i < end; i++ {
		k := &c.tree.chunks[i]
		from, to := max(offset, k.at), min(offset+int64(len(b)), k.at+k.size)
		part := b[from-offset : to-offset]
		if k.zero {
			clear(part)
			continue
		}
		data, err := c.m.memory.get(ctx, memoryKey{c, i}, func() ([]byte, error) { return c.load(ctx, k) })
		if err != nil {
			return err
		}
		copy(part, data[from-k.at:])
	}
	return nil
}

// load gets, decompresses and verifies a chunk. One that is not right is fetched once more: the cache may be damaged, or was
// written while the machine lost its power.
func (c *content) load(ctx context.Context, k *chunk) ([]byte, error) {
	b, err := c.loadOnce(ctx, k)
	if fault.KindOf(err) != fault.Invalid {
		return b, err
	}
	c.log.Warn("a chunk of a lazy layer is damaged and fetched again", "offset", k.off, "error", err)
	c.cache.forget(k.off, k.end)
	if b, err = c.loadOnce(ctx, k); fault.KindOf(err) == fault.Invalid {
		c.cache.forget(k.off, k.end)
	}
	return b, err
}

// loadOnce gives Invalid for bytes that are not the chunk.
func (c *content) loadOnce(ctx context.Context, k *chunk) ([]byte, error) {
	if err := c.cache.need(ctx, k.off, k.end); err != nil {
		return nil, err
	}
	select {
	case c.m.decodes <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-c.m.decodes }()
	raw := make([]byte, k.end-k.off)
	if err := c.cache.readAt(raw, k.off); err != nil {
		return nil, err
	}
	b, err := c.m.decoders.chunk(c.form, raw, k)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the blob's bytes at %d", k.off)
	}
	return b, nil
}

// readUnpacked reads from the layer's unpacked files.
func (c *content) readUnpacked(n fuse.Node, b []byte, offset int64) (int, error) {
	root, err := ktree.OpenDir(c.m.cfg.Layers.FSPath(c.record.DiffID))
	if err != nil {
		return 0, err
	}
	defer root.Close()
	f, err := root.OpenFile(c.tree.path(n))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	read, err := f.ReadAt(b, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return read, err
}

// failed logs a read that failed, not more than one in ten seconds, and gives the reader's error.
func (c *content) failed(ctx context.Context, n fuse.Node, err error) error {
	if ctx.Err() != nil {
		return err
	}
	now := time.Now().Unix()
	if last := c.logged.Load(); now-last >= 10 && c.logged.CompareAndSwap(last, now) {
		c.log.Error("a read of a file that is not here yet failed", "file", "/"+c.tree.path(n), "waited at most", c.m.cfg.ReadTimeout, "error", err)
	}
	return unix.EIO
}

func readFileAt(path string, b []byte, offset int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(b, offset)
	return err
}

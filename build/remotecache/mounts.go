package remotecache

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/build/solver"
	"berth/image/archive"
	"berth/image/archive/compress"
	"berth/kernel/tree"
)

// mountType is the media type of a cache mount's blob: a tar, compressed with zstd.
const mountType = "application/vnd.berth.cachemount.v1.tar+zstd"

// mountsMost bounds the cache mounts of one export.
const mountsMost = 100

// errTooLarge stops a cache mount that grows beyond what is asked for.
var errTooLarge = errors.New("larger than mounts-max")

// mounts brings the cache mounts that the build used there, and are asked for. Those of other scopes, and of ids that this build did not
// use, stay in the table as they were.
func (x *exporting) mounts(ctx context.Context, refs []Ref) error {
	keys, scope := x.mountKeys(refs), x.t.words.scopes[0]
	for _, m := range x.olds {
		if m.Scope != scope || !slices.Contains(keys, m.Key) {
			x.kept = append(x.kept, m)
		}
	}
	for _, key := range keys {
		m, err := x.mount(ctx, key)
		switch {
		case errors.Is(err, errTooLarge):
			x.t.c.log.Warn("a cache mount is too large to be exported", "key", key, "max", x.t.words.mountsMax)
		case fault.Is(err, fault.NotFound):
		case err != nil:
			return fault.In(err, "cache mount %s", key)
		default:
			m.Scope = scope
			x.kept = append(x.kept, m)
		}
	}
	slices.SortFunc(x.kept, func(a, b mount) int { return strings.Compare(a.Scope+"\x00"+a.Key, b.Scope+"\x00"+b.Key) })
	return nil
}

// mountKeys lists the keys of the cache mounts that steps of the results used, as far as they are asked for.
func (x *exporting) mountKeys(refs []Ref) (keys []string) {
	ids := map[string]bool{}
	for _, r := range refs {
		if r == nil {
			continue
		}
		_ = r.Walk(func(o solver.Outcome) error {
			if o.Vertex == nil || o.Vertex.Op == nil {
				return nil
			}
			for _, m := range o.Vertex.Op.GetExec().GetMounts() {
				if m.MountType == pb.MountType_CACHE && m.CacheOpt != nil && x.t.words.takesMount(m.CacheOpt.ID) {
					ids[m.CacheOpt.ID] = true
				}
			}
			return nil
		})
	}
	if x.t.c.cfg.Mounts == nil {
		return nil
	}
	for _, k := range x.t.c.cfg.Mounts.CacheKeys() {
		if ids[mountID(k)] && len(keys) < mountsMost && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// mountID takes the identity of what it was filled with off a cache's key.
func mountID(key string) string {
	if i := strings.LastIndex(key, ":sha256:"); i >= 0 && digest.Digest(key[i+1:]).Validate() == nil {
		return key[:i]
	}
	return key
}

// takesMount reports whether a cache mount is asked for, by its id as the Dockerfile has it: the Dockerfile's frontend puts the cache
// namespace of the build and a slash in front.
func (w *words) takesMount(id string) bool {
	return slices.ContainsFunc(w.mounts, func(m string) bool {
		return m == "*" || m == id || strings.HasSuffix(id, "/"+strings.TrimPrefix(m, "/"))
	})
}

// mount brings one cache mount there.
func (x *exporting) mount(ctx context.Context, key string) (m mount, err error) {
	f, err := x.t.c.cfg.Export.Scratch()
	if err != nil {
		return m, err
	}
	defer f.Close()
	desc, err := x.pack(ctx, key, f)
	if err != nil {
		return m, err
	}
	there, err := x.p.has(ctx, desc)
	if err == nil && !there {
		err = x.p.put(ctx, desc, section(f, desc.Size))
	}
	return mount{Key: key, Blob: desc}, err
}

// pack writes a cache mount as a blob, and stops where it becomes too large.
func (x *exporting) pack(ctx context.Context, key string, f *os.File) (ocispec.Descriptor, error) {
	h := digest.SHA256.Digester()
	w := &bounded{w: io.MultiWriter(f, h.Hash()), left: x.t.words.mountsMax}
	err := x.t.c.cfg.Mounts.ReadCache(ctx, key, func(root *tree.Dir) error {
		zw, err := compress.NewWriter(w, compress.Zstd)
		if err != nil {
			return err
		}
		err = archive.Tree(ctx, root, "", "", zw, archive.WriteOptions{})
		return errors.Join(err, zw.Close())
	})
	if w.left < 0 {
		err = errTooLarge
	}
	return ocispec.Descriptor{MediaType: mountType, Digest: h.Digest(), Size: w.n}, err
}

// bounded is a writer that takes only so many bytes.
type bounded struct {
	w       io.Writer
	left, n int64
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errTooLarge
	}
	n, err := b.w.Write(p)
	b.n += int64(n)
	return n, err
}

// importMounts fills cache mounts that are not here with what a table has of the scopes that are read.
func (c *Caches) importMounts(ctx context.Context, p place, doc *document, w words) error {
	if c.cfg.Mounts == nil {
		return nil
	}
	var failed error
	for _, scope := range w.scopes { // the first scope that has one wins
		for _, m := range doc.Berth.Mounts {
			if m.Scope != scope || !w.takesMount(mountID(m.Key)) || m.Blob.Size > w.mountsMax {
				continue
			}
			_, err := c.cfg.Mounts.FillCache(ctx, m.Key, "imported from "+p.name(), func(root *tree.Dir) error { return c.unpack(ctx, p, m, root) })
			failed = errors.Join(failed, fault.In(err, "cache mount %s", m.Key))
		}
	}
	return failed
}

// unpack fills a cache mount. A tree that turns out not to be what its digest says is an error, and whoever made it takes it away.
func (c *Caches) unpack(ctx context.Context, p place, m mount, root *tree.Dir) error {
	r, err := p.get(ctx, m.Blob)
	if err != nil {
		return err
	}
	defer r.Close()
	check := m.Blob.Digest.Verifier()
	in := &counting{r: io.TeeReader(io.LimitReader(r, m.Blob.Size), check)}
	zr, err := compress.NewStream(in, "")
	if err != nil {
		return err
	}
	defer zr.Close()
	if _, err := archive.Apply(ctx, root, zr, archive.ApplyOptions{Input: in.count, KeepRoot: false}); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	if !check.Verified() {
		return fault.New(fault.Invalid, "%s is something else than its digest says", m.Blob.Digest)
	}
	return nil
}

// counting counts the bytes that were read.
type counting struct {
	r io.Reader
	n atomic.Int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (c *counting) count() int64 { return c.n.Load() }

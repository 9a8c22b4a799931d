package lazy_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/image/layer"
	"berth/image/lazy"
	"berth/kernel/mount"
	"berth/kernel/probe"
)

var ctx = context.Background()

// file is one entry of a test layer; the type is guessed from what is set.
type file struct {
	name, body, link, hard string
	mode                   int64
	uid                    int
	typ                    byte
	xattrs                 map[string]string
	major, minor           int64
}

func makeTar(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Size: int64(len(f.body)), Mode: f.mode, Uid: f.uid, Gid: f.uid, ModTime: time.Unix(1600000000, 0), Typeflag: tar.TypeReg, Devmajor: f.major, Devminor: f.minor}
		switch {
		case f.typ != 0:
			h.Typeflag = f.typ
		case f.name[len(f.name)-1] == '/':
			h.Typeflag = tar.TypeDir
			if h.Mode == 0 {
				h.Mode = 0o755
			}
		case f.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		case f.hard != "":
			h.Typeflag, h.Linkname = tar.TypeLink, f.hard
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		for k, v := range f.xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, f.body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// packed is a layer with a TOC.
type packed struct {
	blob []byte
	desc ocispec.Descriptor
	diff digest.Digest
}

// forms are the ways to pack.
var forms = []string{"estargz", "zstd:chunked"}

// pack makes a blob of a tar with chunks of the size.
func pack(t testing.TB, form string, raw []byte, chunk, minChunk int) packed {
	t.Helper()
	var b bytes.Buffer
	meta := map[string]string{}
	var w *estargz.Writer
	if form == "estargz" {
		w = estargz.NewWriterLevel(&b, 1)
	} else {
		w = estargz.NewWriterWithCompressor(&b, &zstdchunked.Compressor{CompressionLevel: zstd.SpeedFastest, Metadata: meta})
	}
	w.ChunkSize, w.MinChunkSize = chunk, minChunk
	appendTar := w.AppendTar
	if form != "estargz" {
		appendTar = w.AppendTarLossLess // then the diff id stays as it was
	}
	if err := appendTar(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	sum, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	p := packed{blob: b.Bytes(), diff: digest.Digest(w.DiffID())}
	p.desc = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(p.blob), Size: int64(len(p.blob)), Annotations: meta}
	if form == "estargz" {
		p.desc.Annotations[estargz.TOCJSONDigestAnnotation] = sum.String()
	}
	return p
}

// origin is a registry with one blob.
type origin struct {
	blob []byte

	mu     sync.Mutex
	asked  []string      // ranges
	hold   bool          // what is asked for is not sent until it is false
	fail   error         // every request fails
	free   chan struct{} // closed when hold or fail end
	rate   int           // bytes per second, over all; 0: any
	served int64
	dead   bool // requests get nothing and no error
}

func newOrigin(blob []byte) *origin {
	return &origin{blob: blob, free: make(chan struct{})}
}

func (o *origin) set(hold bool, fail error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hold, o.fail = hold, fail
	close(o.free)
	o.free = make(chan struct{})
}

func (o *origin) BlobRange(ctx context.Context, d ocispec.Descriptor, offset, length int64) (io.ReadCloser, error) {
	o.mu.Lock()
	o.asked = append(o.asked, fmt.Sprintf("%d+%d", offset, length))
	fail := o.fail
	o.mu.Unlock()
	if fail != nil {
		return nil, fail
	}
	if offset < 0 || offset+length > int64(len(o.blob)) {
		return nil, errors.New("range out of the blob")
	}
	return &stream{o: o, ctx: ctx, at: offset, end: offset + length}, nil
}

type stream struct {
	o       *origin
	ctx     context.Context
	at, end int64
}

func (s *stream) Read(b []byte) (int, error) {
	for {
		if s.at >= s.end {
			return 0, io.EOF
		}
		s.o.mu.Lock()
		hold, fail, free, rate, dead := s.o.hold, s.o.fail, s.o.free, s.o.rate, s.o.dead
		s.o.mu.Unlock()
		if fail != nil {
			return 0, fail
		}
		if hold || dead {
			select {
			case <-free:
				continue
			case <-s.ctx.Done():
				return 0, s.ctx.Err()
			}
		}
		if rate > 0 && len(b) > 16<<10 {
			b = b[:16<<10]
		}
		s.o.mu.Lock()
		n := copy(b, s.o.blob[s.at:s.end])
		s.o.served += int64(n)
		s.o.mu.Unlock()
		s.at += int64(n)
		if rate > 0 {
			time.Sleep(time.Duration(n) * time.Second / time.Duration(rate))
		}
		return n, nil
	}
}

func (s *stream) Close() error { return nil }

// parker is a keeper in this process.
type parker struct {
	mu  sync.Mutex
	fds map[string]*os.File
}

func newParker(t testing.TB) *parker {
	p := &parker{fds: map[string]*os.File{}}
	t.Cleanup(func() {
		for _, f := range p.fds {
			f.Close()
		}
	})
	return p
}

func dup(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	return os.NewFile(uintptr(fd), f.Name()), err
}

func (p *parker) Park(ctx context.Context, name string, f *os.File) error {
	d, err := dup(f)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.fds[name]; old != nil {
		old.Close()
	}
	p.fds[name] = d
	return nil
}

func (p *parker) Take(ctx context.Context, name string) (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fds[name] == nil {
		return nil, fault.New(fault.NotFound, "nothing parked")
	}
	return dup(p.fds[name])
}

func (p *parker) Unpark(ctx context.Context, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fds[name] != nil {
		p.fds[name].Close()
		delete(p.fds, name)
	}
	return nil
}

func (p *parker) Parked(ctx context.Context) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for n := range p.fds {
		names = append(names, n)
	}
	return names, nil
}

// house is a layer store with a manager.
type house struct {
	root   string
	cfg    lazy.Config
	layers *layer.Store
	m      *lazy.Manager
}

func needLazy(t testing.TB) {
	if os.Getuid() != 0 {
		t.Skip("needs root: FUSE and overlay mounts")
	}
	if why := probe.Host().Why(probe.FuseResend); why != "" {
		t.Skip("needs fuse-resend: " + why)
	}
}

func newHouse(t testing.TB, cfg lazy.Config) *house {
	t.Helper()
	needLazy(t)
	h := &house{root: t.TempDir(), cfg: cfg}
	h.open(t)
	t.Cleanup(func() {
		h.m.Close()
		h.layers.Close()
		forceUnmount(h.root)
	})
	return h
}

// forceUnmount ends views that a failed test left, whoever waits.
func forceUnmount(root string) {
	list, _ := mount.Self(func(i *mount.Info) bool { return len(i.Point) > len(root) && i.Point[:len(root)] == root })
	for i := len(list) - 1; i >= 0; i-- {
		unix.Unmount(list[i].Point, unix.MNT_FORCE|unix.MNT_DETACH)
	}
}

func (h *house) open(t testing.TB) {
	t.Helper()
	var err error
	if h.layers, err = layer.Open(layer.Config{Root: filepath.Join(h.root, "layer")}); err != nil {
		t.Fatal(err)
	}
	h.cfg.Root, h.cfg.Layers = filepath.Join(h.root, "lazy"), h.layers
	if h.m, err = lazy.Open(ctx, h.cfg); err != nil {
		t.Fatal(err)
	}
}

func (h *house) close(t testing.TB) {
	t.Helper()
	if err := errors.Join(h.m.Close(), h.layers.Close()); err != nil {
		t.Fatal(err)
	}
}

func (h *house) add(t testing.TB, p packed, from lazy.Ranger) {
	t.Helper()
	info, err := h.m.Add(ctx, lazy.Layer{Descriptor: p.desc, DiffID: p.diff, Repository: "docker.io/library/x", From: from})
	if err != nil {
		t.Fatal(err)
	}
	if info.DiffID != p.diff {
		t.Errorf("added %s", info.DiffID)
	}
}

func (h *house) lazy(t testing.TB, d digest.Digest) bool {
	t.Helper()
	info, err := h.layers.Stat(d)
	if err != nil {
		t.Fatal(err)
	}
	return info.Lazy
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("did not happen: %s", what)
}

// noise is content that does not compress.
func noise(seed uint64, n int) string {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

type (
	context_   = context.Context
	descriptor = ocispec.Descriptor
)

func contextWith(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

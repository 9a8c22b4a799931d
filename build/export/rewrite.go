package export

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/base/fault"
	"berth/build/session"
	"berth/image/archive"
	"berth/kernel/tree"
)

// rewrite replaces the layers above the base image's by ones in which nothing is later than the epoch.
func (e *Exporter) rewrite(ctx context.Context, m *made, p *part) error {
	if p.epoch == nil {
		e.log.Warn("rewrite-timestamp is specified, but no source-date-epoch was found")
		return nil
	}
	if err := e.here(ctx, p); err != nil {
		return err
	}
	base, err := p.base()
	if err != nil {
		return err
	}
	out := append([]digest.Digest{}, p.chain...)
	return m.run.step("rewriting layers with source-date-epoch "+strconv.FormatInt(p.epoch.Unix(), 10)+" ("+p.epoch.String()+")", func() error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(2)
		for i := base; i < len(out); i++ {
			g.Go(session.Safe(func() (err error) {
				out[i], err = e.rewriteLayer(ctx, m, p.chain[i], *p.epoch)
				return fault.In(err, "rewrite layer %s", p.chain[i])
			}))
		}
		err := g.Wait()
		p.chain, p.unmoved = out, base
		return err
	})
}

// rewrittenKey is the annotation by which BuildKit marks a layer whose times were rewritten.
const rewrittenKey = "buildkit/rewritten-timestamp"

// rewritten marks the layers of a manifest whose times were rewritten.
func (p *part) rewritten(m *made, layers []ocispec.Descriptor) {
	if !m.o.rewrite || p.epoch == nil || !m.o.oci {
		return
	}
	for i := p.unmoved; i < len(layers); i++ {
		a := maps.Clone(layers[i].Annotations)
		layers[i].Annotations = merge(a, map[string]string{rewrittenKey: strconv.FormatInt(p.epoch.Unix(), 10)})
	}
}

// here has a platform's layers here.
func (e *Exporter) here(ctx context.Context, p *part) error {
	if err := p.snap.Ready(ctx); err != nil {
		return err
	}
	return e.cfg.Images.Layers().Whole(ctx, p.chain...)
}

// base is how many of a platform's layers are the base image's.
func (p *part) base() (n int, err error) {
	raw := exptypes.ParseKey(p.meta, exptypes.ExporterImageBaseConfigKey, &p.platform)
	if len(raw) == 0 {
		return 0, nil
	}
	var img ocispec.Image
	if err := json.Unmarshal(raw, &img); err != nil {
		return 0, fault.Wrap(fault.Invalid, err, "invalid base image config for export")
	}
	for n < len(p.chain) && n < len(img.RootFS.DiffIDs) && img.RootFS.DiffIDs[n] == p.chain[n] {
		n++
	}
	return n, nil
}

// rewriteLayer gives the layer with no later time than the epoch, held for the image in the making.
func (e *Exporter) rewriteLayer(ctx context.Context, m *made, d digest.Digest, epoch time.Time) (digest.Digest, error) {
	key := strconv.FormatInt(epoch.Unix(), 10)
	if to, ok := e.memory.rewritten(d, key); ok && m.hold.Layers(to) == nil {
		return to, nil
	}
	to, err := e.newLayer(ctx, m, func(ctx context.Context, w io.Writer) error {
		r, pw := io.Pipe()
		go func() { pw.CloseWithError(e.cfg.Images.Layers().Tar(ctx, d, pw)) }()
		err := clamp(r, w, epoch)
		r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
		return err
	})
	if err == nil {
		e.memory.setRewritten(d, key, to)
	}
	return to, err
}

// newLayer makes a layer of a tar that f writes, held for the image in the making.
func (e *Exporter) newLayer(ctx context.Context, m *made, f func(ctx context.Context, w io.Writer) error) (digest.Digest, error) {
	layers := e.cfg.Images.Layers()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(f(ctx, w))
	}()
	defer func() { <-done }()
	st, err := layers.Stage(ctx, r, "")
	r.CloseWithError(err) // whoever still writes stops; nil is ErrClosedPipe
	if err != nil {
		return "", err
	}
	defer st.Drop()
	if err := layers.Commit(st); err != nil {
		return "", err
	}
	return st.DiffID, m.hold.AdoptLayers(st.DiffID)
}

// clamp copies a layer's tar with every time brought down to the epoch. Times of access and change, which no layer needs, go.
func clamp(r io.Reader, w io.Writer, epoch time.Time) error {
	tr, tw := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if h.ModTime.After(epoch) {
			h.ModTime = epoch
		}
		h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
		for k := range h.PAXRecords {
			if k == "mtime" || k == "atime" || k == "ctime" || strings.HasPrefix(k, "GNU.sparse.") {
				delete(h.PAXRecords, k)
			}
		}
		if h.Typeflag == tar.TypeGNUSparse {
			h.Typeflag = tar.TypeReg
		}
		h.Format = tar.FormatUnknown // the smallest that holds it
		if h.ModTime.Nanosecond() != 0 || len(h.PAXRecords) > 0 {
			h.Format = tar.FormatPAX
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, r) // what is behind the end
	return err
}

// squash replaces the layers above the base image's by one.
func (e *Exporter) squash(ctx context.Context, m *made, p *part) error {
	if err := e.here(ctx, p); err != nil {
		return err
	}
	base, err := p.base()
	if err != nil {
		return err
	}
	if len(p.chain)-base < 2 {
		return nil
	}
	return m.run.step("squashing layers", func() error {
		d, err := e.newLayer(ctx, m, func(ctx context.Context, w io.Writer) error { return e.between(ctx, p.chain, base, w) })
		if err != nil {
			return err
		}
		p.chain = append(append([]digest.Digest{}, p.chain[:base]...), d)
		p.squashed = true
		return nil
	})
}

// between writes what the layers above the lowest n of a chain do together.
func (e *Exporter) between(ctx context.Context, chain []digest.Digest, n int, w io.Writer) error {
	layers := e.cfg.Images.Layers()
	return layers.WithChain(ctx, chain, func(upper *tree.Dir) error {
		if n > 0 {
			return layers.WithChain(ctx, chain[:n], func(lower *tree.Dir) error {
				return archive.Between(ctx, lower, upper, w, archive.WriteOptions{})
			})
		}
		if err := os.MkdirAll(e.cfg.Root, 0o700); err != nil {
			return err
		}
		empty, err := os.MkdirTemp(e.cfg.Root, ".empty-")
		if err != nil {
			return err
		}
		defer os.Remove(empty)
		lower, err := tree.OpenDir(empty)
		if err != nil {
			return err
		}
		defer lower.Close()
		return archive.Between(ctx, lower, upper, w, archive.WriteOptions{})
	})
}

package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/ref"
	"berth/image/remote"
)

// upload is the push of one image under way.
type upload struct {
	t    *Transfer
	p    *PushImage
	b    *board
	cred remote.Credentials

	mu   sync.Mutex // guards what follows
	done map[*PushLayer]ocispec.Descriptor
}

// layers brings all layers to the target.
func (u *upload) layers(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	failed := &firstError{stop: stop}
	var wg sync.WaitGroup
	begun := map[*PushLayer]bool{}
	for _, m := range u.p.Manifests {
		for _, l := range slices.Backward(m.Layers) {
			if begun[l] {
				continue
			}
			begun[l] = true
			wg.Go(func() {
				if err := u.turn(ctx, l); err != nil {
					failed.set(err)
				}
			})
		}
	}
	wg.Wait()
	return failed.err
}

// turn waits for a place and then goes the layer's ways until one leads there.
func (u *upload) turn(ctx context.Context, l *PushLayer) error {
	places := u.t.up.Load()
	if !places.TryAcquire(1) {
		u.b.status(l.id(), "Waiting")
		if err := places.Acquire(ctx, 1); err != nil {
			return err
		}
	}
	defer places.Release(1)
	var last error
	for _, w := range l.Ways {
		d, err := u.try(ctx, l, w)
		if err == nil {
			u.mu.Lock()
			u.done[l] = d
			u.mu.Unlock()
			return nil
		}
		if !tryNext(err) || ctx.Err() != nil {
			return err
		}
		u.t.log.Debug("a way to push a layer does not work", "layer", l.id(), "way", w, "err", err)
		last = err
	}
	return last
}

// errElsewhere marks failures that are not the target's: another way may work.
type errElsewhere struct{ error }

func (e errElsewhere) Unwrap() error { return e.error }

// atSource marks the failure of a way whose source is at domain as none of the target's, so that the next way is tried. Where the source is
// the target's own registry, and that does not answer at all, it is the target's: the registry may be back in a moment, and the image that
// is pushed then must not be another one than was asked for because a layer was compressed anew.
func (u *upload) atSource(domain string, err error) error {
	var no *remote.Refusal
	if domain == u.p.Name.Domain && fault.Is(err, fault.Unavailable) && !errors.As(err, &no) {
		return err
	}
	return errElsewhere{err}
}

func tryNext(err error) bool {
	var e errElsewhere
	return errors.As(err, &e)
}

// try tries one way.
func (u *upload) try(ctx context.Context, l *PushLayer, w Way) (ocispec.Descriptor, error) {
	d := w.Descriptor
	switch w.How {
	case Exists:
		if w.Ask {
			_, there, err := u.p.target.HasBlob(ctx, d.Digest)
			if err != nil {
				return d, err
			}
			if !there {
				return d, errElsewhere{fault.New(fault.NotFound, "%s is not there any more", d.Digest)}
			}
		}
		u.b.status(l.id(), "Layer already exists")
		return d, nil
	case Skip:
		u.b.status(l.id(), "Skipped foreign layer")
		return d, nil
	case Mount:
		ok, err := u.p.target.Mount(ctx, d.Digest, w.From)
		if err != nil {
			return d, u.atSource(u.p.Name.Domain, err)
		}
		if !ok {
			return d, errElsewhere{fault.New(fault.NotFound, "the registry does not mount %s from %s", d.Digest, w.From)}
		}
		u.b.status(l.id(), "Mounted from "+w.From)
		return d, nil
	case Kept:
		return d, u.blob(ctx, l, d, "", func(offset int64) (io.ReadCloser, error) { return u.kept(ctx, d, offset) })
	case Stream:
		name, err := ref.Parse(w.From)
		if err != nil {
			return d, errElsewhere{err}
		}
		cred := remote.Credentials{} // what was given is for the target's registry and nobody else's eyes
		if name.Domain == u.p.Name.Domain {
			cred = u.cred
		}
		from := u.t.cfg.Remote.Repository(name, cred)
		return d, u.blob(ctx, l, d, name.Domain, func(offset int64) (io.ReadCloser, error) { return from.Blob(ctx, d, offset) })
	}
	return u.rebuild(ctx, l)
}

// kept opens a blob of the store.
func (u *upload) kept(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	r, _, err := u.t.cfg.Images.OpenBlob(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	s, ok := r.(io.Seeker)
	if !ok {
		_, err = io.CopyN(io.Discard, r, offset)
	} else {
		_, err = s.Seek(offset, io.SeekStart)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// blob uploads bytes that come from a registry, or from here when domain is "". What goes wrong there is no failure of the target.
func (u *upload) blob(ctx context.Context, l *PushLayer, d ocispec.Descriptor, domain string, open func(offset int64) (io.ReadCloser, error)) error {
	// A layer's first byte is asked for before the target is told anything: a source that is gone costs no upload.
	first, err := open(0)
	if err != nil {
		return u.atSource(domain, err)
	}
	defer func() {
		if first != nil {
			first.Close()
		}
	}()
	var source failure
	err = u.p.target.PushBlob(ctx, d, func(offset int64) (io.ReadCloser, error) {
		r := first
		first = nil
		if r == nil || offset != 0 {
			if r != nil {
				r.Close()
			}
			var err error
			if r, err = open(offset); err != nil {
				source.set(err)
				return nil, err
			}
		}
		var body io.Reader = r
		if offset == 0 {
			body = newChecked(r, d, nil)
		}
		return &outgoing{r: body, c: r, pass: u.pass(l, offset, d.Size), fail: &source}, nil
	})
	if bad := source.get(); err != nil && bad != nil && ctx.Err() == nil {
		return u.atSource(domain, bad)
	}
	if err != nil {
		return err
	}
	u.b.status(l.id(), "Pushed")
	return nil
}

// pass counts bytes that go out, from an offset on. total is 0 where nobody knows how many there will be.
func (u *upload) pass(l *PushLayer, offset, total int64) func(int) {
	middle := total / 2
	m := &meter{status: "Pushing", now: offset, total: total, say: func(p Progress) {
		p.ID = l.id()
		u.b.say(p)
	}}
	return func(n int) {
		if m.now <= middle && m.now+int64(n) > middle {
			_ = failpoint.Hit("transfer/push-mid-layer") // only dying and waiting make sense here
		}
		m.add(n)
	}
}

// failure is an error of whoever reads a body, who may be at it still when the request is over.
type failure struct {
	mu  sync.Mutex
	err error
}

func (f *failure) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *failure) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// outgoing is a body that is being uploaded. It remembers whether reading it failed.
type outgoing struct {
	r    io.Reader
	c    io.Closer
	pass func(int)
	fail *failure
}

func (o *outgoing) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	if n > 0 {
		o.pass(n)
	}
	if err != nil && err != io.EOF {
		o.fail.set(err)
	}
	return n, err
}

func (o *outgoing) Close() error { return o.c.Close() }

// config uploads a manifest's configuration and the parts of an attestation.
func (u *upload) config(ctx context.Context, m *PushManifest) error {
	d := digest.FromBytes(m.Config)
	if m.ConfigDesc.Digest != "" {
		d = m.ConfigDesc.Digest
	}
	_, there, err := u.p.target.HasBlob(ctx, d)
	if err != nil || there {
		return err
	}
	return u.p.target.PushBlob(ctx, ocispec.Descriptor{MediaType: m.ConfigDesc.MediaType, Digest: d, Size: int64(len(m.Config))}, func(offset int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(m.Config[min(offset, int64(len(m.Config))):])), nil
	})
}

// foreign brings a manifest that is not here from another repository of the same registry.
func (u *upload) foreign(ctx context.Context, m *PushManifest) error {
	from := u.t.cfg.Remote.Repository(ref.Ref{Domain: u.p.Name.Domain, Path: m.From}, u.cred)
	for _, d := range m.blobs {
		_, there, err := u.p.target.HasBlob(ctx, d.Digest)
		if err != nil {
			return err
		}
		if there {
			continue
		}
		if ok, err := u.p.target.Mount(ctx, d.Digest, m.From); err == nil && ok {
			continue
		}
		err = u.p.target.PushBlob(ctx, d, func(offset int64) (io.ReadCloser, error) { return from.Blob(ctx, d, offset) })
		if err != nil {
			return err
		}
	}
	return u.document(ctx, m.Descriptor.OCI(), m.raw)
}

// alike gives layers the same family of media types: a manifest is Docker's or an OCI one, and its layers are too. The bytes
// are the same by either name.
func alike(layers []ocispec.Descriptor) []ocispec.Descriptor {
	oci := slices.ContainsFunc(layers, func(d ocispec.Descriptor) bool { return d.MediaType != typeDockerLayer })
	if !oci {
		return layers
	}
	out := slices.Clone(layers)
	for i := range out {
		switch out[i].MediaType {
		case typeDockerLayer:
			out[i].MediaType = ocispec.MediaTypeImageLayerGzip
		case strings.TrimSuffix(typeDockerLayer, ".gzip"):
			out[i].MediaType = ocispec.MediaTypeImageLayer
		}
	}
	return out
}

// relayer gives a manifest with other layers, and otherwise what it was. Annotations of a layer that changed go: they
// describe the bytes it had.
func relayer(d ocispec.Descriptor, raw []byte, layers []ocispec.Descriptor) (ocispec.Descriptor, []byte, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		return d, nil, fault.Wrap(fault.Invalid, err, "manifest %s", d.Digest)
	}
	var old []json.RawMessage
	if err := json.Unmarshal(m["layers"], &old); err != nil || len(old) != len(layers) {
		return d, nil, fault.New(fault.Invalid, "manifest %s does not have %d layers", d.Digest, len(layers))
	}
	for i, l := range layers {
		var was ocispec.Descriptor
		if err := json.Unmarshal(old[i], &was); err != nil {
			return d, nil, fault.Wrap(fault.Invalid, err, "manifest %s", d.Digest)
		}
		if was.Digest == l.Digest {
			continue
		}
		b, err := json.Marshal(plain(l))
		if err != nil {
			return d, nil, err
		}
		old[i] = b
	}
	var err error
	if m["layers"], err = json.Marshal(old); err != nil {
		return d, nil, err
	}
	out, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return d, nil, err
	}
	d.Digest, d.Size = digest.FromBytes(out), int64(len(out))
	return d, out, nil
}

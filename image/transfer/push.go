package transfer

import (
	"context"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/failpoint"
	"berth/base/ref"
	"berth/image"
)

// Push brings an image, or all tags of a repository, to its registry: PlanPush and its application. The image keeps the
// digest that it came with wherever that can be done; where not, a line says so. Errors are in Docker's words; after one the tag
// at the registry is what it was.
func (t *Transfer) Push(ctx context.Context, req PushRequest) (*Pushed, error) {
	b := newBoard(req.Progress)
	defer b.close()
	b.status("", fmt.Sprintf("The push refers to repository [%s]", req.Name.Repository()))
	plan, err := t.gather(ctx, req)
	if err != nil {
		return nil, err
	}
	done := &Pushed{}
	for _, p := range plan.Images {
		one, err := t.pushImage(ctx, p, req, b)
		if err != nil {
			return done, err
		}
		done.Images = append(done.Images, *one)
	}
	return done, nil
}

// pushImage pushes one tag.
func (t *Transfer) pushImage(ctx context.Context, p *PushImage, req PushRequest, b *board) (*PushedImage, error) {
	hold := t.cfg.Images.Hold()
	defer hold.Release()
	p.prepare(b)
	if err := t.ask(ctx, p, req); err != nil {
		return nil, err
	}
	for _, m := range p.Manifests {
		if m.ImageID != "" {
			if err := hold.Image(m.ImageID); err != nil {
				return nil, err
			}
		}
	}
	u := &upload{t: t, p: p, b: b, cred: req.Credentials, done: map[*PushLayer]ocispec.Descriptor{}}
	if err := u.layers(ctx); err != nil {
		return nil, err
	}
	if err := failpoint.Hit("transfer/push-before-manifest"); err != nil {
		return nil, err
	}
	root, raw, err := u.manifests(ctx)
	if err != nil {
		return nil, err
	}
	if err := failpoint.Hit("transfer/push-before-tag"); err != nil {
		return nil, err
	}
	if err := u.name(ctx, root, raw); err != nil {
		return nil, err
	}
	_ = failpoint.Hit("transfer/push-after-tag") // only dying here makes sense
	u.remember(ctx, root, raw)
	return u.report(root), nil
}

// prepare says which layers there are, the uppermost first as Docker has it.
func (p *PushImage) prepare(b *board) {
	said := map[string]bool{}
	for _, m := range p.Manifests {
		for i := len(m.Layers) - 1; i >= 0; i-- {
			if id := m.Layers[i].id(); m.Layers[i].DiffID != "" && !said[id] {
				said[id] = true
				b.status(id, "Preparing")
			}
		}
	}
}

// manifests uploads all documents but the root, and gives the root. What had to be made anew is made here.
func (u *upload) manifests(ctx context.Context) (root ocispec.Descriptor, raw []byte, err error) {
	for _, m := range u.p.Manifests {
		if m.There {
			continue
		}
		if m.Foreign {
			if err := u.foreign(ctx, m); err != nil {
				return root, nil, err
			}
			continue
		}
		if err := u.config(ctx, m); err != nil {
			return root, nil, err
		}
		d, content, err := u.manifest(m)
		if err != nil {
			return root, nil, err
		}
		if len(u.p.Manifests) == 1 && (u.p.Root.Digest == "" || u.p.Root.Digest == m.Descriptor.Digest) {
			return d, content, nil // it is the root itself
		}
		if d.Digest != m.Descriptor.Digest {
			return u.insteadOfIndex(d, content)
		}
		if err := u.document(ctx, d, content); err != nil {
			return root, nil, err
		}
	}
	for _, d := range u.p.docs.Inner {
		if err := u.document(ctx, d.Descriptor.OCI(), d.Content); err != nil {
			return root, nil, err
		}
	}
	return u.p.Root, u.p.docs.Root.Content, nil
}

// insteadOfIndex makes the manifest of one platform the root, because its layers could not be had as the index wants them.
func (u *upload) insteadOfIndex(d ocispec.Descriptor, content []byte) (ocispec.Descriptor, []byte, error) {
	index := u.p.Root
	u.p.Index, u.p.Root = &index, d
	return d, content, nil
}

// document uploads a manifest or index that gets no tag.
func (u *upload) document(ctx context.Context, d ocispec.Descriptor, content []byte) error {
	_, err := u.p.target.PushManifest(ctx, string(d.Digest), d.MediaType, content)
	return err
}

// name uploads the root under its tag.
func (u *upload) name(ctx context.Context, root ocispec.Descriptor, raw []byte) error {
	_, err := u.p.target.PushManifest(ctx, u.p.Name.Tag, root.MediaType, raw)
	return err
}

// manifest gives the manifest of an image: the one it came with, one with the layers that had to be made anew, or a new one.
func (u *upload) manifest(m *PushManifest) (ocispec.Descriptor, []byte, error) {
	var layers []ocispec.Descriptor
	changed := false
	for _, l := range m.Layers {
		d := u.done[l]
		changed = changed || d.Digest != l.Descriptor.Digest
		layers = append(layers, d)
	}
	if m.Descriptor.Digest == "" {
		made, err := image.MakeManifest(m.Config, alike(layers))
		if err != nil {
			return ocispec.Descriptor{}, nil, err
		}
		return made.Descriptor.OCI(), made.Content, nil
	}
	if !changed {
		return m.Descriptor.OCI(), m.Content, nil
	}
	return relayer(m.Descriptor.OCI(), m.Content, layers)
}

// remember records what the target has now: sources of layers, and the digest by which it knows the image. The push is done:
// what fails here is only logged.
func (u *upload) remember(ctx context.Context, root ocispec.Descriptor, raw []byte) {
	sources := map[digest.Digest]image.Source{}
	for l, d := range u.done {
		if l.DiffID != "" && distributable(d.MediaType) {
			// What was made of the layer is the layer's; another blob is so by the word of the image's manifest.
			claimed := l.Descriptor.Digest != "" && l.Descriptor.Digest == d.Digest
			sources[l.DiffID] = image.Source{Repository: u.p.Name.Repository(), Descriptor: plain(d), Claimed: claimed}
		}
	}
	images, name := u.t.cfg.Images, u.p.Name
	digested := name.WithDigest(root.Digest)
	var err error
	if u.p.docs.Root != nil && u.p.docs.Root.Digest == root.Digest {
		err = images.AddSources(sources)
		if err == nil {
			err = images.Point(u.p.id, root.Digest, digested)
		}
	} else if m := u.made(root); m != nil {
		_, _, err = images.Register(ctx, image.Registration{Config: m.Config, Manifest: attached(root, raw), Names: []ref.Ref{digested}, Sources: sources})
	}
	if err != nil {
		u.t.log.Warn("what was pushed is not recorded", "image", name.Familiar(), "err", err)
	}
	images.Emit(image.Event{Action: "push", ID: name.Familiar(), Name: name.FamiliarName()})
}

// made finds the image whose manifest became the root.
func (u *upload) made(root ocispec.Descriptor) *PushManifest {
	for _, m := range u.p.Manifests {
		if m.ImageID != "" && (len(u.p.Manifests) == 1 || m.Descriptor.Digest == root.Digest) {
			return m
		}
	}
	return nil
}

// report says what the tag stands for now, and whether that is something else than the image came with.
func (u *upload) report(root ocispec.Descriptor) *PushedImage {
	p := u.p
	done := &PushedImage{Name: p.Name, Digest: root.Digest, Size: root.Size, MediaType: root.MediaType}
	if p.docs.Root != nil {
		done.Original = p.docs.Root.Digest
		done.NewDigest = done.Original != root.Digest
	}
	if p.Index != nil {
		u.b.say(Progress{Aux: ManifestPushedInsteadOfIndex{Always: true, OriginalIndex: *p.Index, SelectedManifest: root}})
	}
	if n := u.anew(); n > 0 {
		u.b.status("", fmt.Sprintf("WARNING: %s of %s cannot be had any more as the image came with them and went compressed anew: the image was pushed as %s, not as %s",
			plural(n, "layer"), p.Name.Familiar(), root.Digest, done.Original))
	}
	u.b.status("", fmt.Sprintf("%s: digest: %s size: %d", p.Name.Tag, root.Digest, root.Size))
	u.b.say(Progress{Aux: PushResult{Tag: p.Name.Tag, Digest: string(root.Digest), Size: int(root.Size)}})
	return done
}

// anew counts the layers that went as other blobs than the manifest that the image came with names.
func (u *upload) anew() (n int) {
	for l, d := range u.done {
		if l.Descriptor.Digest != "" && l.Descriptor.Digest != d.Digest {
			n++
		}
	}
	return n
}

// firstError keeps the first of several errors, and what it stops.
type firstError struct {
	mu   sync.Mutex
	err  error
	stop context.CancelFunc
}

func (f *firstError) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
		f.stop()
	}
}

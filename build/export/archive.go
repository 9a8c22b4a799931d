package export

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	sessioncontent "github.com/moby/buildkit/session/content"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"berth/base/fault"
	"berth/base/ref"
	"berth/build/session"
	"berth/image"
)

// layout is an image as an OCI layout that is on its way to the client.
type layout struct {
	e     *Exporter
	m     *made
	mu    sync.Mutex
	files map[digest.Digest]*os.File // blobs that have been made; without names, so they go with their descriptors
}

// toArchive sends an image to the client: as one archive, or content by content.
func (e *Exporter) toArchive(ctx context.Context, o *Output, m *made) (*Done, error) {
	caller, err := e.caller(ctx, m.run)
	if err != nil {
		return nil, err
	}
	if err := m.ready(ctx); err != nil {
		return nil, err
	}
	a := &layout{e: e, m: m, files: map[digest.Digest]*os.File{}}
	defer a.close()
	if err := e.blobs(ctx, m, true); err != nil {
		return nil, err
	}
	if err := a.make(ctx); err != nil {
		return nil, err
	}
	if err := e.configure(ctx, m); err != nil {
		return nil, err
	}
	if err := e.attest(ctx, m); err != nil {
		return nil, err
	}
	if err := m.documents(); err != nil {
		return nil, err
	}
	m.tellDocuments()
	done, err := m.response(m.names)
	if err != nil {
		return nil, err
	}
	if !m.o.tar {
		return done, m.run.step("copying to client", func() error { return a.copy(ctx, caller) })
	}
	return done, m.run.step("sending tarball", func() error {
		w, err := filesync.CopyFileWriter(ctx, done.Response, o.req.ID, caller)
		if err != nil {
			return err
		}
		err = a.write(ctx, w, o.req.Type == Docker)
		if cerr := w.Close(); err == nil {
			err = cerr
		}
		if grpcerrors.Code(err) == codes.AlreadyExists {
			return nil // the client has it, or wants it no more
		}
		return err
	})
}

// caller is the client that takes files.
func (e *Exporter) caller(ctx context.Context, run *Run) (session.Caller, error) {
	if run.Session == "" || e.cfg.Sessions == nil {
		return nil, fault.New(fault.Invalid, "this output goes to the client, and the build has no session with one")
	}
	return e.cfg.Sessions.Get(ctx, run.Session)
}

func (a *layout) close() {
	for _, f := range a.files {
		f.Close()
	}
}

// make makes the blobs whose digests are not known; their bytes wait in files without names.
func (a *layout) make(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	made := map[digest.Digest]*blob{}
	for _, p := range a.m.parts {
		for i := range p.layers {
			b := &p.layers[i]
			if b.desc.Digest != "" || made[b.diffID] != nil {
				continue
			}
			made[b.diffID] = b
			g.Go(session.Safe(func() error { return a.makeOne(ctx, b) }))
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, p := range a.m.parts {
		for i, b := range p.layers {
			if other := made[b.diffID]; other != nil {
				p.layers[i] = *other
			}
		}
	}
	return nil
}

func (a *layout) makeOne(ctx context.Context, b *blob) error {
	f, err := a.e.scratch()
	if err != nil {
		return err
	}
	d, err := a.e.compress(ctx, b.diffID, b.as, a.m.o.oci, f)
	if err != nil {
		f.Close()
		return err
	}
	b.desc = d
	a.mu.Lock()
	defer a.mu.Unlock()
	if old := a.files[d.Digest]; old != nil {
		old.Close()
	}
	a.files[d.Digest] = f
	return nil
}

// scratch gives a file without a name.
func (e *Exporter) scratch() (*os.File, error) {
	if err := os.MkdirAll(e.cfg.Root, 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(e.cfg.Root, ".blob-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.Close()
		return nil, err
	}
	return f, nil
}

// layer writes a layer's blob, verified.
func (a *layout) layer(ctx context.Context, b blob, w io.Writer) error {
	var r io.Reader
	if f := a.files[b.desc.Digest]; f != nil {
		r = io.NewSectionReader(f, 0, b.desc.Size)
	} else if b.kept {
		f, err := a.e.cfg.Images.Blobs().Open(b.desc.Digest)
		if err != nil {
			return err
		}
		defer f.Close()
		r = f
	} else {
		got, err := a.e.compress(ctx, b.diffID, b.as, a.m.o.oci, w)
		if err == nil && got.Digest != b.desc.Digest {
			err = fault.New(fault.Internal, "layer %s became %s and was to be %s", b.diffID, got.Digest, b.desc.Digest)
		}
		return err
	}
	check := b.desc.Digest.Verifier()
	if _, err := io.Copy(io.MultiWriter(w, check), r); err != nil {
		return err
	}
	if !check.Verified() {
		return fault.New(fault.Internal, "blob %s is damaged on disk", b.desc.Digest)
	}
	return nil
}

// entry is a blob of the layout: a document, or a layer.
type entry struct {
	desc    ocispec.Descriptor
	content []byte
	layer   *blob
}

// entries are all blobs, sorted by digest, each once.
func (a *layout) entries() (list []entry) {
	all := map[digest.Digest]entry{}
	doc := func(d *image.Attached) { all[d.Digest] = entry{desc: d.OCI(), content: d.Content} }
	for _, p := range a.m.parts {
		doc(attached(configType(a.m.o.oci), p.config))
		doc(p.manifest)
		for _, b := range p.layers {
			all[b.desc.Digest] = entry{desc: b.desc, layer: &b}
		}
		if p.attest != nil {
			for _, d := range p.attest.all() {
				doc(&d)
			}
		}
	}
	doc(a.m.root)
	for _, d := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[d])
	}
	return list
}

// write writes the layout as one archive; with docker it is one that docker load takes, too. The same image gives the same bytes.
func (a *layout) write(ctx context.Context, w io.Writer, docker bool) error {
	tw := tar.NewWriter(w)
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}); err != nil {
			return err
		}
	}
	for _, en := range a.entries() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := tw.WriteHeader(header(blobPath(en.desc.Digest), en.desc.Size)); err != nil {
			return err
		}
		if en.layer != nil {
			if err := a.layer(ctx, *en.layer, tw); err != nil {
				return err
			}
		} else if _, err := tw.Write(en.content); err != nil {
			return err
		}
	}
	files := []struct {
		name string
		v    any
	}{{"index.json", a.layoutIndex()}, {"oci-layout", ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}}}
	if docker {
		files = slices.Insert(files, 1, struct {
			name string
			v    any
		}{"manifest.json", a.dockerManifest()})
	}
	for _, f := range files {
		raw, err := json.Marshal(f.v)
		if err != nil {
			return err
		}
		if err := tw.WriteHeader(header(f.name, int64(len(raw)))); err != nil {
			return err
		}
		if _, err := tw.Write(raw); err != nil {
			return err
		}
	}
	return tw.Close()
}

func header(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o444, Size: size}
}

func blobPath(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

// layoutIndex names the root, once for each name.
func (a *layout) layoutIndex() ocispec.Index {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	d := a.m.rootDescriptor()
	d.Annotations = maps.Clone(d.Annotations)
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	if _, ok := d.Annotations[ocispec.AnnotationCreated]; !ok {
		created := time.Now()
		if t := a.m.parts[0].epoch; t != nil {
			created = *t
		}
		d.Annotations[ocispec.AnnotationCreated] = created.UTC().Format(time.RFC3339)
	}
	for _, n := range a.m.names {
		named := d
		named.Annotations = maps.Clone(d.Annotations)
		named.Annotations["io.containerd.image.name"] = n.String()
		named.Annotations[ocispec.AnnotationRefName] = refName(n)
		index.Manifests = append(index.Manifests, named)
	}
	if len(a.m.names) == 0 {
		index.Manifests = append(index.Manifests, d)
	}
	return index
}

// refName is what a layout calls a name: its tag, or its digest.
func refName(n ref.Ref) string {
	if n.Digest != "" {
		return string(n.Digest)
	}
	return n.Tag
}

// dockerManifest is the manifest.json of docker load.
func (a *layout) dockerManifest() any {
	type item struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	it := item{Config: blobPath(a.m.parts[0].id()), Layers: []string{}}
	for _, n := range a.m.names {
		it.RepoTags = append(it.RepoTags, n.Familiar())
	}
	for _, b := range a.m.parts[0].layers {
		it.Layers = append(it.Layers, blobPath(b.desc.Digest))
	}
	return []item{it}
}

// copy gives the client's store each blob that it has not, the root last.
func (a *layout) copy(ctx context.Context, caller session.Caller) error {
	store := sessioncontent.NewCallerStore(caller, "export")
	list := a.entries()
	slices.SortStableFunc(list, func(x, y entry) int { return rank(x, a.m) - rank(y, a.m) })
	for _, en := range list {
		err := a.copyOne(ctx, store, en)
		if err != nil && grpcerrors.Code(err) != codes.AlreadyExists && !strings.Contains(err.Error(), "already exists") {
			return fault.In(err, "copy %s to the client", en.desc.Digest)
		}
	}
	return nil
}

// rank puts layers before documents and the root last: a store that has a document has what it names.
func rank(en entry, m *made) int {
	switch {
	case en.layer != nil:
		return 0
	case en.desc.Digest == m.root.Digest:
		return 2
	}
	return 1
}

func (a *layout) copyOne(ctx context.Context, store content.Store, en entry) error {
	if en.layer == nil {
		return content.WriteBlob(ctx, store, string(en.desc.Digest), bytes.NewReader(en.content), en.desc)
	}
	w, err := content.OpenWriter(ctx, store, content.WithRef(string(en.desc.Digest)), content.WithDescriptor(en.desc))
	if err != nil {
		return err
	}
	defer w.Close()
	if err := a.layer(ctx, *en.layer, w); err != nil {
		return err
	}
	return w.Commit(ctx, en.desc.Size, en.desc.Digest)
}

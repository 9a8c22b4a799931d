package image

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/tarstream"
	"berth/image/archive/compress"
	"berth/image/blob"
	"berth/image/layer"
)

const (
	documentsMax = 64 << 20 // bytes of all documents of an archive, which are kept in memory while it is read
	linksMax     = 16       // links followed for one path in an archive
)

// incoming is an archive that is being loaded: what was found in it, by path.
type incoming struct {
	s       *Store
	o       LoadOptions
	input   func() int64 // bytes read of the whole, where that is compressed; else nil
	files   map[string]*found
	docs    int64                      // bytes of documents so far
	hold    *Hold                      // what this load holds
	sources map[digest.Digest][]Source // that the archive tells of, by diff id
}

// found is one file of the archive.
type found struct {
	document []byte        // JSON, or nil
	link     string        // clean path it is a link to, or ""
	isLayer  bool          // was unpacked, or is in the store already
	staged   *layer.Staged // nil when the store had it already
	diffID   digest.Digest
	raw      digest.Digest // of the file as it is in the archive
	kept     digest.Digest // the compressed layer in the blob store, where those are kept
	size     int64
	err      error // why it could not be unpacked: matters only if it is needed
}

var errAbsent = fault.New(fault.Invalid, "not in the archive")

// drop gives back what is not part of an image now.
func (a *incoming) drop() {
	for _, f := range a.files {
		if f.staged != nil {
			f.staged.Drop()
		}
	}
	a.hold.Release()
}

// stored reports whether a layer is in the store already. One that is only shown, as some manifest describes it, does not count.
func (a *incoming) stored(d digest.Digest) bool { return a.s != nil && a.s.layers.HasWhole(d) }

// read reads the archive to its end.
func (a *incoming) read(ctx context.Context, r io.Reader) error {
	tr := tarstream.NewReader(tarstream.FromReader(r), nil, tarstream.Limits{Entries: 1 << 20})
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return tr.Rest()
		}
		if err != nil {
			return fault.In(err, "read image archive")
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		name := path.Clean("/" + h.Name)[1:]
		switch h.Type {
		case tarstream.Regular:
			f, err := a.file(ctx, name, h, tr)
			if err != nil {
				return fault.In(err, "load %s", name)
			}
			a.put(name, f)
		case tarstream.Symlink:
			target := h.Linkname
			if !path.IsAbs(target) {
				target = path.Dir("/"+name) + "/" + target
			}
			a.put(name, &found{link: path.Clean(target)[1:]})
		case tarstream.HardLink:
			a.put(name, &found{link: path.Clean("/" + h.Linkname)[1:]})
		}
	}
}

// put notes a file; a later one of the same name replaces it.
func (a *incoming) put(name string, f *found) {
	if old := a.files[name]; old != nil {
		if old.staged != nil {
			old.staged.Drop()
		}
		a.docs -= int64(len(old.document))
	}
	a.files[name] = f
}

// file takes one regular file: a document into memory, a layer into the staging area, anything else not at all.
func (a *incoming) file(ctx context.Context, name string, h *tarstream.Header, tr *tarstream.Reader) (*found, error) {
	if h.IsSparse {
		return &found{err: fault.New(fault.Invalid, "%s is stored as a sparse file", name)}, nil
	}
	br := bufio.NewReaderSize(&payload{tr: tr, ctx: ctx}, 64<<10)
	head, err := br.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	f := &found{size: h.Size}
	switch {
	case compress.Detect(head) != compress.None || tarstream.IsHeader(head), h.Size == 0: // a layer of nothing at all is one, too
		return f, a.unpack(ctx, name, h, br, f)
	case looksJSON(head) && h.Size <= maxDocument:
		return f, a.keepDocument(h, br, f)
	}
	f.err = fault.New(fault.Invalid, "%s is neither a layer nor a document", name)
	return f, nil
}

func (a *incoming) keepDocument(h *tarstream.Header, r io.Reader, f *found) error {
	if a.docs += h.Size; a.docs > documentsMax {
		return fault.New(fault.Invalid, "the archive has more than %d bytes of documents", documentsMax)
	}
	b := make([]byte, h.Size)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	f.document = b
	f.raw = digest.FromBytes(b)
	f.err = fault.New(fault.Invalid, "a document, not a layer")
	return nil
}

// unpack stages a layer. Only an error that is not the archive's own fault ends the load here: what is no layer after
// all may not be needed.
func (a *incoming) unpack(ctx context.Context, name string, h *tarstream.Header, r io.Reader, f *found) error {
	f.isLayer = true
	named := blobDigest(name)
	if named != "" && a.hold.Layers(named) == nil { // uncompressed, and here: its bytes need not be looked at
		f.diffID, f.raw = named, named
		return nil
	}
	alg := digest.SHA256
	if named != "" {
		alg = named.Algorithm()
	}
	raw := compress.NewDigester(alg)
	defer raw.Close()
	if a.o.Progress != nil {
		r = &progressReader{r: r, tell: a.o.Progress, p: Progress{ID: layerName(name), Action: "Loading layer", Total: h.Size}}
	}
	br := bufio.NewReaderSize(r, 64<<10)
	head, _ := br.Peek(compress.MagicLen)
	var src io.Reader = br
	compressed := compress.Detect(head) != compress.None
	if compressed {
		src = io.TeeReader(br, raw)
	}
	var kept *blob.Writer
	if compressed && a.s.cfg.KeepBlobs {
		var err error
		if kept, err = a.s.blobs.Writer(ctx, blob.Want{}); err != nil {
			return err
		}
		defer kept.Abort()
		src = io.TeeReader(src, kept)
	}
	st, err := a.s.layers.StageFrom(ctx, src, "", a.input)
	if err == nil {
		_, err = io.Copy(io.Discard, src) // what follows the compressed data is part of the blob
		if err != nil {
			st.Drop()
		}
	}
	if err != nil {
		if fault.Is(err, fault.Invalid) || errors.Is(err, io.ErrUnexpectedEOF) {
			f.err = err
			return nil
		}
		return err
	}
	f.staged, f.diffID = st, st.DiffID
	f.raw = st.DiffID
	if compressed || alg != digest.SHA256 {
		f.raw = raw.Digest()
	}
	if kept == nil {
		return nil
	}
	if f.kept, err = kept.Commit(); err != nil {
		return err
	}
	return a.hold.AdoptBlob(f.kept)
}

// lookup finds a file by its path, following links inside the archive.
func (a *incoming) lookup(name string) *found {
	name = path.Clean("/" + name)[1:]
	for range linksMax {
		f := a.files[name]
		if f == nil || f.link == "" {
			return f
		}
		name = f.link
	}
	return nil
}

// layer finds a layer by its path.
func (a *incoming) layer(name string) (*found, error) {
	f := a.lookup(name)
	switch {
	case f == nil:
		return nil, errAbsent
	case f.isLayer && f.err == nil:
		return f, nil
	}
	return nil, f.err
}

// document finds a document by its path.
func (a *incoming) document(name string) ([]byte, error) {
	f := a.lookup(name)
	if f == nil || f.document == nil {
		return nil, fault.New(fault.Invalid, "invalid image archive: %s is not in it, or is no JSON", name)
	}
	return f.document, nil
}

// blobDigest reads the digest that a path of an OCI layout is named by; "" for other paths.
func blobDigest(name string) digest.Digest {
	rest, ok := strings.CutPrefix(name, "blobs/")
	if !ok {
		return ""
	}
	alg, hex, ok := strings.Cut(rest, "/")
	d := digest.Digest(alg + ":" + hex)
	if !ok || d.Validate() != nil || d.Algorithm() != digest.SHA256 && d.Algorithm() != digest.SHA512 {
		return ""
	}
	return d
}

// layerName is what progress calls a layer before its diff id is known.
func layerName(name string) string {
	base := path.Base(name)
	if base == "layer.tar" {
		base = path.Base(path.Dir(name))
	}
	base = strings.TrimSuffix(base, ".tar")
	return base[:min(12, len(base))]
}

func looksJSON(b []byte) bool {
	b = bytes.TrimLeft(b, " \t\r\n")
	return len(b) > 0 && (b[0] == '{' || b[0] == '[')
}

// payload reads an entry's bytes.
type payload struct {
	tr  *tarstream.Reader
	ctx context.Context // of the load: the reader lives no longer
}

func (p *payload) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	piece, err := p.tr.Payload(int64(len(b)))
	if err != nil {
		return 0, err
	}
	return copy(b, piece), nil
}

// progressReader tells about every half megabyte.
type progressReader struct {
	r    io.Reader
	tell func(Progress)
	p    Progress
	told int64
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.p.Current += int64(n)
	if p.p.Current-p.told >= 512<<10 || err != nil && p.told != p.p.Current {
		p.told = p.p.Current
		p.tell(p.p)
	}
	return n, err
}

package lazy

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// form is how a layer with a TOC is made.
type form string

const (
	eStargz     form = "estargz"      // gzip members; the TOC is the last file of the tar
	zstdChunked form = "zstd-chunked" // zstd frames; the TOC is in a skippable frame
)

// Bounds of what a TOC may make us read and keep.
const (
	tocMax   = 64 << 20 // bytes of the TOC, as JSON and compressed
	entryMax = 250_000
	nodeMax  = 2 * entryMax // with directories that have no entry
	chunkMax = 64 << 20     // bytes of a chunk with what lies before it in its stream
	tailSize = 256 << 10
)

// The annotations of zstd:chunked: those that c/storage writes today, and those of estargz's writer and of old versions.
var zstdPrefixes = []string{"io.github.containers.zstd-chunked.", "io.containers.zstd-chunked."}

// plan is what a layer's annotations say about its TOC.
type plan struct {
	json       digest.Digest // of the TOC's JSON; "": only compressed is known
	compressed digest.Digest // of the compressed TOC; "": only json is known
	offset     int64         // where the compressed TOC is, with length; length 0: the blob's end tells
	length     int64
}

// planOf reads a layer's annotations. NotImplemented: nothing vouches for a TOC, so the layer cannot be served lazily.
func planOf(d ocispec.Descriptor) (plan, error) {
	var p plan
	if strings.HasPrefix(d.Annotations[estargz.TOCJSONDigestAnnotation], "sha256:") {
		p.json = digest.Digest(d.Annotations[estargz.TOCJSONDigestAnnotation])
	}
	for _, prefix := range zstdPrefixes {
		if sum, where := d.Annotations[prefix+"manifest-checksum"], d.Annotations[prefix+"manifest-position"]; sum != "" && where != "" {
			p.compressed = digest.Digest(sum)
			if err := p.position(where, d.Size); err != nil {
				return p, err
			}
			break
		}
	}
	if p.json == "" && p.compressed == "" {
		return p, fault.New(fault.NotImplemented, "layer %s has no table of contents with a digest in its manifest", d.Digest)
	}
	for _, sum := range []digest.Digest{p.json, p.compressed} {
		if sum != "" && (sum.Validate() != nil || sum.Algorithm() != digest.SHA256) {
			return p, fault.New(fault.NotImplemented, "layer %s: no sha256 digest of a table of contents: %q", d.Digest, sum)
		}
	}
	return p, nil
}

// position reads OFFSET:LENGTH:UNCOMPRESSED:TYPE.
func (p *plan) position(text string, size int64) error {
	var n [4]int64
	parts := strings.Split(text, ":")
	for i := range n {
		var err error
		if i >= len(parts) {
			err = io.ErrUnexpectedEOF
		} else {
			n[i], err = strconv.ParseInt(parts[i], 10, 64)
		}
		if err != nil {
			return fault.New(fault.NotImplemented, "the position of the table of contents is no position: %.100q", text)
		}
	}
	if n[0] <= 0 || n[1] <= 0 || n[1] > tocMax || n[0] > size-n[1] || n[2] > tocMax || n[3] != 1 {
		return fault.New(fault.NotImplemented, "the table of contents cannot be at %.100q", text)
	}
	p.offset, p.length = n[0], n[1]
	return nil
}

// toc is a table of contents whose digest was compared.
type toc struct {
	form    form
	json    []byte
	offset  int64 // where the compressed TOC begins: content ends there at the latest
	entries []entry
}

// readTOC finds, reads and verifies a layer's TOC. get reads from the blob.
func readTOC(ctx context.Context, d ocispec.Descriptor, p plan, get func(ctx context.Context, offset, length int64) ([]byte, error)) (*toc, error) {
	t := &toc{form: zstdChunked, offset: p.offset}
	if p.length == 0 {
		tail, err := get(ctx, max(0, d.Size-tailSize), min(d.Size, tailSize))
		if err != nil {
			return nil, err
		}
		if t.form, t.offset, p.length = footer(tail, d.Size); t.form == "" {
			return nil, fault.New(fault.NotImplemented, "layer %s does not end in the footer of eStargz or zstd:chunked", d.Digest)
		}
		p.offset = t.offset
	}
	raw, err := get(ctx, p.offset, p.length)
	if err != nil {
		return nil, err
	}
	if p.compressed != "" && digest.FromBytes(raw) != p.compressed {
		return nil, fault.New(fault.Invalid, "layer %s: the table of contents has not the digest %s", d.Digest, p.compressed)
	}
	if t.json, err = expand(t.form, raw); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "layer %s: table of contents", d.Digest)
	}
	if p.json != "" && digest.FromBytes(t.json) != p.json {
		return nil, fault.New(fault.Invalid, "layer %s: the table of contents has not the digest %s", d.Digest, p.json)
	}
	return t, t.parse()
}

// footer reads the end of a blob of size bytes: which form it has, and where its TOC is; "" when it is none.
func footer(tail []byte, size int64) (f form, offset, length int64) {
	fits := func(offset, length int64) bool {
		return offset > 0 && length > 0 && length <= tocMax && offset <= size-length
	}
	for _, n := range []int{estargz.FooterSize, 47} { // 47: the older form, without the SG subfield
		if len(tail) < n {
			continue
		}
		z, err := gzip.NewReader(bytes.NewReader(tail[len(tail)-n:]))
		if err != nil {
			continue
		}
		hex, ok := strings.CutSuffix(string(z.Extra), "STARGZ")
		if len(hex) < 16 || !ok {
			continue
		}
		at, err := strconv.ParseInt(hex[len(hex)-16:], 16, 64)
		if end := size - int64(n); err == nil && fits(at, end-at) {
			return eStargz, at, end - at
		}
	}
	if len(tail) >= 40 {
		b := tail[len(tail)-40:]
		if m := string(b[32:]); m == "GnUlInUx" || m == "GNUlInUx" {
			at, n := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
			if at < 1<<62 && n < 1<<62 && fits(int64(at), int64(n)) {
				return zstdChunked, int64(at), int64(n)
			}
		}
	}
	return "", 0, 0
}

// expand undoes the compression of a TOC.
func expand(f form, raw []byte) ([]byte, error) {
	var src io.Reader
	if f == eStargz {
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil, err
		}
		z.Multistream(false)
		t := tar.NewReader(io.LimitReader(z, tocMax+1<<20))
		h, err := t.Next()
		if err != nil {
			return nil, err
		}
		if h.Name != estargz.TOCTarName {
			return nil, errors.New("its name is " + strconv.Quote(shorten(h.Name)))
		}
		src = t
	} else {
		z, err := zstd.NewReader(bytes.NewReader(raw), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*tocMax))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		src = z
	}
	b, err := io.ReadAll(io.LimitReader(src, tocMax+1))
	if err == nil && len(b) > tocMax {
		err = errors.New("larger than 64 MiB")
	}
	return b, err
}

// entry is one row of a TOC: a name, or a further chunk of the file before it. Both forms use these words.
type entry struct {
	Type        string            `json:"type"`
	Name        string            `json:"name"`
	LinkName    string            `json:"linkName"`
	Mode        int64             `json:"mode"`
	Size        int64             `json:"size"`
	UID         int64             `json:"uid"`
	GID         int64             `json:"gid"`
	ModTime     string            `json:"modtime"`
	DevMajor    int64             `json:"devMajor"`
	DevMinor    int64             `json:"devMinor"`
	Xattrs      map[string][]byte `json:"xattrs"`
	Digest      string            `json:"digest"`
	Offset      int64             `json:"offset"`
	EndOffset   int64             `json:"endOffset"` // zstd:chunked: of the whole file
	InnerOffset int64             `json:"innerOffset"`
	ChunkSize   int64             `json:"chunkSize"`
	ChunkOffset int64             `json:"chunkOffset"`
	ChunkDigest string            `json:"chunkDigest"`
	ChunkType   string            `json:"chunkType"`
}

// parse reads the JSON, row by row, so that what is refused for its size does not take memory first.
func (t *toc) parse() error {
	version := 0
	d := json.NewDecoder(bytes.NewReader(t.json))
	err := object(d, func(key string) error {
		switch key {
		case "version":
			return d.Decode(&version)
		case "entries":
			return t.rows(d)
		}
		var skipped json.RawMessage
		return d.Decode(&skipped)
	})
	if err == nil && version != 1 {
		err = fault.New(fault.NotImplemented, "version %d", version)
	}
	if err != nil && fault.KindOf(err) != fault.NotImplemented {
		err = fault.Wrap(fault.Invalid, err, "its JSON")
	}
	return fault.In(err, "table of contents")
}

// object reads a JSON object and calls f for each key, which reads the value.
func object(d *json.Decoder, f func(key string) error) error {
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return errors.Join(err, errors.New("no object"))
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := key.(string)
		if err := f(name); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

func (t *toc) rows(d *json.Decoder) error {
	if open, err := d.Token(); err != nil || open != json.Delim('[') {
		return errors.Join(err, errors.New("entries are no array"))
	}
	t.entries = nil
	for d.More() {
		if len(t.entries) == entryMax {
			return fault.New(fault.NotImplemented, "more than %d entries", entryMax)
		}
		var e entry
		if err := d.Decode(&e); err != nil {
			return err
		}
		t.entries = append(t.entries, e)
	}
	_, err := d.Token()
	return err
}

// shorten keeps a hostile name from filling a log.
func shorten(name string) string {
	if len(name) > 200 {
		return name[:200] + "…"
	}
	return name
}

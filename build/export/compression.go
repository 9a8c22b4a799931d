package export

import (
	"io"
	"strconv"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/image/archive/compress"
)

// Kinds of compression, in BuildKit's words.
const (
	uncompressed = "uncompressed"
	gzipped      = "gzip"
	zstandard    = "zstd"
	estargzip    = "estargz"
)

// Media types of layers in Docker's documents; OCI's are in image-spec.
const (
	dockerLayer     = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	dockerManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig    = "application/vnd.docker.container.image.v1+json"
)

// compression is how layers travel.
type compression struct {
	kind  string
	level int  // levelDefault: ours
	force bool // also layers that there are blobs of, compressed otherwise
	set   bool // somebody asked for it
}

// levelDefault is the level of berth's own compressor, whose bytes can be made again at any time.
const levelDefault = -1

// parseCompression takes compression, force-compression and compression-level out of attributes and gives the rest.
func parseCompression(attrs map[string]string) (compression, map[string]string, error) {
	c, rest := compression{kind: gzipped, level: levelDefault}, map[string]string{}
	var err error
	for k, v := range attrs {
		switch k {
		case "compression":
			switch v {
			case uncompressed, gzipped, zstandard, estargzip:
			default:
				return c, nil, fault.New(fault.Invalid, "unsupported compression type %s", v)
			}
			c.kind, c.set = v, true
		case "force-compression":
			if c.force, err = parseFlag(k, v); err != nil {
				return c, nil, err
			}
		case "compression-level":
			if c.level, err = strconv.Atoi(v); err != nil {
				return c, nil, fault.New(fault.Invalid, "non-integer value %s specified for %s", v, k)
			}
			c.set = true
		default:
			rest[k] = v
		}
	}
	if c.level < 0 || c.kind == uncompressed {
		c.level = levelDefault
	}
	// Beyond the ends BuildKit takes the nearest level too.
	c.level = min(c.level, map[string]int{gzipped: 9, estargzip: 9, zstandard: 22, uncompressed: levelDefault}[c.kind])
	return c, rest, nil
}

// ociOnly reports compressions whose readers know OCI's media types alone.
func (c compression) ociOnly() bool { return c.kind == estargzip }

// ours reports whether the store's own compressor makes the same bytes at any later time, so that nothing need be kept.
func (c compression) ours() bool { return c.level == levelDefault && c.kind != estargzip }

// key names the bytes that a layer becomes: what differs in it differs in digest.
func (c compression) key() string {
	if c.level == levelDefault {
		return c.kind
	}
	return c.kind + "-" + strconv.Itoa(c.level)
}

// mediaType is what a layer is called in a document.
func (c compression) mediaType(oci bool) string { return mediaTypeOf(c.kind, oci) }

func mediaTypeOf(kind string, oci bool) string {
	switch {
	case kind == uncompressed && oci:
		return ocispec.MediaTypeImageLayer
	case kind == uncompressed:
		return dockerLayer
	case kind == zstandard && oci:
		return ocispec.MediaTypeImageLayerZstd
	case kind == zstandard:
		return dockerLayerZstd
	case oci:
		return ocispec.MediaTypeImageLayerGzip
	}
	return dockerLayerGzip
}

// kindOf is the compression that a media type tells.
func kindOf(mediaType string) string {
	switch mediaType {
	case ocispec.MediaTypeImageLayer, dockerLayer:
		return uncompressed
	case ocispec.MediaTypeImageLayerZstd, dockerLayerZstd:
		return zstandard
	}
	return gzipped
}

// newWriter compresses to w. The caller closes it; w stays its own.
func (c compression) newWriter(w io.Writer) (io.WriteCloser, error) {
	switch {
	case c.kind == uncompressed:
		return compress.NewWriter(w, compress.None)
	case c.kind == zstandard && c.level == levelDefault:
		return compress.NewWriter(w, compress.Zstd)
	case c.kind == zstandard:
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(c.level)), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	case c.level == levelDefault:
		return compress.NewWriter(w, compress.Gzip)
	}
	return gzip.NewWriterLevel(w, c.level) // no name, no time: the bytes depend on the layer alone
}

package script

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/google/go-containerregistry/pkg/name"
	oracle "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"berth/test/live"
)

// lazyRegistryMain is the program `lazyregistry ADDRESS DIR`: a registry in the background with box as the images estargz, zstd and
// plain, each with 24 more files of a megabyte in /data. It gives out blobs at 4 MB/s, at a tenth of that while DIR/slow is there, and nothing
// more while DIR/stall is there. It is ready when DIR/ready is there, and ends when DIR/stop is there, with DIR, or after half an hour.
func lazyRegistryMain() {
	address, dir := os.Args[1], os.Args[2]
	if len(os.Args) == 3 { // again, in the background
		cmd := exec.Command(os.Args[0], address, dir, "serve")
		if err := cmd.Start(); err != nil {
			fail("lazyregistry: %v", err)
		}
		return
	}
	if err := serveLazy(address, dir); err != nil {
		os.WriteFile(filepath.Join(dir, "failed"), []byte(err.Error()), 0o644)
		fail("lazyregistry: %v", err)
	}
}

func serveLazy(address, dir string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	slow := &slowRegistry{Handler: oracle.New(oracle.Logger(log.New(io.Discard, "", 0))), stall: filepath.Join(dir, "stall"), slow: filepath.Join(dir, "slow")}
	go http.Serve(l, slow)
	for _, form := range []string{"estargz", "zstd", "plain"} {
		image, err := lazyImage(form)
		if err != nil {
			return err
		}
		ref, err := name.ParseReference(address+"/"+form+":1", name.Insecure)
		if err != nil {
			return err
		}
		if err := remote.Write(ref, image); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "ready"), nil, 0o644); err != nil {
		return err
	}
	for range 9000 {
		if _, err := os.Stat(filepath.Join(dir, "stop")); err == nil {
			return nil
		}
		if _, err := os.Stat(filepath.Join(dir, "ready")); err != nil {
			return nil // the script has ended, and its directory is gone
		}
		time.Sleep(200 * time.Millisecond)
	}
	return nil
}

// slowRegistry gives blobs out slowly.
type slowRegistry struct {
	http.Handler
	stall, slow string // files
}

func (s *slowRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
		w = slowWriter{w, s}
	}
	s.Handler.ServeHTTP(w, r)
}

type slowWriter struct {
	http.ResponseWriter
	of *slowRegistry
}

func (w slowWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		for _, err := os.Stat(w.of.stall); err == nil; _, err = os.Stat(w.of.stall) {
			time.Sleep(20 * time.Millisecond)
		}
		var m int
		m, err = w.ResponseWriter.Write(b[:min(len(b), 32<<10)])
		pause := time.Duration(m) * time.Second / 4_000_000
		if _, err := os.Stat(w.of.slow); err == nil {
			pause *= 10
		}
		time.Sleep(pause)
		n, b = n+m, b[m:]
	}
	return n, err
}

// lazyImage makes an image of one layer: the data first, the programs last.
func lazyImage(form string) (v1.Image, error) {
	raw, err := lazyTar(form)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	annotations := map[string]string{}
	l := &lazyLayer{media: types.OCILayer}
	w := estargz.NewWriterLevel(&out, 1)
	if form == "zstd" {
		l.media = types.OCILayerZStd
		w = estargz.NewWriterWithCompressor(&out, &zstdchunked.Compressor{CompressionLevel: zstd.SpeedFastest, Metadata: annotations})
	}
	if err := w.AppendTar(bytes.NewReader(raw)); err != nil {
		return nil, err
	}
	toc, err := w.Close()
	if err != nil {
		return nil, err
	}
	switch l.blob, l.diffID = out.Bytes(), w.DiffID(); form {
	case "estargz":
		annotations[estargz.TOCJSONDigestAnnotation] = toc.String()
	case "plain":
		annotations = nil
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{Layer: l, Annotations: annotations, MediaType: l.media})
	if err != nil {
		return nil, err
	}
	c, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Config.Cmd, c.Config.Env = "linux", "amd64", []string{"sh"}, []string{"PATH=/bin"}
	return mutate.ConfigFile(image, c)
}

func lazyTar(form string) ([]byte, error) {
	box, err := live.BoxTar()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range 24 {
		line := fmt.Sprintf("%s %d\n", form, i)
		body := noiseOf(line)
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("data/f%02d", i), Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg}); err != nil {
			return nil, err
		}
		if _, err := w.Write(body); err != nil {
			return nil, err
		}
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	return append(b.Bytes(), box...), nil
}

// noiseOf gives a megabyte that does not compress and begins with the line.
func noiseOf(line string) []byte {
	b := make([]byte, 1<<20)
	x := uint64(len(line)) + uint64(line[len(line)-2])<<8 + uint64(line[0])<<16
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 24)
	}
	copy(b, line)
	return b
}

// lazyLayer is a compressed layer as the library wants it.
type lazyLayer struct {
	blob   []byte
	diffID string
	media  types.MediaType
}

func (l *lazyLayer) Digest() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(l.blob))
	return h, err
}
func (l *lazyLayer) DiffID() (v1.Hash, error) { return v1.NewHash(l.diffID) }
func (l *lazyLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.blob)), nil
}
func (l *lazyLayer) Uncompressed() (io.ReadCloser, error) { return nil, io.EOF }
func (l *lazyLayer) Size() (int64, error)                 { return int64(len(l.blob)), nil }
func (l *lazyLayer) MediaType() (types.MediaType, error)  { return l.media, nil }

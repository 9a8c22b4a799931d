package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The image that is moved: as large as a usual application with its run-time.
const (
	sampleLayers = 20
	sampleFiles  = 300      // of one layer
	sampleLayer  = 25 << 20 // bytes of one layer's files
)

// cargo is an image in a directory: a blob store, and an archive as docker save writes it.
type cargo struct {
	dir      string
	seed     int
	manifest []byte
	config   ocispec.Descriptor
	layers   []ocispec.Descriptor
	packed   int64 // bytes of the compressed layers
	unpacked int64 // bytes of the tars
}

// makeSample makes the image in a new directory. It is the same each time; other seeds give images that share nothing.
func makeSample(dir string, seed int) (*cargo, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s := &cargo{dir: dir, seed: seed, layers: make([]ocispec.Descriptor, sampleLayers)}
	diffIDs := make([]digest.Digest, sampleLayers)
	sizes := make([]int64, sampleLayers)
	errs := make([]error, sampleLayers)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 2)
	for i := range sampleLayers {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			s.layers[i], diffIDs[i], sizes[i], errs[i] = s.makeLayer(i)
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, err
		}
		s.packed += s.layers[i].Size
		s.unpacked += sizes[i]
	}
	config, err := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"sh"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
	if err != nil {
		return nil, err
	}
	s.config = ocispec.Descriptor{MediaType: "application/vnd.docker.container.image.v1+json", Digest: digest.FromBytes(config), Size: int64(len(config))}
	if err := os.WriteFile(s.blob(s.config.Digest), config, 0o644); err != nil {
		return nil, err
	}
	m := map[string]any{"schemaVersion": 2, "mediaType": dockerManifest, "config": s.config, "layers": s.layers}
	if s.manifest, err = json.Marshal(m); err != nil {
		return nil, err
	}
	return s, s.makeArchive(diffIDs, sizes)
}

const dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"

// loadedName is the image's name in the archive.
func (s *cargo) loadedName() string { return fmt.Sprintf("berth-bench-loaded:%d", s.seed) }

// tag is the image's tag at the registry.
func (s *cargo) tag() string { return fmt.Sprint(s.seed) }

func (s *cargo) blob(d digest.Digest) string { return filepath.Join(s.dir, d.Encoded()) }
func (s *cargo) archive() string             { return filepath.Join(s.dir, "image.tar") }
func (s *cargo) tar(i int) string            { return filepath.Join(s.dir, fmt.Sprintf("layer-%d.tar", i)) }

// makeLayer writes one layer, compressed and not.
func (s *cargo) makeLayer(i int) (d ocispec.Descriptor, diffID digest.Digest, size int64, err error) {
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, 6)
	if err != nil {
		return d, "", 0, err
	}
	plain, err := os.Create(s.tar(i))
	if err != nil {
		return d, "", 0, err
	}
	defer plain.Close()
	v := digest.SHA256.Digester()
	count := &countingWriter{w: io.MultiWriter(z, v.Hash(), plain)}
	if err := writeLayer(count, s.seed*sampleLayers+i); err != nil {
		return d, "", 0, err
	}
	if err := z.Close(); err != nil {
		return d, "", 0, err
	}
	d = ocispec.Descriptor{MediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip", Digest: digest.FromBytes(packed.Bytes()), Size: int64(packed.Len())}
	return d, v.Digest(), count.n, os.WriteFile(s.blob(d.Digest), packed.Bytes(), 0o644)
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// writeLayer makes files of the sizes that programs, libraries and data have: many small ones and a few that are large.
func writeLayer(w io.Writer, layer int) error {
	r := rand.New(rand.NewPCG(uint64(layer), 7))
	tw := tar.NewWriter(w)
	weights, sum := make([]float64, sampleFiles), 0.0
	for i := range weights {
		f := r.Float64()
		weights[i] = 0.02 + f*f*f*f*f*f
		sum += weights[i]
	}
	at := time.Unix(1700000000, 0)
	for i := range sampleFiles {
		if i%20 == 0 {
			h := &tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("usr/lib/part%d/dir%d/", layer, i/20), Mode: 0o755, ModTime: at}
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
		}
		b := content(r, int(weights[i]/sum*sampleLayer))
		h := &tar.Header{Name: fmt.Sprintf("usr/lib/part%d/dir%d/file%d.so", layer, i/20, i), Mode: 0o644, Size: int64(len(b)), ModTime: at}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(b); err != nil {
			return err
		}
	}
	return tw.Close()
}

// content is n bytes that gzip makes two and a half times smaller: noise between repetitions of what came shortly before.
func content(r *rand.Rand, n int) []byte {
	b := make([]byte, 0, n+64)
	for len(b) < n {
		if len(b) < 64 || r.IntN(100) < 39 {
			for range 8 + r.IntN(16) {
				b = append(b, byte(r.Uint32()))
			}
			continue
		}
		back := 8 + r.IntN(min(len(b)-8, 8000))
		run := 12 + r.IntN(24)
		for range run {
			b = append(b, b[len(b)-back])
		}
	}
	return b[:n]
}

// makeArchive writes what docker save wrote before version 25.
func (s *cargo) makeArchive(diffIDs []digest.Digest, sizes []int64) error {
	f, err := os.Create(s.archive())
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	var layers []string
	for i := range diffIDs {
		name := diffIDs[i].Encoded() + "/layer.tar"
		layers = append(layers, name)
		if err := addFile(w, name, s.tar(i), sizes[i]); err != nil {
			return err
		}
	}
	config := s.config.Digest.Encoded() + ".json"
	if err := addFile(w, config, s.blob(s.config.Digest), s.config.Size); err != nil {
		return err
	}
	list, err := json.Marshal([]map[string]any{{"Config": config, "RepoTags": []string{s.loadedName()}, "Layers": layers}})
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: "manifest.json", Mode: 0o644, Size: int64(len(list))}); err != nil {
		return err
	}
	if _, err := w.Write(list); err != nil {
		return err
	}
	for i := range diffIDs {
		if err := os.Remove(s.tar(i)); err != nil {
			return err
		}
	}
	return w.Close()
}

func addFile(w *tar.Writer, name, path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

// upload gives the image to a registry, by plain requests.
func (s *cargo) upload(c *http.Client, registry, repo, tag string) error {
	base := "http://" + registry + "/v2/" + repo
	for _, d := range append([]ocispec.Descriptor{s.config}, s.layers...) {
		resp, err := c.Post(base+"/blobs/uploads/", "", nil)
		if err != nil {
			return err
		}
		resp.Body.Close()
		loc, err := resp.Location()
		if err != nil {
			return fmt.Errorf("upload to %s: %s", base, resp.Status)
		}
		q := loc.Query()
		q.Set("digest", string(d.Digest))
		loc.RawQuery = q.Encode()
		f, err := os.Open(s.blob(d.Digest))
		if err != nil {
			return err
		}
		if err := put(c, loc.String(), "application/octet-stream", f, d.Size); err != nil {
			return err
		}
	}
	return put(c, base+"/manifests/"+tag, dockerManifest, io.NopCloser(bytes.NewReader(s.manifest)), int64(len(s.manifest)))
}

func put(c *http.Client, url, contentType string, body io.ReadCloser, size int64) error {
	defer body.Close()
	req, err := http.NewRequest(http.MethodPut, url, body)
	if err != nil {
		return err
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", contentType)
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 500)) // only for the message
		return fmt.Errorf("PUT %s: %s %s", url, resp.Status, strings.TrimSpace(string(b)))
	}
	return nil
}

package transfer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image"
	"berth/image/archive"
)

// swap makes the registry send other bytes for a blob.
func (g *registry) swap(d digest.Digest, b []byte, length int) {
	g.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || digestOf(r) != string(d) {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(length))
		w.Write(b)
		return true
	})
}

// forge puts an image whose manifest is changed before it is stored.
func (g *registry) forge(tag string, s sample, change func(m *ocispec.Manifest, c *image.Document)) {
	var m ocispec.Manifest
	var c image.Document
	json.Unmarshal(s.manifest, &m)
	json.Unmarshal(s.config, &c)
	change(&m, &c)
	raw, _ := json.Marshal(c)
	if d := digest.FromBytes(raw); d != s.id {
		m.Config.Digest, m.Config.Size = g.putBlob("x", raw), int64(len(raw))
	}
	raw, _ = json.Marshal(m)
	g.put("x", tag, m.MediaType, raw)
}

func TestLyingRegistriesAndImages(t *testing.T) {
	type world struct {
		g *registry
		s sample
	}
	for _, c := range []struct {
		name string
		lie  func(w world)
		want string // in the error
		kind fault.Kind
	}{
		{name: "other bytes of the same length", kind: fault.Invalid, want: "filesystem layer verification failed for digest", lie: func(w world) {
			b := bytes.Clone(w.g.blobs["x@"+string(w.s.blobs[1].Digest)])
			b[len(b)/2] ^= 1
			w.g.swap(w.s.blobs[1].Digest, b, len(b))
		}},
		{name: "another good layer of the same length", kind: fault.Invalid, want: "filesystem layer verification failed for digest", lie: func(w world) {
			b := layerTar(w.g.t, "X")
			w.g.swap(w.s.blobs[2].Digest, b, len(b))
		}},
		{name: "shorter than announced", kind: fault.Invalid, want: "the server has", lie: func(w world) {
			b := w.g.blobs["x@"+string(w.s.blobs[1].Digest)]
			w.g.swap(w.s.blobs[1].Digest, b[:len(b)-10], len(b)-10)
		}},
		{name: "longer than announced", kind: fault.Invalid, want: "the server has", lie: func(w world) {
			b := append(bytes.Clone(w.g.blobs["x@"+string(w.s.blobs[1].Digest)]), 0)
			w.g.swap(w.s.blobs[1].Digest, b, len(b))
		}},
		{name: "cut off, and then gone", kind: fault.NotFound, want: "blob unknown", lie: func(w world) {
			d := w.s.blobs[1].Digest
			b := w.g.blobs["x@"+string(d)]
			delete(w.g.blobs, "x@"+string(d))
			asked := false
			w.g.answer(func(rw http.ResponseWriter, r *http.Request) bool {
				if asked || digestOf(r) != string(d) {
					return false
				}
				asked = true
				rw.Header().Set("Content-Length", fmt.Sprint(len(b)))
				rw.Write(b[:len(b)/2])
				rw.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			})
		}},
		{name: "manifest announces another size", kind: fault.Invalid, want: "the server has", lie: func(w world) {
			w.g.forge("1", w.s, func(m *ocispec.Manifest, _ *image.Document) { m.Layers[0].Size++ })
		}},
		{name: "configuration names another diff id", kind: fault.Invalid, want: "was announced", lie: func(w world) {
			w.g.forge("1", w.s, func(_ *ocispec.Manifest, c *image.Document) { c.RootFS.DiffIDs[0] = digest.FromString("x") })
		}},
		{name: "configuration with fewer layers", kind: fault.Invalid, want: "layers from manifest don't match image configuration", lie: func(w world) {
			w.g.forge("1", w.s, func(_ *ocispec.Manifest, c *image.Document) { c.RootFS.DiffIDs = c.RootFS.DiffIDs[1:] })
		}},
		{name: "configuration is another one", kind: fault.Invalid, want: "error pulling image configuration", lie: func(w world) {
			b := bytes.Replace(w.s.config, []byte(`"sh"`), []byte(`"zh"`), 1)
			w.g.swap(w.s.id, b, len(b))
		}},
		{name: "layer is missing", kind: fault.NotFound, want: "blob unknown", lie: func(w world) {
			delete(w.g.blobs, "x@"+string(w.s.blobs[1].Digest))
		}},
		{name: "too many layers", kind: fault.Invalid, want: "max depth exceeded", lie: func(w world) {
			w.g.forge("1", w.s, func(m *ocispec.Manifest, c *image.Document) {
				for range 126 {
					m.Layers, c.RootFS.DiffIDs = append(m.Layers, m.Layers[0]), append(c.RootFS.DiffIDs, c.RootFS.DiffIDs[0])
				}
			})
		}},
		{name: "digest that is a path", kind: fault.Invalid, want: "names", lie: func(w world) {
			w.g.forge("1", w.s, func(m *ocispec.Manifest, _ *image.Document) { m.Layers[0].Digest = "sha256:../../../../etc/passwd" })
		}},
		{name: "for Windows", kind: fault.Invalid, want: "cannot be used on this platform", lie: func(w world) {
			w.g.forge("1", w.s, func(_ *ocispec.Manifest, c *image.Document) { c.OS = "windows" })
		}},
		{name: "layer of another kind", kind: fault.Invalid, want: "unsupported layer media type", lie: func(w world) {
			w.g.forge("1", w.s, func(m *ocispec.Manifest, _ *image.Document) { m.Layers[0].MediaType = "application/vnd.in-toto+json" })
		}},
		{name: "schema 1", kind: fault.Invalid, want: "schema 1 support has been removed. Suggest the author of ", lie: func(w world) {
			w.g.put("x", "1", typeSchema1Signed, []byte(`{"schemaVersion":1,"name":"x","tag":"1","fsLayers":[]}`))
		}},
		{name: "manifest and index at once", kind: fault.Invalid, want: "ambiguous", lie: func(w world) {
			b := bytes.Replace(w.s.manifest, []byte(`{`), []byte(`{"manifests":[],`), 1)
			w.g.put("x", "1", ocispec.MediaTypeImageManifest, b)
		}},
		{name: "plugin", kind: fault.Invalid, want: `Encountered remote "application/vnd.docker.plugin.v1+json"(plugin) when fetching`, lie: func(w world) {
			w.g.forge("1", w.s, func(m *ocispec.Manifest, _ *image.Document) { m.Config.MediaType = typeDockerPlugin })
		}},
		{name: "index in itself many times", kind: fault.Invalid, want: "indexes", lie: func(w world) {
			d := w.g.index("x", "", w.s.descriptor(&ocispec.Platform{OS: "plan9", Architecture: "mips"}))
			for i := range 12 {
				more := w.s.descriptor(&ocispec.Platform{OS: "plan9", Architecture: fmt.Sprint(i)})
				more.Digest = digest.FromString(fmt.Sprint(i))
				d = w.g.index("x", "", d, more)
			}
			w.g.index("x", "1", d)
		}},
		{name: "zip bomb", kind: fault.Invalid, want: "unpacks to more than the limit", lie: func(w world) {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			tw := tar.NewWriter(z)
			tw.WriteHeader(&tar.Header{Name: "zeros", Size: 1 << 30, Mode: 0o644})
			io.CopyN(tw, zeros{}, 1<<30)
			tw.Close()
			z.Close()
			d := w.g.putBlob("x", b.Bytes())
			w.g.forge("1", w.s, func(m *ocispec.Manifest, _ *image.Document) { m.Layers[1].Digest, m.Layers[1].Size = d, int64(b.Len()) })
		}},
		{name: "no tar at all", kind: fault.Invalid, want: "layer sha256:", lie: func(w world) {
			b := gz(bytes.Repeat([]byte("no tar "), 1000))
			d := w.g.putBlob("x", b)
			w.g.forge("1", w.s, func(m *ocispec.Manifest, _ *image.Document) { m.Layers[1].Digest, m.Layers[1].Size = d, int64(len(b)) })
		}},
		{name: "path out of the root", kind: fault.Invalid, want: "leads out of the root", lie: func(w world) {
			var b bytes.Buffer
			tw := tar.NewWriter(&b)
			tw.WriteHeader(&tar.Header{Name: "../../../../etc/cron.d/x", Size: 1, Mode: 0o644})
			tw.Write([]byte("x"))
			tw.Close()
			d := w.g.putBlob("x", b.Bytes())
			w.g.forge("1", w.s, func(m *ocispec.Manifest, c *image.Document) {
				m.Layers[1] = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(b.Len())}
				c.RootFS.DiffIDs[1] = d
			})
		}},
	} {
		for _, keep := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, blobs kept %t", c.name, keep), func(t *testing.T) {
				g := newRegistry(t)
				// Layers that unpack to more than a megabyte are refused.
				e := newEngineWith(t, image.Config{Limits: archive.Limits{Bytes: 1 << 20}}, func(c *Config) { c.KeepBlobs = keep })
				s := g.build("x", "1", ocispec.Platform{}, []string{"gzip", "zstd", "tar"}, "a", "b", "c")
				c.lie(world{g, s})
				_, lines, err := e.pull(g.host()+"/x:1", nil)
				if err == nil || !strings.Contains(err.Error(), c.want) || !fault.Is(err, c.kind) {
					t.Errorf("error %v (%v), want %q (%v)", err, fault.KindOf(err), c.want, c.kind)
				}
				for _, l := range lines {
					if strings.HasPrefix(l, "Status:") || strings.Contains(l, "Pull complete") {
						t.Errorf("the client was told %q", l)
					}
				}
				if got := e.rooms(); got != "layers 0 staged 0 blobs 0 half 0 trash 0" {
					t.Errorf("left behind: %s", got)
				}
				if _, err := e.images.Resolve(g.host() + "/x:1"); !fault.Is(err, fault.NotFound) {
					t.Errorf("there is a name: %v", err)
				}
				if len(e.flights) != 0 {
					t.Error("there are flights left")
				}
				g.answer(nil)
				g.build("x", "1", ocispec.Platform{}, []string{"gzip", "zstd", "tar"}, "a", "b", "c")
				e.mustPull(g.host() + "/x:1")
				e.has(g.host()+"/x:1", "a", "b", "c")
			})
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func gz(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

// A connection that breaks costs nothing but time.
func TestPullGoesOnAfterABreak(t *testing.T) {
	t.Parallel() // the client waits a little before it goes on
	g := newRegistry(t)
	e := newEngine(t, nil)
	s := g.build("x", "1", ocispec.Platform{}, nil, "a", "b")
	broken := 0
	g.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if digestOf(r) != string(s.blobs[1].Digest) || broken >= 3 {
			return false
		}
		broken++
		g.mu.Lock()
		b := g.blobs["x@"+digestOf(r)]
		g.mu.Unlock()
		from := 0
		if h := r.Header.Get("Range"); h != "" {
			fmt.Sscanf(h, "bytes=%d-", &from)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b)-1, len(b)))
			w.WriteHeader(http.StatusPartialContent)
		} else {
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		}
		w.Write(b[from : from+5000])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	e.mustPull(g.host() + "/x:1")
	e.has(g.host()+"/x:1", "a", "b")
	if broken != 3 {
		t.Errorf("%d breaks", broken)
	}
}

func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"a","digest":"sha256:x","size":1},"layers":[]}`), ocispec.MediaTypeImageManifest)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:e57bb642ba1f97ae2aabe83076f384df04a8944d4c0597297ad0df83ce4ab8e4","size":-1}]}`), "")
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[]}`), "text/plain")
	f.Fuzz(func(t *testing.T, raw []byte, mediaType string) {
		doc, err := parseDocument(ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, raw, ref.Ref{})
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%v is %v", err, fault.KindOf(err))
			}
			return
		}
		if (doc.Config == nil) == (doc.Manifests == nil) {
			t.Error("neither a manifest nor an index, or both")
		}
		list := append(doc.Layers, doc.Manifests...)
		if doc.Config != nil {
			list = append(list, *doc.Config)
		}
		for _, d := range list {
			if d.Digest.Validate() != nil || d.Size < 0 {
				t.Errorf("descriptor %+v", d)
			}
		}
	})
}

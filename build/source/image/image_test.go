package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	bksession "github.com/moby/buildkit/session"
	bkauth "github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"

	"berth/base/fault"
	"berth/base/ref"
	"berth/build/graph"
	"berth/build/progress"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/image"
	"berth/image/remote"
	"berth/image/transfer"
	"berth/kernel/tree"
)

// world is an engine's images, with a registry beside it.
type world struct {
	*Images
	t        *testing.T
	store    *image.Store
	sessions *session.Manager
	registry *registry
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: owners and trusted attributes of layers")
	}
	store, err := image.Open(image.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	client, err := remote.New(remote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	snapshots, err := snapshot.Open(snapshot.Config{Layers: store.Layers(), Root: filepath.Join(t.TempDir(), "s")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = snapshots.Close() })
	sessions := session.NewManager(nil)
	t.Cleanup(func() { _ = sessions.Close() })
	w := &world{t: t, store: store, sessions: sessions, registry: newRegistry(t)}
	w.Images = New(Config{Images: store, Transfer: transfer.New(transfer.Config{Images: store, Remote: client}), Snapshots: snapshots, Sessions: sessions})
	return w
}

func (w *world) pin(name string, platform ocispec.Platform, attrs map[string]string, group session.Group) (solver.Pinned, error) {
	w.t.Helper()
	v := &graph.Vertex{Op: &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: Scheme + name, Attrs: attrs}}}, Platform: platform}
	src, err := w.Source(v)
	if err != nil {
		return solver.Pinned{}, err
	}
	return src.Pin(w.t.Context(), &solver.Run{Vertex: v, Sessions: group, Manager: w.sessions, Progress: progress.Discard})
}

// files reads all files of what was pinned.
func (w *world) files(p solver.Pinned) string {
	w.t.Helper()
	snap, err := p.Snapshot(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer snap.Release()
	if err := snap.Ready(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	var names []string
	err = snap.View(w.t.Context(), func(root *tree.Dir) error {
		names, err = root.Names()
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

var (
	amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = ocispec.Platform{OS: "linux", Architecture: "arm64"}
)

func TestRemoteImageIsLazy(t *testing.T) {
	w := newWorld(t)
	root := w.registry.put("team/app", "1", map[string][]string{"amd64": {"base", "top"}, "arm64": {"base", "other"}})
	name := w.registry.host() + "/team/app:1"
	p, err := w.pin(name, amd64, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.Pin != string(root) || p.Material.Digest != root || p.Material.Kind != "docker-image" {
		t.Errorf("pinned %+v, want %s", p, root)
	}
	snap, err := p.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if id, err := snap.Identity(t.Context()); err != nil || id == "" {
		t.Errorf("identity %q %v", id, err)
	}
	if n := w.registry.asked("blobs"); n != 1 {
		t.Errorf("%d blobs were fetched for a name, want the configuration alone: %v", n, w.registry.log())
	}
	snap.Release()
	if got := w.files(p); got != "base top" {
		t.Errorf("files: %s", got)
	}
	other, err := w.pin(name, arm64, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.files(other); got != "base other" {
		t.Errorf("files for arm64: %s", got)
	}
	if list, _ := w.store.List(t.Context(), image.ListOptions{All: true}); len(list) != 0 {
		t.Errorf("FROM left images: %v", list)
	}
	if n := w.registry.asked("blobs"); n > 6 {
		t.Errorf("%d blobs were fetched, a layer more than once: %v", n, w.registry.log())
	}
	if _, err := w.pin(name, ocispec.Platform{OS: "linux", Architecture: "s390x"}, nil, nil); err == nil || !strings.Contains(err.Error(), "no match") {
		t.Errorf("for a platform that is not there: %v", err)
	}
}

func TestLayerLimitAndChecksum(t *testing.T) {
	w := newWorld(t)
	root := w.registry.put("team/app", "1", map[string][]string{"amd64": {"base", "top"}})
	name := w.registry.host() + "/team/app:1"
	p, err := w.pin(name, amd64, map[string]string{pb.AttrImageLayerLimit: "1", pb.AttrImageChecksum: string(root)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.files(p); got != "base" {
		t.Errorf("files: %s", got)
	}
	if _, err := w.pin(name, amd64, map[string]string{pb.AttrImageChecksum: string(digest.FromString("x"))}, nil); err == nil || !strings.Contains(err.Error(), "does not match expected checksum") {
		t.Errorf("another checksum: %v", err)
	}
	for _, bad := range []map[string]string{{pb.AttrImageLayerLimit: "0"}, {pb.AttrImageResolveMode: "never"}, {pb.AttrImageChecksum: "x"}} {
		if _, err := w.pin(name, amd64, bad, nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// TestLocalWins: what is here is taken, unless somebody asks for a pull; what is here for another platform is not.
func TestLocalWins(t *testing.T) {
	w := newWorld(t)
	w.registry.put("team/app", "1", map[string][]string{"amd64": {"remote"}, "arm64": {"remote-arm"}})
	name := w.registry.host() + "/team/app:1"
	id, err := w.store.Import(t.Context(), bytes.NewReader(layerOf("local")), image.ImportOptions{Ref: name, Platform: "linux/amd64"})
	if err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string]string{"": "local", "default": "local", "local": "local", "pull": "remote"} {
		p, err := w.pin(name, amd64, map[string]string{pb.AttrImageResolveMode: mode}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.files(p); got != want {
			t.Errorf("mode %q: %s, want %s", mode, got, want)
		}
	}
	p, err := w.pin(name, arm64, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.files(p); got != "remote-arm" {
		t.Errorf("for arm64: %s", got)
	}
	meta, err := w.ResolveSourceMetadata(t.Context(), &pb.SourceOp{Identifier: Scheme + name}, sourceresolver.Opt{ImageOpt: &sourceresolver.ResolveImageOpt{Platform: &amd64}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if digest.FromBytes(meta.Image.Config) != digest.Digest(id) || meta.Image.Digest != "" {
		t.Errorf("metadata of the local image: %s %s", digest.FromBytes(meta.Image.Config), meta.Image.Digest)
	}
}

// TestPulledImageByDigest: what a frontend pins by digest is found here, without the registry.
func TestPulledImageByDigest(t *testing.T) {
	w := newWorld(t)
	root := w.registry.put("team/app", "1", map[string][]string{"amd64": {"base"}})
	name := w.registry.host() + "/team/app"
	if _, err := w.cfg.Transfer.Pull(t.Context(), transfer.PullRequest{Name: mustName(t, name+":1"), Platform: &image.Platform{OS: "linux", Architecture: "amd64"}}); err != nil {
		t.Fatal(err)
	}
	w.registry.Close()
	meta, err := w.ResolveSourceMetadata(t.Context(), &pb.SourceOp{Identifier: Scheme + name + ":1"}, sourceresolver.Opt{ImageOpt: &sourceresolver.ResolveImageOpt{Platform: &amd64}}, nil)
	if err != nil || meta.Image.Digest != root {
		t.Fatalf("metadata %+v %v", meta, err)
	}
	for _, text := range []string{name + "@" + string(root), name + ":1@" + string(root)} {
		p, err := w.pin(text, amd64, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := w.files(p); got != "base" {
			t.Errorf("%s: %s", text, got)
		}
	}
}

// TestDigestOfAnotherRepository: who knows a digest does not get what others have pulled from elsewhere.
func TestDigestOfAnotherRepository(t *testing.T) {
	w := newWorld(t)
	root := w.registry.put("team/app", "1", map[string][]string{"amd64": {"base"}})
	name := w.registry.host() + "/team/app"
	if _, err := w.cfg.Transfer.Pull(t.Context(), transfer.PullRequest{Name: mustName(t, name+":1"), Platform: &image.Platform{OS: "linux", Architecture: "amd64"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.pin(w.registry.host()+"/other/app@"+string(root), amd64, nil, nil); err == nil {
		t.Error("the image was given under another name")
	}
}

// TestPrivateImage: the client's credentials open its registry, for its own session only.
func TestPrivateImage(t *testing.T) {
	w := newWorld(t)
	w.registry.put("team/app", "1", map[string][]string{"amd64": {"secret"}})
	w.registry.password = "open sesame"
	name := w.registry.host() + "/team/app:1"
	if _, err := w.pin(name, amd64, nil, nil); err == nil {
		t.Fatal("a private image was given to anybody")
	}
	knows, end, err := w.sessions.Local(t.Context(), "k", &keys{user: "me", password: "open sesame"})
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	p, err := w.pin(name, amd64, nil, session.NewGroup(knows))
	if err != nil {
		t.Fatal(err)
	}
	stranger, end2, err := w.sessions.Local(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer end2()
	if _, err := w.pin(name, amd64, nil, session.NewGroup(stranger)); err == nil {
		t.Error("what one session resolved was given to another without credentials")
	}
	if got := w.files(p); got != "secret" {
		t.Errorf("files: %s", got)
	}
}

// TestLayerThatIsNotWhatItClaims: a blob that is not the layer that the configuration names is never built on: not when the named one is
// here, and has not to be fetched, nor when it is not.
func TestLayerThatIsNotWhatItClaims(t *testing.T) {
	w := newWorld(t)
	w.registry.put("team/app", "good", map[string][]string{"amd64": {"good"}})
	w.registry.put("team/app", "evil", map[string][]string{"amd64": {"evil"}})
	m, good := w.registry.manifest(t, "team/app", "evil"), w.registry.manifest(t, "team/app", "good")
	m.Config = good.Config
	w.registry.mu.Lock()
	raw, _ := json.Marshal(m)
	w.registry.manifests["team/app@false"] = raw
	w.registry.mu.Unlock()
	p, err := w.pin(w.registry.host()+"/team/app:false", amd64, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	snap, err := p.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := snap.Ready(t.Context()); err == nil {
		t.Error("a layer was taken for what it is not")
	}
	snap.Release()
	if p, err = w.pin(w.registry.host()+"/team/app:good", amd64, nil, nil); err != nil {
		t.Fatal(err)
	}
	if snap, err = p.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	if err := snap.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p, err = w.pin(w.registry.host()+"/team/app:false", amd64, nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := w.files(p); got != "good" {
		t.Errorf("files: %s", got)
	}
}

// TestTokensOfTheClient: a client that keeps its password to itself fetches tokens, and what its session resolved is had by a build that
// goes on when it has left.
func TestTokensOfTheClient(t *testing.T) {
	w := newWorld(t)
	w.registry.put("team/app", "1", map[string][]string{"amd64": {"secret"}})
	w.registry.token = "of the day"
	name := w.registry.host() + "/team/app:1"
	first, second := &tokens{text: "of the day"}, &tokens{text: "of the day"}
	one, end, err := w.sessions.Local(t.Context(), "k", first)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	two, end2, err := w.sessions.Local(t.Context(), "k", second)
	if err != nil {
		t.Fatal(err)
	}
	defer end2()
	op := &pb.SourceOp{Identifier: Scheme + name}
	if _, err := w.ResolveSourceMetadata(t.Context(), op, sourceresolver.Opt{ImageOpt: &sourceresolver.ResolveImageOpt{Platform: &amd64}}, session.NewGroup(one)); err != nil {
		t.Fatal(err)
	}
	builds := &crowd{one}
	p, err := w.pin(name, amd64, nil, builds)
	if err != nil {
		t.Fatal(err)
	}
	want := w.registry.host() + " " + w.registry.URL + "/token of the club [repository:team/app:pull]"
	if got := strings.Join(first.asked, "\n"); got != want {
		t.Errorf("the client was asked for\n%s\nwant\n%s", got, want)
	}
	w.registry.mu.Lock()
	w.registry.token = "of the next day"
	w.registry.mu.Unlock()
	second.text = "of the next day"
	end()
	*builds = crowd{two} // wants the layers still
	if got := w.files(p); got != "secret" {
		t.Errorf("files: %s", got)
	}
	if len(second.asked) == 0 {
		t.Error("who is left was not asked")
	}
	third, end3, err := w.sessions.Local(t.Context(), "k", &tokens{text: "of yesterday"})
	if err != nil {
		t.Fatal(err)
	}
	defer end3()
	if _, err := w.pin(name, amd64, map[string]string{pb.AttrImageResolveMode: pb.AttrImageResolveModeForcePull}, session.NewGroup(third)); !fault.Is(err, fault.Unauthorized) {
		t.Errorf("with a token that is no good: %v", err)
	}
}

// crowd is the sessions of builds that come and go.
type crowd []string

func (c *crowd) SessionIterator() bksession.Iterator {
	return session.NewGroup(*c...).SessionIterator()
}

// tokens is a client that gives tokens and no passwords.
type tokens struct {
	bkauth.UnimplementedAuthServer
	text  string
	asked []string
}

func (k *tokens) Register(s *grpc.Server) { bkauth.RegisterAuthServer(s, k) }

func (k *tokens) GetTokenAuthority(context.Context, *bkauth.GetTokenAuthorityRequest) (*bkauth.GetTokenAuthorityResponse, error) {
	return &bkauth.GetTokenAuthorityResponse{PublicKey: make([]byte, 32)}, nil
}

func (k *tokens) FetchToken(_ context.Context, r *bkauth.FetchTokenRequest) (*bkauth.FetchTokenResponse, error) {
	k.asked = append(k.asked, fmt.Sprint(r.Host, " ", r.Realm, " ", r.Service, " ", r.Scopes))
	return &bkauth.FetchTokenResponse{Token: k.text, ExpiresIn: 60}, nil
}

func TestSameTagForOneSession(t *testing.T) {
	w := newWorld(t)
	first := w.registry.put("team/app", "1", map[string][]string{"amd64": {"one"}})
	name := w.registry.host() + "/team/app:1"
	id, end, err := w.sessions.Local(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	for range 2 {
		p, err := w.pin(name, amd64, nil, session.NewGroup(id))
		if err != nil {
			t.Fatal(err)
		}
		if p.Pin != string(first) {
			t.Errorf("the tag moved within a build: %s", p.Pin)
		}
		w.registry.put("team/app", "1", map[string][]string{"amd64": {"two"}})
	}
}

// keys is a client's credentials.
type keys struct {
	bkauth.UnimplementedAuthServer
	user, password string
}

func (k *keys) Register(s *grpc.Server) { bkauth.RegisterAuthServer(s, k) }

func (k *keys) Credentials(context.Context, *bkauth.CredentialsRequest) (*bkauth.CredentialsResponse, error) {
	return &bkauth.CredentialsResponse{Username: k.user, Secret: k.password}, nil
}

// registry is a small registry in memory.
type registry struct {
	*httptest.Server
	password string
	token    string // that it wants; "": none

	mu        sync.Mutex
	blobs     map[string][]byte
	manifests map[string][]byte // by repository and tag or digest
	requests  []string
}

func newRegistry(t *testing.T) *registry {
	g := &registry{blobs: map[string][]byte{}, manifests: map[string][]byte{}}
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.Close)
	return g
}

func (g *registry) host() string { return strings.TrimPrefix(g.URL, "http://") }

func (g *registry) log() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.requests)
}

func (g *registry) asked(kind string) (n int) {
	for _, r := range g.log() {
		if strings.Contains(r, "/"+kind+"/") {
			n++
		}
	}
	return n
}

func (g *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.token != "" && r.Header.Get("Authorization") != "Bearer "+g.token {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+g.URL+`/token",service="of the club"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if _, p, _ := r.BasicAuth(); p != g.password && g.token == "" {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.URL.Path == "/v2/" {
		return
	}
	g.requests = append(g.requests, r.Method+" "+r.URL.Path)
	_, path, _ := strings.Cut(r.URL.Path, "/v2/")
	if _, d, ok := strings.Cut(path, "/blobs/"); ok && g.blobs[d] != nil {
		_, _ = w.Write(g.blobs[d])
		return
	}
	if repo, tag, ok := strings.Cut(path, "/manifests/"); ok {
		if raw := g.manifests[repo+"@"+tag]; raw != nil {
			var m struct{ MediaType string }
			_ = json.Unmarshal(raw, &m)
			w.Header().Set("Content-Type", m.MediaType)
			w.Header().Set("Docker-Content-Digest", string(digest.FromBytes(raw)))
			_, _ = w.Write(raw)
			return
		}
	}
	w.WriteHeader(http.StatusNotFound)
	fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`)
}

func (g *registry) blob(raw []byte, mediaType string) ocispec.Descriptor {
	d := digest.FromBytes(raw)
	g.blobs[string(d)] = raw
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}
}

// manifest gives the manifest of a tag's first platform.
func (g *registry) manifest(t *testing.T, repo, tag string) (m ocispec.Manifest) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	var index ocispec.Index
	if err := json.Unmarshal(g.manifests[repo+"@"+tag], &index); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(g.manifests[repo+"@"+string(index.Manifests[0].Digest)], &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// put makes an image with one layer for each word, for each architecture, and gives the digest of its index.
func (g *registry) put(repo, tag string, platforms map[string][]string) digest.Digest {
	g.mu.Lock()
	defer g.mu.Unlock()
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for _, arch := range slices.Sorted(func(yield func(string) bool) {
		for k := range platforms {
			if !yield(k) {
				return
			}
		}
	}) {
		config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}}
		config.RootFS.Type = "layers"
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
		m.SchemaVersion = 2
		for _, word := range platforms[arch] {
			plain := layerOf(word)
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, _ = z.Write(plain)
			_ = z.Close()
			config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(plain))
			m.Layers = append(m.Layers, g.blob(b.Bytes(), ocispec.MediaTypeImageLayerGzip))
		}
		raw, _ := json.Marshal(config)
		m.Config = g.blob(raw, ocispec.MediaTypeImageConfig)
		raw, _ = json.Marshal(m)
		d := digest.FromBytes(raw)
		g.manifests[repo+"@"+string(d)] = raw
		index.Manifests = append(index.Manifests, ocispec.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(raw)), Platform: &config.Platform})
	}
	raw, _ := json.Marshal(index)
	d := digest.FromBytes(raw)
	g.manifests[repo+"@"+string(d)], g.manifests[repo+"@"+tag] = raw, raw
	return d
}

// layerOf is a layer with one file.
func layerOf(word string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: word, Mode: 0o644, Size: int64(len(word))})
	_, _ = w.Write([]byte(word))
	_ = w.Close()
	return b.Bytes()
}

func mustName(t *testing.T, s string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

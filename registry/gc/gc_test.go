package gc_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/registry/gc"
	"berth/registry/storage"
	"berth/registry/storage/dir"
)

// shop is a store with words for a test.
type shop struct {
	*testing.T
	*storage.Store
}

func open(t *testing.T) *shop {
	t.Helper()
	d, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := storage.Open(t.Context(), d, storage.Config{Grace: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &shop{T: t, Store: s}
}

func (s *shop) blob(repo, content string) ocispec.Descriptor {
	s.Helper()
	d, err := s.PutBlob(s.T.Context(), repo, digest.FromString(content), strings.NewReader(content))
	if err != nil {
		s.Fatal(err)
	}
	return d
}

func (s *shop) put(repo, reference string, v any) ocispec.Descriptor {
	s.Helper()
	content, err := json.Marshal(v)
	if err != nil {
		s.Fatal(err)
	}
	if reference == "" {
		reference = digest.FromBytes(content).String()
	}
	m, err := s.PutManifest(s.T.Context(), repo, storage.Put{Reference: reference, Content: content})
	if err != nil {
		s.Fatal(err)
	}
	return m.Descriptor()
}

func (s *shop) image(repo, tag, layer string, subject *ocispec.Descriptor) ocispec.Descriptor {
	s.Helper()
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: s.blob(repo, "config of "+layer), Layers: []ocispec.Descriptor{s.blob(repo, layer)}, Subject: subject}
	m.SchemaVersion = 2
	return s.put(repo, tag, m)
}

func (s *shop) index(repo, tag string, manifests ...ocispec.Descriptor) ocispec.Descriptor {
	s.Helper()
	i := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests}
	i.SchemaVersion = 2
	return s.put(repo, tag, i)
}

func (s *shop) stored() int {
	n := 0
	c, err := s.BeginCollection(0)
	if err != nil {
		s.Fatal(err)
	}
	defer c.End()
	for _, err := range c.Blobs(s.T.Context()) {
		if err != nil {
			s.Fatal(err)
		}
		n++
	}
	return n
}

func (s *shop) collect(p gc.Policy) *gc.Result {
	s.Helper()
	r, err := gc.Run(s.T.Context(), s.Store, p)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

func (s *shop) sound() {
	s.Helper()
	c, err := s.Check(s.T.Context(), storage.Look{Content: true})
	if err != nil {
		s.Fatal(err)
	}
	for _, p := range c.Problems {
		s.Error(p)
	}
}

// What hangs on a tag stays, everything else goes; a blob goes from a repository and stays in another.
func TestCollect(t *testing.T) {
	s := open(t)
	kept := s.image("team/web", "1", "layer one", nil)
	s.image("team/web", "", "signature", &kept)
	s.index("team/web", "all", s.image("team/web", "", "for arm", nil), s.image("team/web", "", "for amd", nil))
	gone := s.image("team/web", "2", "layer two", nil)
	s.image("other", "1", "layer two", nil)
	s.blob("team/web", "left over")
	if _, err := s.DeleteManifest(t.Context(), "team/web", gone.Digest); err != nil {
		t.Fatal(err)
	}
	if r := s.collect(gc.Policy{}); r.Links != 3 || r.Blobs != 1 || r.Manifests != 0 || r.Spared != 0 {
		t.Errorf("collected %+v", *r) // links: config and layer of the one deleted, the blob left over; of those only that is nowhere else
	}
	s.sound()
	if r := s.collect(gc.Policy{}); r.Any() {
		t.Errorf("the second time collected %+v", *r)
	}
	if _, err := s.StatBlob(t.Context(), "other", digest.FromString("layer two")); err != nil {
		t.Error(err)
	}
	if _, err := s.StatBlob(t.Context(), "team/web", digest.FromString("layer two")); !fault.Is(err, fault.NotFound) {
		t.Errorf("it still holds the layer: %v", err)
	}
}

func TestUntagged(t *testing.T) {
	s := open(t)
	subject := s.image("a", "keep", "tagged", nil)
	signature := s.image("a", "", "signature", &subject)
	s.image("a", "", "signature of the signature", &signature)
	s.index("a", "index", s.image("a", "", "child", nil))
	lonely := s.image("a", "", "lonely", nil)
	s.image("a", "", "signature of the lonely", &lonely)
	s.index("a", "", s.index("a", "", s.image("a", "", "grandchild", nil)))
	if r := s.collect(gc.Policy{Untagged: time.Hour}); r.Any() {
		t.Errorf("what is young went: %+v", *r)
	}
	r := s.collect(gc.Policy{Untagged: time.Nanosecond})
	if r.Manifests != 5 || r.Spared != 0 {
		t.Errorf("collected %+v", *r)
	}
	s.sound()
	if n := s.stored(); n != 5+2*4 { // four images and an index, two blobs for each image
		t.Errorf("%d blobs are left", n)
	}
	if l, err := s.Referrers(t.Context(), "a", subject.Digest, ""); len(l) != 1 || err != nil {
		t.Errorf("referrers %v, %v", l, err)
	}
}

func TestEmptyRepositoriesGo(t *testing.T) {
	s := open(t)
	d := s.image("a/b/c", "1", "x", nil)
	if _, err := s.DeleteManifest(t.Context(), "a/b/c", d.Digest); err != nil {
		t.Fatal(err)
	}
	if r := s.collect(gc.Policy{}); r.Repositories != 1 || s.Exists("a/b/c") || s.stored() != 0 {
		t.Errorf("collected %+v, exists %v, %d blobs", *r, s.Exists("a/b/c"), s.stored())
	}
}

func TestUploads(t *testing.T) {
	s := open(t)
	u, err := s.StartUpload(t.Context(), "a", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Append(t.Context(), -1, strings.NewReader("bytes")); err != nil {
		t.Fatal(err)
	}
	if r := s.collect(gc.Policy{Uploads: time.Hour}); r.Uploads != 0 {
		t.Errorf("an upload went that somebody was at: %+v", *r)
	}
	if r := s.collect(gc.Policy{Uploads: time.Nanosecond}); r.Uploads != 1 || r.Bytes != 5 {
		t.Errorf("collected %+v", *r)
	}
	if _, err := u.Append(t.Context(), -1, strings.NewReader("more")); !fault.Is(err, fault.NotFound) {
		t.Errorf("it goes on: %v", err)
	}
}

// What a push touches between the plan and its application is spared, with all that hangs on it.
func TestSpared(t *testing.T) {
	for name, touch := range map[string]func(*shop, ocispec.Descriptor){
		"tagged again": func(s *shop, d ocispec.Descriptor) {
			m, err := s.Manifest(s.T.Context(), "a", string(d.Digest))
			if err != nil {
				s.Fatal(err)
			}
			if _, err := s.PutManifest(s.T.Context(), "a", storage.Put{Reference: "again", Content: m.Content}); err != nil {
				s.Fatal(err)
			}
		},
		"asked for": func(s *shop, d ocispec.Descriptor) {
			if _, err := s.Record(s.T.Context(), "a", string(d.Digest)); err != nil {
				s.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			index := s.index("a", "", s.image("a", "", "child", nil))
			plan, err := gc.New(t.Context(), s.Store, gc.Policy{Untagged: time.Nanosecond})
			if err != nil {
				t.Fatal(err)
			}
			defer plan.Close()
			if len(plan.Manifests) != 2 || len(plan.Links) != 2 || len(plan.Blobs) != 4 {
				t.Fatalf("plan: %+v", plan)
			}
			touch(s, index)
			r, err := plan.Apply(t.Context())
			if err != nil || r.Any() || r.Spared != 8 {
				t.Errorf("%+v, %v", r, err)
			}
			s.sound()
		})
	}
}

// A blob that is pushed, mounted or asked for between the plan and its application is spared.
func TestBlobSpared(t *testing.T) {
	for name, touch := range map[string]func(*shop, digest.Digest) error{
		"pushed":    func(s *shop, d digest.Digest) error { s.blob("a", "x"); return nil },
		"mounted":   func(s *shop, d digest.Digest) error { _, err := s.Mount(s.T.Context(), "b", d, "a"); return err },
		"asked for": func(s *shop, d digest.Digest) error { _, err := s.StatBlob(s.T.Context(), "a", d); return err },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			d := s.blob("a", "x").Digest
			plan, err := gc.New(t.Context(), s.Store, gc.Policy{})
			if err != nil {
				t.Fatal(err)
			}
			defer plan.Close()
			if err := touch(s, d); err != nil {
				t.Fatal(err)
			}
			if r, err := plan.Apply(t.Context()); err != nil || r.Blobs != 0 {
				t.Errorf("%+v, %v", r, err)
			}
			if _, err := s.StatBlob(t.Context(), "a", d); err != nil {
				t.Error(err)
			}
		})
	}
}

// What somebody has asked for is spared for the grace, which a collection may make shorter.
func TestPromises(t *testing.T) {
	d, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	store, err := storage.Open(t.Context(), d, storage.Config{Grace: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s := &shop{T: t, Store: store}
	blob := s.blob("a", "x")
	if _, err := s.StatBlob(t.Context(), "a", blob.Digest); err != nil {
		t.Fatal(err)
	}
	if r := s.collect(gc.Policy{Grace: -1}); r.Any() {
		t.Errorf("collected %+v", *r)
	}
	if r := s.collect(gc.Policy{Grace: 0}); r.Blobs != 1 {
		t.Errorf("without a grace collected %+v", *r)
	}
}

// A repository whose name was lost keeps its content.
func TestLostNameIsFoundAgain(t *testing.T) {
	root := t.TempDir()
	reopen := func() *shop {
		d, err := dir.Open(root)
		if err != nil {
			t.Fatal(err)
		}
		s, err := storage.Open(t.Context(), d, storage.Config{Grace: time.Nanosecond})
		if err != nil {
			t.Fatal(err)
		}
		return &shop{T: t, Store: s}
	}
	s := reopen()
	s.image("team/web", "1", "layer", nil)
	s.Close()
	if err := os.Remove(filepath.Join(root, "names", "team:web")); err != nil {
		t.Fatal(err)
	}
	s = reopen()
	defer s.Close()
	if c, err := s.Check(t.Context(), storage.Look{}); err != nil || len(c.Problems) != 1 {
		t.Errorf("check: %+v, %v", c, err)
	}
	if r := s.collect(gc.Policy{}); r.Any() {
		t.Errorf("collected %+v", *r)
	}
	if _, err := s.Manifest(t.Context(), "team/web", "1"); err != nil || !s.Exists("team/web") {
		t.Errorf("exists %v, %v", s.Exists("team/web"), err)
	}
	s.sound()
}

func TestOneAtATime(t *testing.T) {
	s := open(t)
	plan, err := gc.New(t.Context(), s.Store, gc.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gc.New(t.Context(), s.Store, gc.Policy{}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second one: %v, want Conflict", err)
	}
	plan.Close()
	if _, err := gc.Run(t.Context(), s.Store, gc.Policy{}); err != nil {
		t.Error(err)
	}
}

func TestPrint(t *testing.T) {
	s := open(t)
	s.blob("a", "left over")
	s.image("a", "1", "kept", nil)
	d := s.image("b", "", "untagged", nil)
	plan, err := gc.New(t.Context(), s.Store, gc.Policy{Untagged: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	defer plan.Close()
	var b strings.Builder
	if err := plan.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"manifest   b@" + d.Digest.String() + "\n",
		"link       a@" + digest.FromString("left over").String() + "\n",
		"blob       " + digest.FromString("left over").String() + "  9 bytes\n",
		"remove 1 manifests, 3 links, 4 blobs, 0 uploads: ",
		" keep 3 blobs: ",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}

package storage_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/registry/storage"
	"berth/registry/storage/dir"
	"berth/registry/storage/s3"
	"berth/registry/storage/s3/s3test"
)

// place is somewhere a store can be opened again and again.
type place struct {
	*testing.T
	driver func() (storage.Driver, error)
}

func onDirectory(t *testing.T) (place, string) {
	root := t.TempDir()
	return place{t, func() (storage.Driver, error) { return dir.Open(root) }}, root
}

func (p place) open() *storage.Store {
	p.Helper()
	d, err := p.driver()
	if err != nil {
		p.Fatal(err)
	}
	s, err := storage.Open(p.Context(), d, storage.Config{})
	if err != nil {
		p.Fatal(err)
	}
	return s
}

func (p place) do(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// An upload goes on after the store was closed and opened, with the hash where it was, and under whatever digest it is named.
func TestUploadSurvives(t *testing.T) {
	server := func(t *testing.T) func() (storage.Driver, error) {
		cfg := s3test.Start(t).Bucket(t)
		return func() (storage.Driver, error) { return s3.Open(t.Context(), cfg) }
	}
	places := map[string]func(t *testing.T) func() (storage.Driver, error){
		"dir": func(t *testing.T) func() (storage.Driver, error) { p, _ := onDirectory(t); return p.driver },
		"s3":  server,
	}
	for name, where := range places {
		for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
			t.Run(name+"/"+alg.String(), func(t *testing.T) {
				p := place{t, where(t)}
				content := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB: parts and a tail
				s := p.open()
				u, err := s.StartUpload(t.Context(), "a/b", "")
				p.do(err)
				id := u.ID()
				for at := 0; at < len(content); {
					n := min(3<<20+11, len(content)-at)
					u, err := s.ResumeUpload(t.Context(), "a/b", id)
					p.do(err)
					if u.Size() != int64(at) {
						t.Fatalf("it stands at %d, want %d", u.Size(), at)
					}
					_, err = u.Append(t.Context(), int64(at), bytes.NewReader(content[at:at+n]))
					p.do(err)
					at += n
					p.do(s.Close())
					s = p.open()
				}
				if _, err := s.ResumeUpload(t.Context(), "another", id); !fault.Is(err, fault.NotFound) {
					t.Errorf("another repository's: %v", err)
				}
				u, err = s.ResumeUpload(t.Context(), "a/b", id)
				p.do(err)
				d := alg.FromBytes(content)
				_, err = u.Commit(t.Context(), d)
				p.do(err)
				c, err := s.RepositoryBlob(t.Context(), "a/b", d)
				p.do(err)
				got, err := io.ReadAll(c.Body)
				c.Body.Close()
				if err != nil || !bytes.Equal(got, content) {
					t.Errorf("%d bytes come back, %v", len(got), err)
				}
				if _, err := s.ResumeUpload(t.Context(), "a/b", id); !fault.Is(err, fault.NotFound) {
					t.Errorf("the upload is still there: %v", err)
				}
				for u, err := range s.Uploads(t.Context()) {
					t.Errorf("left: %+v %v", u, err)
				}
				p.do(s.Close())
			})
		}
	}
}

// A reader that fails in the middle: what it gave counts, and the hash goes on from there.
func TestBrokenUpload(t *testing.T) {
	p, _ := onDirectory(t)
	s := p.open()
	defer s.Close()
	u, err := s.StartUpload(t.Context(), "a", "")
	p.do(err)
	gone := errors.New("gone")
	n, err := u.Append(t.Context(), -1, io.MultiReader(strings.NewReader("one, "), iotestError{gone}))
	if n != 5 || !errors.Is(err, gone) || u.Size() != 5 {
		t.Fatalf("%d, %v, %d", n, err, u.Size())
	}
	var out *storage.RangeError
	if _, err := u.Append(t.Context(), 3, strings.NewReader("x")); !errors.As(err, &out) || out.Size != 5 || !fault.Is(err, fault.Conflict) {
		t.Errorf("bytes at the wrong place: %v", err)
	}
	_, err = u.Append(t.Context(), 5, strings.NewReader("two"))
	p.do(err)
	_, err = u.Commit(t.Context(), digest.FromString("one, two"))
	p.do(err)
}

type iotestError struct{ err error }

func (e iotestError) Read([]byte) (int, error) { return 0, e.err }

func image(p place, s *storage.Store, repo, reference, layer string, subject *ocispec.Descriptor) storage.Record {
	p.Helper()
	blob := func(content string) ocispec.Descriptor {
		d, err := s.PutBlob(p.Context(), repo, digest.FromString(content), strings.NewReader(content))
		p.do(err)
		return d
	}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: blob("{}"), Layers: []ocispec.Descriptor{blob(layer)}, Subject: subject}
	m.SchemaVersion = 2
	content, err := json.Marshal(m)
	p.do(err)
	put, err := s.PutManifest(p.Context(), repo, storage.Put{Reference: reference, Content: content})
	p.do(err)
	return put.Record
}

// Size follows what comes and goes, and is the same when it is added up again.
func TestSize(t *testing.T) {
	p, _ := onDirectory(t)
	s := p.open()
	size := func(want int64) {
		t.Helper()
		got, err := s.Size(t.Context(), "a")
		p.do(err)
		p.do(s.Close())
		s = p.open()
		again, err := s.Size(t.Context(), "a")
		p.do(err)
		if got != want || again != want {
			t.Errorf("size %d, added up %d, want %d", got, again, want)
		}
	}
	size(0)
	r := image(p, s, "a", "1", "layer", nil)
	size(2 + 5 + r.Size)
	image(p, s, "a", "2", "layer", nil) // the same again
	size(2 + 5 + r.Size)
	x, err := s.PutBlob(t.Context(), "b", digest.FromString("mounted"), strings.NewReader("mounted"))
	p.do(err)
	_, err = s.Mount(t.Context(), "a", x.Digest, "b")
	p.do(err)
	_, err = s.Mount(t.Context(), "a", x.Digest, "b")
	p.do(err)
	size(2 + 5 + r.Size + 7)
	_, err = s.DeleteManifest(t.Context(), "a", r.Digest)
	p.do(err)
	p.do(s.DeleteBlob(t.Context(), "a", x.Digest))
	size(2 + 5)
	s.Close()
}

// Each kind of damage is found and named; what can be mended is, and the next push brings the rest again.
func TestCheckFindsDamage(t *testing.T) {
	for name, c := range map[string]struct {
		damage  func(root string, r storage.Record) error
		want    string
		mended  bool
		byCheck bool // mended by Repair alone
	}{
		"content": {func(root string, r storage.Record) error {
			return os.WriteFile(filepath.Join(root, blobPath(digest.FromString("layer"))), []byte("LAYER"), 0o600)
		}, "has the content of", true, false},
		"cut off": {func(root string, r storage.Record) error {
			return os.Truncate(filepath.Join(root, blobPath(digest.FromString("layer"))), 2)
		}, "has 2 bytes, 5 were pushed", true, false},
		"missing blob": {func(root string, r storage.Record) error {
			return os.Remove(filepath.Join(root, blobPath(digest.FromString("layer"))))
		}, "is not there", true, false},
		"missing link": {func(root string, r storage.Record) error {
			return os.Remove(filepath.Join(root, "repositories/a/_blobs/sha256", digest.FromString("layer").Encoded()))
		}, "the repository does not hold", true, false},
		"record": {func(root string, r storage.Record) error {
			return os.WriteFile(filepath.Join(root, "repositories/a/_manifests/sha256", r.Digest.Encoded()), []byte(`{"mediaType":"application/vnd.oci.image.manifest.v1+json"}`), 0o600)
		}, "does not say what the manifest says", true, false},
		"tag": {func(root string, r storage.Record) error {
			return os.WriteFile(filepath.Join(root, "repositories/a/_tags/1"), []byte(`{"digest":"`+digest.FromString("none").String()+`"}`), 0o600)
		}, "which is not there", true, false},
		"referrer": {func(root string, r storage.Record) error {
			return os.RemoveAll(filepath.Join(root, "repositories/a/_referrers"))
		}, "is not among the referrers", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			p, root := onDirectory(t)
			s := p.open()
			defer s.Close()
			subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("subject"), Size: 1}
			r := image(p, s, "a", "1", "layer", &subject)
			problems := func(how storage.Look) []string {
				t.Helper()
				c, err := s.Check(t.Context(), how)
				p.do(err)
				var l []string
				for _, x := range c.Problems {
					l = append(l, x.String())
				}
				return l
			}
			if l := problems(storage.Look{Content: true}); len(l) > 0 {
				t.Fatalf("a sound store: %q", l)
			}
			p.do(c.damage(root, r))
			if l := problems(storage.Look{Content: true}); !slices.ContainsFunc(l, func(s string) bool { return strings.Contains(s, c.want) }) {
				t.Errorf("found %q, want %q", l, c.want)
			}
			problems(storage.Look{Content: true, Repair: true})
			if !c.byCheck {
				image(p, s, "a", "1", "layer", &subject)
			}
			if l := problems(storage.Look{Content: true}); len(l) > 0 {
				t.Errorf("after it was mended: %q", l)
			}
		})
	}
}

func blobPath(d digest.Digest) string { return "blobs/sha256/" + d.Encoded()[:2] + "/" + d.Encoded() }

// What is answered is on disk: a push of a small image costs so many fsyncs and no more.
func TestSyncs(t *testing.T) {
	p, _ := onDirectory(t)
	s := p.open()
	defer s.Close()
	image(p, s, "a", "1", "layer", nil) // makes directories
	before := atomicfile.Syncs()
	_, err := s.PutBlob(t.Context(), "a", digest.FromString("another layer"), strings.NewReader("another layer"))
	p.do(err)
	// Content, its directory (new, so the one above too), link and its directory.
	if n := atomicfile.Syncs() - before; n < 4 || n > 5 {
		t.Errorf("a blob costs %d fsyncs, want 4 or 5", n)
	}
}

func TestRefusesOtherFormats(t *testing.T) {
	p, root := onDirectory(t)
	p.do(p.open().Close())
	p.do(os.WriteFile(filepath.Join(root, "version"), []byte("2\n"), 0o600))
	d, err := p.driver()
	p.do(err)
	if _, err := storage.Open(t.Context(), d, storage.Config{}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("%v", err)
	}
}

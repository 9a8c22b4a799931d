package image

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/ref"
	"berth/image/archive"
	"berth/image/blob"
	"berth/image/layer"
	"berth/kernel/probe"
)

// Config says where the store is and how it behaves.
type Config struct {
	Root      string         // directory of the store alone
	Limits    archive.Limits // of one layer
	UserXattr bool           // layers are mounted in a user namespace
	Facts     probe.Features // the zero value asks the kernel
	Log       *slog.Logger   // nil: nothing is logged
	Events    func(Event)    // told what happened to images, after it is durable; nil: nobody. It must not call back
}

// Event is something that happened to an image, in the words of docker events.
type Event struct {
	Action string // load, import, tag, untag, delete, save, prune
	ID     string // the image, or a name where Docker gives one
	Name   string // attribute "name"
	Attrs  map[string]string
}

// Use is a container that uses an image.
type Use struct {
	ContainerID string
	Running     bool
}

// Store is an open image store. It is safe for concurrent use.
type Store struct {
	cfg    Config
	log    *slog.Logger
	db     *bolt.DB
	blobs  *blob.Store
	layers *layer.Store
	usedBy func(imageID string) []Use

	changing sync.Mutex // held by whoever changes images or names, over the transaction; taken before mu

	mu     sync.RWMutex // guards what follows; held for memory only
	images map[digest.Digest]*record
	names  map[ref.Ref]digest.Digest
	byID   map[digest.Digest][]ref.Ref // names of each image, sorted
}

// record is one image in memory. It is not changed once it is in the map: changes make another one.
type record struct {
	id  digest.Digest
	doc *Document // without its history, which is read from the blob when asked for
	stored
	size int64
}

// stored is what the database keeps of an image besides its document.
type stored struct {
	Parent   digest.Digest `json:"parent,omitempty"`
	Manifest *Descriptor   `json:"manifest,omitempty"` // the manifest it came with
	Index    *Descriptor   `json:"index,omitempty"`    // the index that manifest was chosen from
	Tagged   time.Time     `json:"tagged,omitzero"`    // when a name was last given or taken
}

// Descriptor names a document in the blob store.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       digest.Digest     `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// Image is a snapshot of an image.
type Image struct {
	ID          string   // config digest
	RepoTags    []string // as people see them, sorted
	RepoDigests []string
	Parent      string
	Created     time.Time // zero when the image does not say
	Config      *Document // without history, see History; not to be changed
	Layers      []digest.Digest
	Size        int64 // bytes of all layers' files
	Manifest    *Descriptor
	Index       *Descriptor
	Tagged      time.Time
}

// Open opens or makes the store in cfg.Root and recovers it; another process that has it open is Conflict.
func Open(cfg Config) (*Store, error) {
	s := &Store{
		cfg: cfg, log: cfg.Log, usedBy: func(string) []Use { return nil },
		images: map[digest.Digest]*record{}, names: map[ref.Ref]digest.Digest{}, byID: map[digest.Digest][]ref.Ref{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Root, 0o700); err != nil {
		return nil, fault.In(err, "open image store")
	}
	var err error
	s.layers, err = layer.Open(layer.Config{Root: filepath.Join(cfg.Root, "layer"), Limits: cfg.Limits, UserXattr: cfg.UserXattr, Facts: cfg.Facts, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	if err := s.openRest(); err != nil {
		s.Close()
		return nil, fault.In(err, "open image store")
	}
	return s, nil
}

func (s *Store) openRest() (err error) {
	if s.blobs, err = blob.Open(filepath.Join(s.cfg.Root, "blob")); err != nil {
		return err
	}
	if s.db, err = openDB(filepath.Join(s.cfg.Root, "images.db")); err != nil {
		return err
	}
	if err := s.readAll(); err != nil {
		return err
	}
	s.blobs.Sweep()
	if freed := s.layers.Sweep(); freed > 0 {
		s.log.Info("deleted layers that no image has", "bytes", freed)
	}
	return nil
}

// Close closes the store. Operations that are under way fail.
func (s *Store) Close() error {
	var err error
	if s.db != nil {
		err = s.db.Close()
	}
	if lerr := s.layers.Close(); err == nil {
		err = lerr
	}
	return err
}

// Layers is the layer store: containers' writable layers are made there.
func (s *Store) Layers() *layer.Store { return s.layers }

// Blobs is the store of documents.
func (s *Store) Blobs() *blob.Store { return s.blobs }

// UsedBy plugs in who knows which containers use an image. It is called once, before the store is used by others.
func (s *Store) UsedBy(f func(imageID string) []Use) { s.usedBy = f }

// admit puts a record into memory.
func (s *Store) admit(r *record) {
	s.images[r.id] = r
}

// readRecord makes a record of what the database and the blob store have, and holds what it names.
func (s *Store) readRecord(id digest.Digest, st stored) (*record, error) {
	raw, err := s.blobs.Read(id, maxDocument)
	if err != nil {
		return nil, err
	}
	doc, err := ParseDocument(raw)
	if err != nil {
		return nil, err
	}
	return s.newRecord(id, doc, st)
}

// newRecord makes a record and takes the holds that an image has: its layers, its document, its manifest and index.
func (s *Store) newRecord(id digest.Digest, doc *Document, st stored) (*record, error) {
	r := &record{id: id, doc: doc, stored: st}
	doc.History = nil
	if err := s.layers.Retain(doc.RootFS.DiffIDs...); err != nil {
		return nil, err
	}
	for _, d := range doc.RootFS.DiffIDs {
		info, err := s.layers.Stat(d)
		if err != nil {
			return nil, err
		}
		r.size += info.Size
	}
	if err := s.blobs.Retain(context.Background(), id); err != nil {
		s.layers.Release(doc.RootFS.DiffIDs...)
		return nil, err
	}
	for _, d := range r.documents() {
		// A manifest that is lost is no reason to lose the image.
		if err := s.blobs.Retain(context.Background(), d); err != nil {
			s.log.Warn("image's manifest is missing", "image", id, "manifest", d, "err", err)
		}
	}
	return r, nil
}

// release gives back what newRecord took.
func (s *Store) release(r *record) (deletedLayers []digest.Digest) {
	for _, d := range r.documents() {
		s.blobs.Release(d)
	}
	s.blobs.Release(r.id)
	return s.layers.Release(r.doc.RootFS.DiffIDs...)
}

// documents are the blobs of an image besides its configuration.
func (r *record) documents() (list []digest.Digest) {
	for _, d := range []*Descriptor{r.Manifest, r.Index} {
		if d != nil {
			list = append(list, d.Digest)
		}
	}
	return list
}

// Registration is a new image, or new names for one that exists.
type Registration struct {
	Config   []byte        // the document, byte for byte
	Parent   digest.Digest // image it was committed on, or ""
	Manifest *Attached     // the manifest it came with, or nil
	Index    *Attached     // the index it was chosen from, or nil
	Names    []ref.Ref     // tags and repository digests it gets; taken from the images that have them
}

// Attached is a document that came with an image, with its bytes.
type Attached struct {
	Descriptor
	Content []byte
}

// Register makes an image of layers that are in the layer store, durably, and gives it names. The caller holds the
// layers. It tells the names that were another image's before.
func (s *Store) Register(ctx context.Context, n Registration) (*Image, map[ref.Ref]digest.Digest, error) {
	doc, err := ParseDocument(n.Config)
	if err != nil {
		return nil, nil, err
	}
	if len(doc.RootFS.DiffIDs) > layer.MaxDepth {
		return nil, nil, fault.New(fault.Invalid, "max depth exceeded")
	}
	id := digest.FromBytes(n.Config)
	st := stored{Parent: n.Parent}
	if st.Manifest, err = s.keep(ctx, n.Manifest); err != nil {
		return nil, nil, err
	}
	if n.Manifest != nil {
		defer s.blobs.Release(n.Manifest.Digest)
	}
	if st.Index, err = s.keep(ctx, n.Index); err != nil {
		return nil, nil, err
	}
	if n.Index != nil {
		defer s.blobs.Release(n.Index.Digest)
	}
	if _, err := s.blobs.Put(ctx, blob.Want{Digest: id, Size: int64(len(n.Config))}, newReader(n.Config)); err != nil {
		return nil, nil, err
	}
	defer s.blobs.Release(id)
	fresh, err := s.newRecord(id, doc, st)
	if err != nil {
		return nil, nil, err
	}
	moved, err := s.put(fresh, n.Names)
	if err != nil {
		s.release(fresh)
		return nil, nil, err
	}
	img, err := s.Get(id)
	return img, moved, err
}

func (s *Store) keep(ctx context.Context, d *Attached) (*Descriptor, error) {
	if d == nil {
		return nil, nil
	}
	if _, err := s.blobs.Put(ctx, blob.Want{Digest: d.Digest, Size: int64(len(d.Content))}, newReader(d.Content)); err != nil {
		return nil, err
	}
	return &d.Descriptor, nil
}

// put makes a record and its names visible in one transaction. Where the image exists, what is new is merged into it
// and the fresh record's holds are given back.
func (s *Store) put(fresh *record, names []ref.Ref) (moved map[ref.Ref]digest.Digest, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	old := s.images[fresh.id] // changing is held: nobody else writes
	r := fresh
	if old != nil {
		merged := *old
		if fresh.Manifest != nil {
			merged.Manifest, merged.Index = fresh.Manifest, fresh.Index
		}
		if merged.Parent == "" {
			merged.Parent = fresh.Parent
		}
		r = &merged
	}
	moved = map[ref.Ref]digest.Digest{}
	now := time.Now()
	for _, n := range names {
		if was, ok := s.names[n]; ok && was != r.id {
			moved[n] = was
		}
	}
	if len(names) > 0 {
		r.Tagged = now
	}
	if err := failpoint.Hit("image/before-commit"); err != nil {
		return nil, err
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		if err := putImage(tx, r); err != nil {
			return err
		}
		for _, n := range names {
			if err := putName(tx, n, r.id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fault.In(err, "write image database")
	}
	_ = failpoint.Hit("image/after-commit") // it is done: only dying here makes sense
	s.mu.Lock()
	s.admit(r)
	for _, n := range names {
		s.setName(n, r.id)
	}
	s.mu.Unlock()
	if old != nil {
		s.swapHolds(old, fresh, r)
	}
	return moved, nil
}

// swapHolds settles the holds after a merge: of old, fresh and the merged record only what the last names stays held,
// once.
func (s *Store) swapHolds(old, fresh, merged *record) {
	defer s.release(fresh)
	if fresh.Manifest == nil {
		return
	}
	for _, d := range merged.documents() {
		if err := s.blobs.Retain(context.Background(), d); err != nil {
			s.log.Warn("image's manifest is missing", "image", merged.id, "manifest", d, "err", err)
		}
	}
	for _, d := range old.documents() {
		s.blobs.Release(d)
	}
}

// setName points a name at an image; mu is held.
func (s *Store) setName(n ref.Ref, id digest.Digest) {
	s.dropName(n)
	s.names[n] = id
	list := append(slices.Clone(s.byID[id]), n)
	slices.SortFunc(list, compareRefs)
	s.byID[id] = list
}

// dropName forgets a name; mu is held.
func (s *Store) dropName(n ref.Ref) {
	id, ok := s.names[n]
	if !ok {
		return
	}
	delete(s.names, n)
	list := slices.DeleteFunc(slices.Clone(s.byID[id]), func(x ref.Ref) bool { return x == n })
	if len(list) == 0 {
		delete(s.byID, id)
		return
	}
	s.byID[id] = list
}

// compareRefs orders names as Docker lists them: by their full text.
func compareRefs(a, b ref.Ref) int {
	x, y := a.String(), b.String()
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// Get gives an image by its full id.
func (s *Store) Get(id digest.Digest) (*Image, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := s.images[id]
	if r == nil {
		return nil, fault.New(fault.NotFound, "No such image: %s", id)
	}
	return s.snapshot(r), nil
}

// snapshot describes a record; mu is held.
func (s *Store) snapshot(r *record) *Image {
	img := &Image{
		ID: string(r.id), RepoTags: []string{}, RepoDigests: []string{}, Parent: string(r.Parent), Config: r.doc,
		Layers: r.doc.RootFS.DiffIDs, Size: r.size, Manifest: r.Manifest, Index: r.Index, Tagged: r.Tagged,
	}
	if r.doc.Created != nil {
		img.Created = *r.doc.Created
	}
	for _, n := range s.byID[r.id] {
		if n.Digest != "" {
			img.RepoDigests = append(img.RepoDigests, n.Familiar())
		} else {
			img.RepoTags = append(img.RepoTags, n.Familiar())
		}
	}
	return img
}

// Raw gives an image's configuration document as it is.
func (s *Store) Raw(id string) ([]byte, error) {
	return s.blobs.Read(digest.Digest(id), maxDocument)
}

// Count tells how many images there are, as info counts them.
func (s *Store) Count() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.images)
}

func (s *Store) emit(e Event) {
	if s.cfg.Events != nil {
		e.Attrs = maps.Clone(e.Attrs)
		s.cfg.Events(e)
	}
}

package image

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image/archive"
	"berth/image/blob"
	"berth/image/layer"
	"berth/kernel/probe"
)

// Config says where the store is and how it behaves.
type Config struct {
	Root      string               // directory of the store alone
	Limits    archive.Limits       // of one layer
	UserXattr bool                 // layers are mounted in a user namespace
	KeepBlobs bool                 // keep the compressed layers of images that come from now on, beside the unpacked ones
	Facts     probe.Features       // the zero value asks the kernel
	Log       *slog.Logger         // nil: nothing is logged
	Trash     func() time.Duration // how long what Remove and Prune delete can be restored, asked each time; nil or 0: not at all
	Events    func(Event)          // told what happened to images, after it is durable; nil: nobody. It must not call back
	// Retain holds layers that others than images want, before those that nobody holds are swept; nil: nobody else wants any. When it
	// fails, nothing is swept.
	Retain func(l *layer.Store) error
}

// Event is something that happened to an image, in the words of docker events.
type Event struct {
	Action string            // create (by a build), load, import, tag, untag, delete, save, prune, pull, push
	ID     string            // the image, or a name where Docker gives one
	Name   string            // attribute "name"
	Attrs  map[string]string // others; beside them the image's labels
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
	broken map[digest.Digest]*brokenImage // in the database, but not in images: something of them is damaged
	names  map[ref.Ref]target
	byID   map[digest.Digest][]ref.Ref // names of each image, sorted
	// indexes that a name or an image came with; sources of layers, by diff id.
	indexes map[digest.Digest]*index
	sources map[digest.Digest][]Source

	derived atomic.Pointer[views] // what follows from the above; nil after a change

	used usedTimes // when images were last used

	// Guarded by changing.
	trashed      map[digest.Digest]*trashed
	rootHolds    map[digest.Digest]bool // root documents held for names
	staleSources []digest.Digest        // in the database still, for layers that are gone
}

// record is one image in memory. It is not changed once it is in the map: changes make another one.
type record struct {
	id  digest.Digest
	doc *Document // without its history, which is read from the blob when asked for
	stored
	size int64
	held []digest.Digest // documents and kept blobs that it holds, of those it names

	fromOld bool // the database has it without its layers
}

// stored is what the database keeps of an image besides its document.
type stored struct {
	Parent  digest.Digest   `json:"parent,omitempty"`
	Layers  []digest.Digest `json:"layers,omitempty"`  // as the configuration has them: known also where that is damaged
	Origins []origin        `json:"origins,omitempty"` // manifests it came with, the newest last
	Tagged  time.Time       `json:"tagged,omitzero"`   // when a name was last given or taken
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
	LastUsed    time.Time // by a container that was created or started; zero: not since Berth notes it
}

// Open opens or makes the store in cfg.Root and recovers it; another process that has it open is Conflict.
func Open(cfg Config) (*Store, error) {
	s := &Store{
		cfg: cfg, log: cfg.Log, usedBy: func(string) []Use { return nil },
		images: map[digest.Digest]*record{}, broken: map[digest.Digest]*brokenImage{}, names: map[ref.Ref]target{}, byID: map[digest.Digest][]ref.Ref{},
		indexes: map[digest.Digest]*index{}, sources: map[digest.Digest][]Source{}, rootHolds: map[digest.Digest]bool{}, trashed: map[digest.Digest]*trashed{},
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
	if s.db, err = openOrRescue(s.cfg.Root, s.log); err != nil {
		return err
	}
	if err := s.readAll(); err != nil {
		return err
	}
	if err := s.readTrash(); err != nil {
		return err
	}
	if err := s.used.open(s); err != nil {
		return err
	}
	s.changing.Lock()
	s.settle()
	err = s.completeRecords()
	s.changing.Unlock()
	if err != nil {
		return err
	}
	if aside := s.setAside(); len(aside) > 0 {
		s.log.Warn("nothing is swept from the image store while a damaged database lies beside; berth system check tells more", "damaged", aside)
		return nil
	}
	if s.cfg.Retain != nil {
		if err := s.cfg.Retain(s.layers); err != nil {
			s.log.Warn("nothing is swept from the image store: what else wants layers is not known", "error", err)
			return nil
		}
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
		s.used.close()
		keepCopy(s.db, filepath.Join(s.cfg.Root, dbOld), s.log)
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
	r.Layers = doc.RootFS.DiffIDs
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
	r.held = s.holdDocuments(r)
	return r, nil
}

// release gives back what newRecord took.
func (s *Store) release(r *record) (deletedLayers []digest.Digest) {
	s.releaseDocuments(r.held)
	s.blobs.Release(r.id)
	return s.layers.Release(r.doc.RootFS.DiffIDs...)
}

// setName points a name at an image; mu is held.
func (s *Store) setName(n ref.Ref, t target) {
	s.dropName(n)
	s.changed()
	s.names[n] = t
	list := append(slices.Clone(s.byID[t.ID]), n)
	slices.SortFunc(list, compareRefs)
	s.byID[t.ID] = list
}

// dropName forgets a name; mu is held.
func (s *Store) dropName(n ref.Ref) {
	t, ok := s.names[n]
	if !ok {
		return
	}
	id := t.ID
	s.changed()
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
	return s.snapshot(r, ""), nil
}

// snapshot describes a record as the origin with the root document shows it, or its newest; mu is held.
func (s *Store) snapshot(r *record, root digest.Digest) *Image {
	img := &Image{
		ID: string(r.id), RepoTags: []string{}, RepoDigests: []string{}, Parent: string(r.Parent), Config: r.doc,
		Layers: r.doc.RootFS.DiffIDs, Size: r.size, Tagged: r.Tagged, LastUsed: s.used.at(r.id),
	}
	img.Manifest, img.Index = s.originOf(r, root)
	if r.doc.Created != nil {
		img.Created = *r.doc.Created
	}
	for _, n := range s.namesOf(r) {
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

// Count tells how many images there are, as info counts them: those of further platforms stand under their image.
func (s *Store) Count() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.images) - len(s.siblings())
}

// Emit tells what happened to an image outside this package: pull and push, after they are done.
func (s *Store) Emit(e Event) { s.emit(e) }

// emit tells it with the image's labels, as long as it is there. No lock is held.
func (s *Store) emit(e Event) {
	if s.cfg.Events == nil {
		return
	}
	attrs := map[string]string{}
	if e.ID != "" {
		s.mu.RLock()
		if h, err := s.resolve(e.ID); err == nil {
			maps.Copy(attrs, h.r.doc.Config.Labels)
		}
		s.mu.RUnlock()
	}
	maps.Copy(attrs, e.Attrs)
	e.Attrs = attrs
	s.cfg.Events(e)
}

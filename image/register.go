package image

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/ref"
	"berth/image/blob"
	"berth/image/layer"
)

// Registration is a new image, or new names for one that exists.
type Registration struct {
	Config    []byte                   // the document, byte for byte
	Parent    digest.Digest            // image it was committed on, or ""
	Manifest  *Attached                // the manifest it came with, or nil
	Index     *Attached                // the index it was chosen from, or nil; only with a manifest
	Documents []Attached               // what else belongs to the index: attestation manifests with their parts, indexes in between
	Blobs     []digest.Digest          // compressed layers in the blob store that the image keeps; the caller holds them until Register returns
	Sources   map[digest.Digest]Source // by diff id: where the compressed layer can be had again
	Names     []ref.Ref                // tags and repository digests it gets; taken from the images that have them
}

// Attached is a document that came with an image, with its bytes.
type Attached struct {
	Descriptor
	Content []byte
}

// Register makes an image of layers that are in the layer store, durably, and gives it names. The caller holds the
// layers. A name stands for the whole index; where an image of another platform that fits this machine better came
// with the same index, the name goes on giving that one. It tells the names that were another image's before.
func (s *Store) Register(ctx context.Context, n Registration) (*Image, map[ref.Ref]digest.Digest, error) {
	doc, err := ParseDocument(n.Config)
	if err != nil {
		return nil, nil, err
	}
	if len(doc.RootFS.DiffIDs) > layer.MaxDepth {
		return nil, nil, fault.New(fault.Invalid, "max depth exceeded")
	}
	id := digest.FromBytes(n.Config)
	hold := s.Hold()
	defer hold.Release()
	if err := hold.put(ctx, id, n.Config); err != nil {
		return nil, nil, err
	}
	st, ix, err := s.origin(ctx, hold, n)
	if err != nil {
		return nil, nil, err
	}
	fresh, err := s.newRecord(id, doc, *st)
	if err != nil {
		return nil, nil, err
	}
	moved, root, err := s.put(fresh, ix, n)
	if err != nil {
		s.release(fresh)
		return nil, nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := s.images[id]
	if r == nil {
		return nil, nil, fault.New(fault.NotFound, "No such image: %s", id) // removed in the meantime
	}
	return s.snapshot(r, root), moved, nil
}

// origin stores the documents of a registration and makes what the record keeps of them.
func (s *Store) origin(ctx context.Context, hold *Hold, n Registration) (*stored, *index, error) {
	st := &stored{Parent: n.Parent}
	if n.Manifest == nil {
		return st, nil, nil
	}
	o := origin{Manifest: n.Manifest.Descriptor, Blobs: slices.Clone(n.Blobs)}
	all := append([]Attached{*n.Manifest}, n.Documents...)
	byDigest := map[digest.Digest][]byte{}
	for _, d := range n.Documents {
		if len(d.Content) > maxDocument {
			return nil, nil, fault.New(fault.Invalid, "document %s has %d bytes, more than the %d that are kept", d.Digest, len(d.Content), maxDocument)
		}
		o.Documents = union(o.Documents, []digest.Digest{d.Digest})
		byDigest[d.Digest] = d.Content
	}
	var ix *index
	if n.Index != nil {
		o.Index = &n.Index.Descriptor
		all = append(all, *n.Index)
		var err error
		ix, err = readIndex(n.Index.Descriptor, n.Index.Content, func(d digest.Digest) ([]byte, error) {
			if raw, ok := byDigest[d]; ok {
				return raw, nil
			}
			return s.blobs.Read(d, maxDocument)
		})
		if err != nil {
			return nil, nil, err
		}
		if !ix.has(o.Manifest.Digest) {
			return nil, nil, fault.New(fault.Invalid, "index %s does not name manifest %s", n.Index.Digest, o.Manifest.Digest)
		}
	}
	for _, d := range all {
		if err := hold.put(ctx, d.Digest, d.Content); err != nil {
			return nil, nil, err
		}
	}
	for _, d := range n.Blobs {
		if err := hold.Blob(d); err != nil {
			return nil, nil, err
		}
	}
	st.Origins = []origin{o}
	return st, ix, nil
}

// put makes a record and its names visible in one transaction. Where the image exists, what is new is merged into it
// and the fresh record's holds are given back.
func (s *Store) put(fresh *record, ix *index, n Registration) (moved map[ref.Ref]digest.Digest, root digest.Digest, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	old := s.images[fresh.id] // changing is held: nobody else writes
	r := fresh
	if old != nil {
		merged := *old
		if o := fresh.newest(); o != nil {
			merged.Origins = merged.withOrigin(*o)
		}
		if merged.Parent == "" {
			merged.Parent = fresh.Parent
		}
		r = &merged
	}
	if len(n.Names) > 0 {
		r.Tagged = time.Now()
	}
	if o := r.newest(); o != nil {
		root = o.root().Digest
		if n.Manifest == nil {
			root = o.Manifest.Digest // what came now was this image alone
		}
	}
	c := newChange()
	c.put[r.id] = r
	c.index = ix
	c.sources = each(n.Sources)
	best := s.suits(root, ix, r)
	moved = map[ref.Ref]digest.Digest{}
	for _, name := range n.Names {
		t := target{ID: best, Root: root}
		if o := r.newest(); o != nil && name.Digest == o.Manifest.Digest {
			t = target{ID: r.id, Root: o.Manifest.Digest} // of this platform alone
		}
		if was, ok := s.names[name]; ok && was.ID != t.ID && (was.Root != root || root == "") {
			moved[name] = was.ID
		}
		c.set[name] = t
	}
	for name, t := range s.names {
		if _, given := c.set[name]; !given && t.Root == root && root != "" && t.ID != best && s.fitsBetter(best, r, t.ID) {
			c.set[name] = target{ID: best, Root: root}
		}
	}
	if err := failpoint.Hit("image/before-commit"); err != nil {
		return nil, "", err
	}
	if err := s.apply(c); err != nil {
		return nil, "", err
	}
	if old != nil {
		s.release(fresh)
	}
	return moved, root, nil
}

// suits is the image that names of a root document give: of those that are here this machine's, else the new one. changing is held.
func (s *Store) suits(root digest.Digest, ix *index, fresh *record) digest.Digest {
	best := fresh
	if ix == nil {
		ix = s.indexes[root]
	}
	host := wantPlatform(nil).match
	for _, r := range s.membersIn(ix) {
		at := r.doc.platform().oci()
		if r.id != fresh.id && host.Match(at) && (!host.Match(best.doc.platform().oci()) || host.Less(at, best.doc.platform().oci())) {
			best = r
		}
	}
	return best.id
}

// fitsBetter reports whether an image, which may be the new one, suits this machine and another one less.
func (s *Store) fitsBetter(id digest.Digest, fresh *record, than digest.Digest) bool {
	a, b := s.images[id], s.images[than]
	if id == fresh.id {
		a = fresh
	}
	if a == nil || b == nil {
		return false
	}
	host := wantPlatform(nil).match
	x, y := a.doc.platform().oci(), b.doc.platform().oci()
	return host.Match(x) && (!host.Match(y) || host.Less(x, y))
}

// change is what one transaction does to images and names. Records in put that are new have their holds already.
type change struct {
	put     map[digest.Digest]*record
	gone    map[digest.Digest]*record
	set     map[ref.Ref]target
	drop    []ref.Ref
	index   *index // that becomes known
	sources map[digest.Digest][]Source
	trash   map[digest.Digest]*trashed // of gone: what can be restored
}

func newChange() *change {
	return &change{put: map[digest.Digest]*record{}, gone: map[digest.Digest]*record{}, set: map[ref.Ref]target{}}
}

// apply makes a change durable and then visible, and settles the holds. Origins that no name stands for any more go
// with it; the holds of images that are gone are given back. changing is held.
func (s *Store) apply(c *change) error {
	s.trim(c)
	sources := s.mergeSources(c.sources)
	if len(c.put)+len(c.gone)+len(c.set)+len(c.drop)+len(sources) == 0 {
		return nil
	}
	var again []*record // that were there before
	for id, r := range c.put {
		if s.images[id] != nil {
			r.held = s.holdDocuments(r)
			again = append(again, r)
		}
	}
	stale := s.staleSources
	err := s.db.Update(func(tx *bolt.Tx) error { return c.write(tx, stale, sources) })
	if err != nil {
		for _, r := range again {
			s.releaseDocuments(r.held)
		}
		return fault.In(err, "write image database")
	}
	_ = failpoint.Hit("image/after-commit") // it is done: only dying here makes sense
	s.staleSources = nil
	before, mended := s.show(c, sources)
	s.settle() // before anything is given back: a root may have been held by its image alone
	for _, old := range before {
		s.releaseDocuments(old.held)
	}
	for _, b := range mended {
		s.releaseBroken(b)
	}
	for id, r := range c.gone {
		if t := c.trash[id]; t != nil { // its holds are the trash's now
			s.throwAway(id)
			t.record = r
			s.trashed[id] = t
			continue
		}
		s.forgetSources(s.release(r))
	}
	return nil
}

// write puts the change into the database. stale are origins that go, sources those that come or change.
func (c *change) write(tx *bolt.Tx, stale []digest.Digest, sources map[digest.Digest][]Source) error {
	if err := failpoint.Hit("image/before-write"); err != nil {
		return err
	}
	for _, r := range c.put {
		if err := putImage(tx, r); err != nil {
			return err
		}
	}
	for id := range c.gone {
		if err := deleteImage(tx, id); err != nil {
			return err
		}
		if t := c.trash[id]; t != nil {
			if err := putTrashed(tx, id, t); err != nil {
				return err
			}
		}
	}
	for _, n := range c.drop {
		if err := deleteName(tx, n); err != nil {
			return err
		}
	}
	for n, t := range c.set {
		if err := putName(tx, n, t); err != nil {
			return err
		}
	}
	for _, d := range stale {
		if err := deleteSources(tx, d); err != nil {
			return err
		}
	}
	for d, list := range sources {
		if err := putSources(tx, d, list); err != nil {
			return err
		}
	}
	return nil
}

// show makes the change visible. It gives the records that others took the place of, and the damaged images that came anew.
func (s *Store) show(c *change, sources map[digest.Digest][]Source) (before []*record, mended []*brokenImage) {
	s.mu.Lock()
	s.changed()
	if c.index != nil {
		s.indexes[c.index.Digest] = c.index
	}
	for id, r := range c.put {
		if old := s.images[id]; old != nil {
			before = append(before, old)
		}
		if b := s.broken[id]; b != nil {
			mended = append(mended, b)
			delete(s.broken, id)
		}
		s.images[id] = r
	}
	for _, n := range c.drop {
		s.dropName(n)
	}
	for n, t := range c.set {
		s.setName(n, t)
	}
	for id := range c.gone {
		delete(s.images, id)
	}
	maps.Copy(s.sources, sources)
	s.mu.Unlock()
	if len(mended) > 0 {
		s.namesAgain()
	}
	return before, mended
}

// trim adds to a change that origins which no name stands for any more are forgotten: all but the newest of an image
// without names, and those of other images that lose a name.
func (s *Store) trim(c *change) {
	touched := map[digest.Digest]bool{}
	for id := range c.put {
		touched[id] = true
	}
	roots := map[digest.Digest]bool{}
	dropped := map[ref.Ref]bool{}
	note := func(n ref.Ref, t target) {
		roots[t.Root] = true
		if n.Digest != "" {
			roots[n.Digest] = true
		}
	}
	lose := func(t target) {
		touched[t.ID] = true
		for _, r := range s.members(t.Root) {
			touched[r.id] = true
		}
	}
	for _, n := range c.drop {
		dropped[n] = true
		lose(s.names[n])
	}
	for n, t := range c.set {
		if was, ok := s.names[n]; ok && was != t {
			lose(was)
		}
		note(n, t)
	}
	for n, t := range s.names {
		if _, again := c.set[n]; !again && !dropped[n] {
			note(n, t)
		}
	}
	for id := range touched {
		r := c.put[id]
		if r == nil {
			r = s.images[id]
		}
		if r == nil || c.gone[id] != nil || len(r.Origins) < 2 {
			continue
		}
		var kept []origin
		for _, o := range r.Origins {
			if roots[o.root().Digest] || roots[o.Manifest.Digest] {
				kept = append(kept, o)
			}
		}
		if len(kept) == 0 {
			kept = r.Origins[len(r.Origins)-1:]
		}
		if len(kept) < len(r.Origins) {
			trimmed := *r
			trimmed.Origins = kept
			c.put[id] = &trimmed
		}
	}
}

// holdDocuments takes a hold on each document of a record that is there. What is lost is told; it is no reason to lose the image.
func (s *Store) holdDocuments(r *record) (held []digest.Digest) {
	for _, d := range r.documents() {
		if err := s.blobs.Retain(context.Background(), d); err != nil {
			s.log.Warn("a document of the image is missing", "image", r.id, "document", d, "err", err)
			continue
		}
		held = append(held, d)
	}
	return held
}

func (s *Store) releaseDocuments(list []digest.Digest) {
	for _, d := range list {
		s.blobs.Release(d)
	}
}

// put keeps bytes that a registration brought, held.
func (h *Hold) put(ctx context.Context, d digest.Digest, content []byte) error {
	if _, err := h.s.blobs.Put(ctx, blob.Want{Digest: d, Size: int64(len(content))}, newReader(content)); err != nil {
		return err
	}
	h.blobs = append(h.blobs, d)
	return nil
}

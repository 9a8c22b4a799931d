package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"berth/base/fault"
	"berth/base/ref"
)

// Part is what of a store can be damaged.
type Part string

// The parts.
const (
	PartDatabase Part = "database"
	PartRecord   Part = "record"   // an image's entry in the database
	PartName     Part = "name"     // a name that stands for nothing
	PartDocument Part = "document" // a configuration, manifest, index or attestation
	PartKept     Part = "blob"     // a kept compressed layer
	PartLayer    Part = "layer"
	PartHold     Part = "hold"   // something is in use and not held: the next removal would take it
	PartOrphan   Part = "orphan" // lies in the store and belongs to nothing
)

// Damage is one thing that is wrong.
type Damage struct {
	Part    Part
	Subject string   // digest, name or path below the store
	Images  []string // names, else ids, of the images that it concerns, sorted
	What    string
	Local   bool     // what is here is enough to repair it
	Sources []Source // where it can be fetched again, the likeliest first

	Repaired bool
	Failed   string // why it could not be repaired; "" where nobody tried
	From     string // repository that it was fetched from
}

// Repairable reports whether there is a way to repair it: to be tried, for sources may be gone.
func (d *Damage) Repairable() bool { return d.Local || len(d.Sources) > 0 }

// Checkup is what Check found.
type Checkup struct {
	Images, Names, Documents, Kept, Layers int   // looked at
	Partly                                 int   // of Layers: only the contents of files, as they could not be unpacked to be compared
	Bytes                                  int64 // read
	Damages                                []Damage
}

// OK reports whether nothing is damaged, or everything that was is repaired.
func (c *Checkup) OK() bool {
	return !slices.ContainsFunc(c.Damages, func(d Damage) bool { return !d.Repaired })
}

// Write prints the checkup: a line for each damage with what would repair it or did, and a sum.
func (c *Checkup) Write(w io.Writer) error {
	for _, d := range c.Damages {
		fmt.Fprintf(w, "%s %s: %s\n", d.Part, d.Subject, d.What)
		if len(d.Images) > 0 {
			fmt.Fprintf(w, "  of %s\n", strings.Join(d.Images, ", "))
		}
		switch {
		case d.Repaired && d.From != "":
			fmt.Fprintf(w, "  repaired: fetched from %s\n", d.From)
		case d.Repaired:
			fmt.Fprintln(w, "  repaired with what is here")
		case d.Failed != "":
			fmt.Fprintf(w, "  not repaired: %s\n", d.Failed)
		case d.Local:
			fmt.Fprintln(w, "  repair: with what is here")
		case len(d.Sources) > 0:
			fmt.Fprintf(w, "  repair: fetch %d bytes from %s\n", d.Sources[0].Descriptor.Size, d.Sources[0].Repository)
		default:
			fmt.Fprintln(w, "  cannot be repaired: no source is known; remove the image and load or pull it again")
		}
	}
	if c.Partly > 0 {
		fmt.Fprintf(w, "of %d layers only the contents of files were checked: there was no room to unpack them beside\n", c.Partly)
	}
	_, err := fmt.Fprintf(w, "%d images, %d names, %d documents, %d kept blobs, %d layers: %d damaged\n", c.Images, c.Names, c.Documents, c.Kept, c.Layers, len(c.Damages))
	return err
}

// brokenImage is an image that is left out because something of it is damaged. What is whole stays held.
type brokenImage struct {
	stored
	layers []digest.Digest // held
	blobs  []digest.Digest // held
	err    error
}

// holdBroken keeps what is there of an image that cannot be shown.
func (s *Store) holdBroken(id digest.Digest, st stored, why error) *brokenImage {
	b := &brokenImage{stored: st, err: why}
	if len(st.Layers) == 0 { // written by an older version
		if raw, err := s.blobs.Read(id, maxDocument); err == nil {
			if doc, err := ParseDocument(raw); err == nil {
				b.Layers = doc.RootFS.DiffIDs
			}
		}
	}
	for _, d := range b.Layers {
		if s.layers.Retain(d) == nil {
			b.layers = append(b.layers, d)
		}
	}
	for _, d := range union([]digest.Digest{id}, st.documents()) {
		if s.blobs.Retain(context.Background(), d) == nil {
			b.blobs = append(b.blobs, d)
		}
	}
	return b
}

func (s *Store) releaseBroken(b *brokenImage) {
	s.releaseDocuments(b.blobs)
	s.layers.Release(b.layers...)
}

// Check verifies everything in the store and changes nothing: the database, each document and kept blob against its digest, each
// layer by building its tar anew, and by unpacking that beside it and comparing; names, and holds. It may run while the store
// is used; what is removed meanwhile is not damage.
func (s *Store) Check(ctx context.Context) (*Checkup, error) {
	hold := s.Hold()
	defer hold.Release()
	c := &checker{s: s, ctx: ctx, hold: hold, wanted: map[digest.Digest][]digest.Digest{}, kept: map[digest.Digest]bool{}, layers: map[digest.Digest][]digest.Digest{}}
	for _, step := range []func() error{c.database, c.records, c.names, c.blobs, c.unpacked, c.holds, c.orphans} {
		if err := step(); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return &c.Checkup, nil
}

// checker is one Check.
type checker struct {
	Checkup
	s      *Store
	ctx    context.Context // of one Check
	hold   *Hold
	images map[digest.Digest]stored          // of the database
	wanted map[digest.Digest][]digest.Digest // documents and blobs, with the images that need them
	kept   map[digest.Digest]bool            // of wanted: kept layers
	layers map[digest.Digest][]digest.Digest // diff ids, with the images that need them
}

func (c *checker) add(d Damage) { c.Damages = append(c.Damages, d) }

// database checks bbolt's own structure, which must not change meanwhile.
func (c *checker) database() error {
	c.s.changing.Lock()
	defer c.s.changing.Unlock()
	for _, path := range c.s.setAside() {
		c.add(Damage{Part: PartDatabase, Subject: filepath.Base(path), What: "a damaged or missing database was replaced by the copy of an earlier start: images that came since have no record, and what belongs to nothing is kept until this is settled", Local: true})
	}
	return c.s.db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			c.add(Damage{Part: PartDatabase, Subject: "images.db", What: err.Error()})
		}
		return nil
	})
}

// records reads what images there are to be, and holds what is there of them.
func (c *checker) records() error {
	c.images = map[digest.Digest]stored{}
	c.s.changing.Lock() // database and memory are of one moment
	defer c.s.changing.Unlock()
	err := c.s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketImages).ForEach(func(k, v []byte) error {
			id := digest.Digest(k)
			var st stored
			if err := json.Unmarshal(v, &st); err != nil || id.Validate() != nil {
				c.add(Damage{Part: PartRecord, Subject: string(k), What: "unreadable", Local: true})
				return nil
			}
			c.images[id] = st
			return nil
		})
	})
	if err != nil {
		return err
	}
	c.Images = len(c.images)
	for id, st := range c.images {
		if b := c.s.broken[id]; b != nil {
			st = b.stored
			c.images[id] = st
		}
		for _, d := range union([]digest.Digest{id}, st.documents()) {
			c.wanted[d] = append(c.wanted[d], id)
			c.keep(d)
		}
		for _, o := range st.Origins {
			for _, d := range o.Blobs {
				c.kept[d] = true
			}
		}
		for _, d := range st.Layers {
			c.layers[d] = union(c.layers[d], []digest.Digest{id})
			_ = c.hold.Layers(d) // what is missing is told below
		}
	}
	for _, t := range c.s.names {
		if t.Root != "" && c.wanted[t.Root] == nil {
			c.wanted[t.Root] = []digest.Digest{t.ID}
			c.keep(t.Root)
		}
	}
	return nil
}

func (c *checker) keep(d digest.Digest) { _ = c.hold.Blob(d) }

// names finds names that stand for nothing.
func (c *checker) names() error {
	return c.s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketNames).ForEach(func(k, v []byte) error {
			c.Names++
			var t target
			n, err := ref.Parse(string(k))
			if err == nil && n.IsNameOnly() {
				err = fault.New(fault.Invalid, "neither a tag nor a digest")
			}
			if err == nil {
				err = json.Unmarshal(v, &t)
			}
			if err == nil && tx.Bucket(bucketImages).Get([]byte(t.ID)) == nil {
				err = fault.New(fault.Internal, "stands for image %s, which is not there", t.ID)
			}
			if err != nil {
				c.add(Damage{Part: PartName, Subject: string(k), What: err.Error(), Local: true})
			}
			return nil
		})
	})
}

// blobs verifies documents and kept layers against their digests.
func (c *checker) blobs() error {
	for _, d := range slices.Sorted(maps.Keys(c.wanted)) {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		part := PartDocument
		if c.kept[d] {
			part = PartKept
			c.Kept++
		} else {
			c.Documents++
		}
		n, err := c.s.blobs.Verify(c.ctx, d)
		c.Bytes += n
		if err == nil {
			continue
		}
		if cerr := c.ctx.Err(); cerr != nil {
			return cerr
		}
		what := err.Error()
		if fault.Is(err, fault.NotFound) {
			what = "missing"
		}
		c.add(Damage{Part: part, Subject: string(d), What: what, Images: c.called(c.wanted[d]), Sources: c.blobSources(d)})
	}
	return nil
}

// unpacked verifies layers.
func (c *checker) unpacked() error {
	here := map[digest.Digest]bool{}
	for _, i := range c.s.layers.List() {
		here[i.DiffID] = true
		if c.hold.Layers(i.DiffID) == nil && c.layers[i.DiffID] == nil {
			c.layers[i.DiffID] = []digest.Digest{}
		}
	}
	for _, d := range slices.Sorted(maps.Keys(c.layers)) {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		c.Layers++
		damage := Damage{Part: PartLayer, Subject: string(d), Images: c.called(c.layers[d])}
		if !here[d] {
			damage.What = "missing, or its description is unreadable"
		} else {
			v, err := c.s.layers.Verify(c.ctx, d)
			c.Bytes += v.Bytes
			if v.Partly != nil {
				c.Partly++
				c.s.log.Warn("only the contents of a layer's files could be checked", "layer", d, "err", v.Partly)
			}
			switch {
			case err == nil:
				continue
			case c.ctx.Err() != nil:
				return c.ctx.Err()
			case !c.s.layers.Has(d):
				continue // removed meanwhile: nobody needs it
			}
			damage.What, damage.Local = err.Error(), v.Rebuilt
		}
		if !damage.Local {
			local := false
			damage.Sources, local = c.s.layerSources(d)
			damage.Local = local
		}
		c.add(damage)
	}
	return nil
}

// holds finds what is needed and held by nobody besides this Check.
func (c *checker) holds() error {
	c.s.changing.Lock()
	defer c.s.changing.Unlock()
	blobs, layers := map[digest.Digest]int{}, map[digest.Digest]int{}
	for _, r := range c.s.images {
		blobs[r.id]++
		for _, d := range r.held {
			blobs[d]++
		}
		for _, d := range r.doc.RootFS.DiffIDs {
			layers[d]++
		}
	}
	for _, t := range c.s.trashed {
		blobs[t.record.id]++
		for _, d := range t.record.held {
			blobs[d]++
		}
		for _, d := range t.record.doc.RootFS.DiffIDs {
			layers[d]++
		}
	}
	for d := range c.s.rootHolds {
		blobs[d]++
	}
	ownBlobs, ownLayers := map[digest.Digest]int{}, map[digest.Digest]int{}
	c.hold.mu.Lock()
	for _, d := range c.hold.blobs {
		ownBlobs[d]++
	}
	for _, d := range c.hold.layers {
		ownLayers[d]++
	}
	c.hold.mu.Unlock()
	few := func(d digest.Digest, have, need int, here bool) {
		if have < need && here {
			c.add(Damage{Part: PartHold, Subject: string(d), What: fmt.Sprintf("held %d times, needed %d times", have, need), Local: true})
		}
	}
	for d, n := range blobs {
		few(d, c.s.blobs.Holds(d)-ownBlobs[d], n, c.s.blobs.Has(d))
	}
	for d, n := range layers {
		few(d, c.s.layers.Holds(d)-ownLayers[d], n, c.s.layers.Has(d))
	}
	return nil
}

// orphans finds what lies in the store and belongs to nothing.
func (c *checker) orphans() error {
	unknown, err := c.s.blobs.Unknown()
	if err != nil {
		return err
	}
	for _, path := range unknown {
		c.add(Damage{Part: PartOrphan, Subject: "blob/" + path, What: "a file that is no blob", Local: true})
	}
	if unknown, err = c.s.layers.Unknown(); err != nil {
		return err
	}
	for _, path := range unknown {
		if slices.ContainsFunc(c.Damages, func(d Damage) bool {
			return d.Part == PartLayer && c.s.layers.Place(digest.Digest(d.Subject)) == path
		}) {
			continue // told as a damaged layer, whose repair takes it away
		}
		c.add(Damage{Part: PartOrphan, Subject: "layer/" + path, What: "a directory that is no layer", Local: true})
	}
	return nil
}

// called gives images the names that people know.
func (c *checker) called(ids []digest.Digest) (list []string) {
	for _, id := range ids {
		var names []string
		for _, n := range c.s.databaseNames(id) {
			names = append(names, n.Familiar())
		}
		if len(names) == 0 {
			names = []string{string(id)}
		}
		list = append(list, names...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

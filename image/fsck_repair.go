package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"berth/base/fault"
	"berth/base/id"
	"berth/base/ref"
	"berth/image/blob"
)

// Fetch gets one document or blob from a source again: by its media type from where a registry has manifests or blobs. The bytes are
// verified here.
type Fetch func(ctx context.Context, src Source) (io.ReadCloser, error)

// Fsck is Check and, unless fetch is nil, Repair of what it found.
func (s *Store) Fsck(ctx context.Context, fetch Fetch) (*Checkup, error) {
	c, err := s.Check(ctx)
	if err != nil || fetch == nil {
		return c, err
	}
	return c, s.Repair(ctx, c, fetch)
}

// Repair repairs what a checkup found, and notes in it what became of each damage. It fetches what is damaged and nothing
// else: a layer whose files are whole and only their attributes are not is made from itself, one whose blob is kept from that.
// The layers of running containers are left alone. Only the end of ctx is an error.
func (s *Store) Repair(ctx context.Context, c *Checkup, fetch Fetch) error {
	r := &repair{s: s, ctx: ctx, fetch: fetch}
	order := []Part{PartDocument, PartKept, PartLayer, PartRecord, PartName, PartHold, PartOrphan, PartDatabase}
	for _, part := range order {
		for i := range c.Damages {
			d := &c.Damages[i]
			if d.Part != part || d.Repaired {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := r.one(d); err != nil {
				d.Failed = err.Error()
				continue
			}
			d.Repaired, d.Failed = true, ""
		}
	}
	s.admitBroken()
	s.holdAgain()
	return ctx.Err()
}

type repair struct {
	s     *Store
	ctx   context.Context // of one Repair
	fetch Fetch
}

func (r *repair) one(d *Damage) error {
	switch d.Part {
	case PartDocument, PartKept:
		return r.blob(d)
	case PartLayer:
		return r.layer(d)
	case PartRecord:
		return r.s.forgetKey(bucketImages, d.Subject)
	case PartName:
		return r.s.forgetKey(bucketNames, d.Subject)
	case PartHold:
		return r.hold(digest.Digest(d.Subject))
	case PartDatabase:
		if strings.HasPrefix(d.Subject, dbSetAside) { // whoever asks for a repair has nothing better
			return os.Remove(filepath.Join(r.s.cfg.Root, d.Subject))
		}
	case PartOrphan:
		if aside := r.s.setAside(); len(aside) > 0 {
			return fault.New(fault.Conflict, "it is kept until the damaged database beside it is settled: pull or load what is missing, and repair again")
		}
		if rest, ok := strings.CutPrefix(d.Subject, "blob/"); ok {
			return r.s.blobs.RemoveUnknown(rest)
		}
		return r.s.layers.RemoveUnknown(strings.TrimPrefix(d.Subject, "layer/"))
	}
	return fault.New(fault.NotImplemented, "%s cannot be repaired: save what is needed, remove it and start with a new store", d.Subject)
}

// each tries the sources of a damage one after the other.
func (r *repair) each(d *Damage, use func(src Source, rc io.Reader) error) error {
	if len(d.Sources) == 0 {
		return fault.New(fault.NotFound, "no source is known")
	}
	var errs []error
	for _, src := range d.Sources {
		rc, err := r.fetch(r.ctx, src)
		if err == nil {
			err = use(src, rc)
			rc.Close()
		}
		if err == nil {
			d.From = src.Repository
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", src.Repository, err))
		if r.ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

func (r *repair) blob(d *Damage) error {
	want := digest.Digest(d.Subject)
	return r.each(d, func(src Source, rc io.Reader) error {
		return r.s.blobs.Replace(r.ctx, blob.Want{Digest: want, Size: src.Descriptor.Size}, rc)
	})
}

// layer puts a whole layer in the place of a damaged one.
func (r *repair) layer(d *Damage) error {
	diffID := digest.Digest(d.Subject)
	if err := r.s.unused(diffID); err != nil {
		return err
	}
	if d.Local {
		err := r.layerFromHere(diffID)
		if err == nil || r.ctx.Err() != nil {
			return err
		}
		if d.Sources, _ = r.s.layerSources(diffID); len(d.Sources) == 0 {
			return err
		}
	}
	return r.each(d, func(_ Source, rc io.Reader) error { return r.putLayer(diffID, rc) })
}

// layerFromHere makes a layer from its own files, or from its kept blob.
func (r *repair) layerFromHere(diffID digest.Digest) error {
	st, err := r.s.layers.Restage(r.ctx, diffID)
	if err == nil {
		defer st.Drop()
		return r.s.layers.Replace(st)
	}
	for _, b := range r.s.keptOf(diffID) {
		f, oerr := r.s.blobs.Open(b)
		if oerr != nil {
			continue
		}
		err = r.putLayer(diffID, f)
		f.Close()
		if err == nil {
			return nil
		}
	}
	return err
}

func (r *repair) putLayer(diffID digest.Digest, rc io.Reader) error {
	st, err := r.s.layers.Stage(r.ctx, rc, diffID)
	if err != nil {
		return err
	}
	defer st.Drop()
	return r.s.layers.Replace(st)
}

// unused refuses a layer that a running container sees: its files would vanish under it.
func (s *Store) unused(diffID digest.Digest) error {
	s.mu.RLock()
	var ids []string
	for _, r := range s.images {
		if slices.Contains(r.Layers, diffID) {
			ids = append(ids, string(r.id))
		}
	}
	for i, b := range s.broken {
		if slices.Contains(b.Layers, diffID) {
			ids = append(ids, string(i))
		}
	}
	s.mu.RUnlock()
	for _, image := range ids {
		for _, u := range s.usedBy(image) {
			if u.Running {
				return fault.New(fault.Conflict, "it is in use by running container %s: stop it and try again", id.Short(u.ContainerID))
			}
		}
	}
	return nil
}

// hold takes the holds that are too few.
func (r *repair) hold(d digest.Digest) error {
	if r.s.layers.Has(d) {
		return r.s.layers.Retain(d)
	}
	return r.s.blobs.Retain(r.ctx, d)
}

// forgetKey deletes an entry of the database that is good for nothing.
func (s *Store) forgetKey(bucket []byte, key string) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	return s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucket).Delete([]byte(key)) })
}

// holdAgain takes the holds of documents that were missing when their images were read, and are here now.
func (s *Store) holdAgain() {
	s.changing.Lock()
	defer s.changing.Unlock()
	for i, r := range s.images {
		again := *r
		for _, d := range r.documents() {
			if !slices.Contains(r.held, d) && s.blobs.Retain(context.Background(), d) == nil {
				again.held = append(slices.Clip(again.held), d)
			}
		}
		if len(again.held) == len(r.held) {
			continue
		}
		s.mu.Lock()
		s.images[i] = &again
		s.changed()
		s.mu.Unlock()
	}
	for _, r := range s.images {
		for _, o := range r.Origins {
			if o.Index == nil || s.indexes[o.Index.Digest] != nil {
				continue
			}
			if ix, err := s.loadIndex(*o.Index); err == nil {
				s.mu.Lock()
				s.indexes[ix.Digest] = ix
				s.changed()
				s.mu.Unlock()
			}
		}
	}
	s.settle()
}

// admitBroken shows images again of which nothing is damaged any more, with their names.
func (s *Store) admitBroken() {
	s.changing.Lock()
	defer s.changing.Unlock()
	for i, b := range s.broken {
		r, err := s.readRecord(i, b.stored)
		if err != nil {
			continue
		}
		s.mu.Lock()
		s.images[i] = r
		s.changed()
		delete(s.broken, i)
		s.mu.Unlock()
		s.releaseBroken(b)
	}
	s.namesAgain()
}

// namesAgain reads the names from the database whose images were left out before. changing is held.
func (s *Store) namesAgain() {
	_ = s.db.View(func(tx *bolt.Tx) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		return tx.Bucket(bucketNames).ForEach(func(k, v []byte) error {
			s.readName(string(k), v)
			return nil
		})
	})
}

// removeBroken removes an image that is left out, with its names, by its id or one of them; found tells whether there is one.
func (s *Store) removeBroken(name string) (done []Removed, found bool, err error) {
	for i, b := range s.broken {
		names := s.databaseNames(i)
		byID := string(i) == name || strings.HasPrefix(i.Encoded(), name) && len(name) >= 12
		n, perr := ref.Parse(name)
		if !byID && (perr != nil || !slices.Contains(names, lookupForm(n))) {
			continue
		}
		err := s.db.Update(func(tx *bolt.Tx) error {
			for _, n := range names {
				if err := deleteName(tx, n); err != nil {
					return err
				}
			}
			return deleteImage(tx, i)
		})
		if err != nil {
			return nil, true, fault.In(err, "write image database")
		}
		s.mu.Lock()
		delete(s.broken, i)
		s.mu.Unlock()
		s.releaseBroken(b)
		for _, n := range names {
			done = append(done, Removed{Untagged: n.Familiar()})
		}
		return append(done, Removed{Deleted: string(i)}), true, nil
	}
	return nil, false, nil
}

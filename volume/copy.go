package volume

import (
	"context"
	"io"
	"maps"
	"strings"
	"sync"
	"time"

	"berth/base/fault"
	"berth/kernel/tree"
	"berth/volume/content"
	"berth/volume/driver"
)

// Export writes a volume's content as a tar archive from which Import makes exactly the same: package content has the format.
// A volume in use is written as it is met.
func (v *Volumes) Export(ctx context.Context, name string, w io.Writer) error {
	out := &guarded{w: w}
	err := v.letGo(ctx, func() error {
		return v.reading(ctx, name, func(root *tree.Dir) error { return content.Write(ctx, root, out) })
	})
	out.end()
	return fault.In(err, "export volume %s", name)
}

// Import unpacks a tar archive, compressed by gzip or zstd or not, into an empty volume; one that is not there is made, with the
// local driver. An archive that is damaged or not of ours and malformed is fault.Invalid, and leaves the volume empty, or not made.
// fault.Conflict: the volume is not empty, or containers refer to it: what they write meanwhile would be mixed with the archive.
func (v *Volumes) Import(ctx context.Context, name string, r io.Reader) error {
	in := &guarded{r: r}
	err := v.letGo(ctx, func() error { return v.importTo(ctx, name, in) })
	in.end()
	return fault.In(err, "import volume %s", name)
}

func (v *Volumes) importTo(ctx context.Context, name string, r io.Reader) error {
	if _, err := v.get(ctx, name); fault.Is(err, fault.NotFound) {
		rec := &Volume{Name: name, Driver: localDriver}
		return v.compose(ctx, rec, func(data *tree.Dir) error { return content.Read(ctx, data, r) })
	}
	return v.inside(ctx, name, func(rec *Volume, root *tree.Dir) error {
		if rec.SnapshotOf != "" {
			return fault.New(fault.Conflict, "%s is a snapshot: clone it first", name)
		}
		if refs := v.references(name); len(refs) > 0 {
			return fault.New(fault.Conflict, "volume is in use - [%s]", strings.Join(refs, ", "))
		}
		empty, err := content.Empty(root)
		if err == nil && !empty {
			err = fault.New(fault.Conflict, "volume %s is not empty", name)
		}
		if err != nil {
			return err
		}
		if err = content.Read(ctx, root, r); err == nil {
			err = root.SyncFS()
		}
		if err != nil {
			if cerr := content.Clear(root); cerr != nil {
				v.log.Error("half-imported volume cannot be cleared", "volume", name, "error", cerr)
			}
		}
		return err
	})
}

// guarded is a caller's stream that is not touched any more once he has been let go.
type guarded struct {
	mu    sync.Mutex // held while the stream is used
	w     io.Writer
	r     io.Reader
	ended bool
}

func (g *guarded) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return 0, io.ErrClosedPipe
	}
	return g.w.Write(b)
}

func (g *guarded) Read(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return 0, io.ErrClosedPipe
	}
	return g.r.Read(b)
}

func (g *guarded) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
}

// Clone makes a volume dst with the content, options and labels of src, by the driver where it can, else by copying: blocks are
// shared where the file system has reflinks. Clones of volumes that the local driver mounts from elsewhere are plain directories.
// A volume in use is copied as it is met. fault.Conflict: dst is there already.
func (v *Volumes) Clone(ctx context.Context, src, dst string) error {
	err := v.letGo(ctx, func() error { return v.clone(ctx, src, dst, "") })
	return fault.In(err, "clone volume %s to %s", src, dst)
}

// Snapshot keeps the content that a volume has now under a name of its own. A snapshot is read-only; Clone of it gives a volume to work with.
func (v *Volumes) Snapshot(ctx context.Context, name, snap string) error {
	err := v.letGo(ctx, func() error { return v.clone(ctx, name, snap, name) })
	return fault.In(err, "snapshot volume %s as %s", name, snap)
}

func (v *Volumes) clone(ctx context.Context, src, dst, snapshotOf string) error {
	from, ok := v.record(src)
	if !ok {
		vol, err := v.get(ctx, src)
		if err != nil {
			return err
		}
		from = &vol
	}
	if src == dst {
		return fault.New(fault.Conflict, "there is a volume %s already", dst)
	}
	rec := &Volume{Name: dst, Driver: from.Driver, Labels: maps.Clone(from.Labels), Options: maps.Clone(from.Options), SnapshotOf: snapshotOf}
	delete(rec.Labels, anonymousLabel)
	if from.Driver == localDriver && v.local.Mounts(src) {
		rec.Options = nil
	}
	d, err := v.driver(ctx, from.Driver)
	if err != nil {
		return err
	}
	if copier, ok := d.(driver.Copier); ok {
		err := v.cloneByDriver(ctx, copier, from, rec)
		if !fault.Is(err, fault.NotImplemented) {
			return err
		}
		v.log.Info("the driver makes no copies: copied file by file", "volume", src, "driver", from.Driver)
	}
	// The source is held as a user's first: two turns are never waited for one in the other.
	return v.reading(ctx, src, func(root *tree.Dir) error {
		return v.compose(ctx, rec, func(data *tree.Dir) error {
			_, err := content.Copy(ctx, root, data)
			return err
		})
	})
}

func (v *Volumes) cloneByDriver(ctx context.Context, d driver.Copier, from, rec *Volume) error {
	release, err := v.turns.Take(ctx, from.Name, rec.Name)
	if err != nil {
		return err
	}
	defer release()
	if err := v.free(rec.Name); err != nil {
		return err
	}
	if rec.SnapshotOf != "" {
		err = d.Snapshot(ctx, from.Name, rec.Name)
	} else {
		err = d.Clone(ctx, from.Name, rec.Name, rec.Options)
	}
	if err != nil {
		return err
	}
	whole, err := v.driver(ctx, rec.Driver)
	if err != nil {
		return err
	}
	rec.Created = time.Now().UTC()
	return v.recordMade(ctx, whole, rec, true)
}

// free refuses a name that is bad or taken.
func (v *Volumes) free(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, taken := v.record(name); taken {
		return fault.New(fault.Conflict, "there is a volume %s already", name)
	}
	return nil
}

// compose makes a new volume whose content fill gives. A local one has no name before it is whole and on disk; one of another
// driver is removed again when fill fails.
func (v *Volumes) compose(ctx context.Context, rec *Volume, fill func(data *tree.Dir) error) error {
	release, err := v.turns.Take(ctx, rec.Name)
	if err != nil {
		return err
	}
	defer release()
	if err := v.free(rec.Name); err != nil {
		return err
	}
	d, err := v.driver(ctx, rec.Driver)
	if err != nil {
		return err
	}
	if err := d.Check(rec.Options); err != nil {
		return err
	}
	rec.Created = time.Now().UTC()
	filled := func(at string) error {
		data, err := tree.OpenDir(at)
		if err != nil {
			return err
		}
		defer data.Close()
		if err := fill(data); err != nil {
			return err
		}
		return data.SyncFS()
	}
	if rec.Driver == localDriver {
		err = v.make(ctx, d, rec, filled)
	} else {
		err = v.makeElsewhere(ctx, d, rec, filled)
	}
	if err != nil {
		return err
	}
	v.cfg.Emit("create", rec.Name, map[string]string{"driver": rec.Driver})
	return nil
}

// makeElsewhere makes and fills a volume of a driver outside the engine.
func (v *Volumes) makeElsewhere(ctx context.Context, d driver.Driver, rec *Volume, fill func(at string) error) error {
	const user = "berth-filling"
	if _, err := d.Get(ctx, rec.Name); err == nil {
		return fault.New(fault.Conflict, "there is a volume %s already", rec.Name)
	} else if !fault.Is(err, fault.NotFound) {
		return err
	}
	if err := d.Create(ctx, rec.Name, rec.Options); err != nil {
		return err
	}
	at, err := d.Mount(ctx, rec.Name, user)
	if err == nil {
		err = fill(at)
		if uerr := d.Unmount(context.WithoutCancel(ctx), rec.Name, user); err == nil {
			err = uerr
		}
	}
	if err != nil {
		if rerr := d.Remove(context.WithoutCancel(ctx), rec.Name); rerr != nil {
			v.log.Error("half-made volume stays with its driver", "volume", rec.Name, "driver", rec.Driver, "error", rerr)
		}
		return err
	}
	return v.recordMade(ctx, d, rec, true)
}

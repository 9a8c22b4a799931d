package volume

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"time"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/id"
	"berth/volume/driver"
	"berth/volume/local"
)

const (
	stagePrefix = ".new-"
	gonePrefix  = ".gone-"
)

// anonymousLabel marks volumes whose name was made up, as Docker's own.
const anonymousLabel = "com.docker.volume.anonymous"

// Create makes a volume, or gives the one of that name if its driver is the same, whatever its options. It is durable before the
// answer. Errors are "create NAME: …": fault.Invalid for wrong names and options, fault.Conflict when another driver has the
// name, fault.NotFound when there is no such driver, and what the driver says.
func (v *Volumes) Create(ctx context.Context, r CreateRequest) (Volume, error) {
	if r.Name == "" {
		r.Name, r.Anonymous = id.New(), true
	}
	if r.Anonymous {
		r.Labels = maps.Clone(r.Labels)
		if r.Labels == nil {
			r.Labels = map[string]string{}
		}
		r.Labels[anonymousLabel] = ""
	}
	vol, made, err := v.create(ctx, r)
	if err != nil {
		return Volume{}, fault.In(err, "create %s", r.Name)
	}
	if made {
		v.cfg.Emit("create", vol.Name, map[string]string{"driver": vol.Driver})
	}
	return vol, nil
}

func (v *Volumes) create(ctx context.Context, r CreateRequest) (vol Volume, made bool, err error) {
	if err := CheckName(r.Name); err != nil {
		return vol, false, err
	}
	release, err := v.turns.Take(ctx, r.Name)
	if err != nil {
		return vol, false, err
	}
	defer release()
	if rec, ok := v.record(r.Name); ok {
		vol, gone, err := v.existing(ctx, rec, r.Driver)
		if err != nil || !gone {
			return vol, false, err
		}
	} else if r.Driver == "" && len(v.finders) > 0 {
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		vol, ok := v.elsewhere(ask, r.Name)
		cancel()
		if ok {
			return vol, false, nil
		}
	}
	if r.Driver == "" {
		r.Driver = localDriver
	}
	d, err := v.driver(ctx, r.Driver)
	if err != nil {
		return vol, false, err
	}
	if err := d.Check(r.Options); err != nil {
		return vol, false, err
	}
	rec := &Volume{Name: r.Name, Driver: r.Driver, Created: time.Now().UTC(), Labels: maps.Clone(r.Labels),
		Options: maps.Clone(r.Options), Anonymous: r.Anonymous}
	if err := v.make(ctx, d, rec, nil); err != nil {
		return vol, false, err
	}
	return v.described(ctx, d, rec), true, nil
}

// existing gives a volume that is on record. gone tells that its driver has it no longer: the record is dropped then.
func (v *Volumes) existing(ctx context.Context, rec *Volume, kind string) (vol Volume, gone bool, err error) {
	if kind != "" && kind != rec.Driver {
		if _, err := v.driver(ctx, kind); err != nil {
			return vol, false, err
		}
		return vol, false, fault.New(fault.Conflict, "driver '%s' already has volume '%s': volume name must be unique", rec.Driver, rec.Name)
	}
	vol, err = v.get(ctx, rec.Name)
	if !fault.Is(err, fault.NotFound) {
		return vol, false, err
	}
	if refs := v.references(rec.Name); len(refs) > 0 {
		return vol, false, fault.New(fault.Conflict, "found references to volume '%s' in driver '%s' but the volume was not found in the driver -- you may need to remove containers referencing this volume or force remove the volume to re-create it: volume name must be unique", rec.Name, rec.Driver)
	}
	return vol, true, v.drop(rec.Name)
}

// make makes a volume with its driver and puts it on record. fill, if any, gives a local volume its content before it has a name.
func (v *Volumes) make(ctx context.Context, d driver.Driver, rec *Volume, fill func(data string) error) error {
	if rec.Driver != localDriver {
		_, err := d.Get(ctx, rec.Name)
		ours := fault.Is(err, fault.NotFound) // else it was there before us, and stays whatever happens
		if err := d.Create(ctx, rec.Name, rec.Options); err != nil {
			return err
		}
		return v.recordMade(ctx, d, rec, ours)
	}
	if err := v.stage(rec, fill); err != nil {
		return err
	}
	if err := d.Create(ctx, rec.Name, rec.Options); err != nil {
		return err
	}
	v.keep(rec.Name, rec)
	return nil
}

// recordMade puts a volume on record that its driver has made; if that fails, the driver removes it again if it is ours.
func (v *Volumes) recordMade(ctx context.Context, d driver.Driver, rec *Volume, ours bool) error {
	err := failpoint.Hit("volume/made-not-recorded")
	if err == nil {
		err = v.stage(rec, nil)
	}
	if err != nil {
		if !ours {
			return err
		}
		if rerr := d.Remove(context.WithoutCancel(ctx), rec.Name); rerr != nil {
			v.log.Error("volume without a record stays with its driver", "volume", rec.Name, "driver", rec.Driver, "error", rerr)
		}
		return err
	}
	v.keep(rec.Name, rec)
	return nil
}

// stage makes a volume's directory under a name that means nothing, and gives it the volume's when it is whole and synced.
func (v *Volumes) stage(rec *Volume, fill func(data string) error) error {
	dir, err := os.MkdirTemp(v.cfg.Root, stagePrefix)
	if err != nil {
		return err
	}
	if err := v.whole(dir, rec, fill); err != nil {
		v.local.Forget(dir)
		if rerr := os.RemoveAll(dir); rerr != nil {
			v.log.Error("left-over of a volume cannot be deleted yet", "path", dir, "error", rerr)
		}
		return err
	}
	if err := os.Rename(dir, v.path(rec.Name)); err != nil {
		os.RemoveAll(dir)
		return err
	}
	failpoint.Hit("volume/named")
	return atomicfile.SyncDir(v.cfg.Root)
}

// whole fills a volume's directory, durably.
func (v *Volumes) whole(dir string, rec *Volume, fill func(data string) error) error {
	if err := os.Chmod(dir, 0o701); err != nil {
		return err
	}
	if rec.Driver == localDriver {
		if err := v.local.Prepare(dir, rec.Options); err != nil {
			return err
		}
		if fill != nil {
			if err := fill(filepath.Join(dir, local.Data)); err != nil {
				return err
			}
		}
	}
	if err := writeRecord(dir, rec); err != nil { // syncs the directory, so _data too
		return err
	}
	return failpoint.Hit("volume/staged")
}

// described gives a volume that was just made.
func (v *Volumes) described(ctx context.Context, d driver.Driver, rec *Volume) Volume {
	if rec.Driver == localDriver {
		return v.filled(*rec)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	found, err := d.Get(ctx, rec.Name)
	if err != nil {
		v.log.Warn("volume was made, but its driver does not tell of it", "volume", rec.Name, "driver", rec.Driver, "error", err)
	}
	return merged(*rec, d.Scope(ctx), found)
}

package volume

import (
	"context"
	"maps"
	"strconv"

	"berth/base/fault"
	"berth/volume/driver"
)

// Resize changes what a volume can hold: the limit of a local one that was made with size, the capacity of a CSI driver's. Containers that use it
// see the change at once. fault.NotImplemented: the volume has no limit, or its driver cannot change it.
func (v *Volumes) Resize(ctx context.Context, name string, bytes int64) error {
	return fault.In(v.resize(ctx, name, bytes), "resize volume %s", name)
}

func (v *Volumes) resize(ctx context.Context, name string, bytes int64) error {
	if bytes <= 0 {
		return fault.New(fault.Invalid, "%d bytes are no size", bytes)
	}
	release, err := v.turns.Take(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	rec, ok := v.record(name)
	if !ok {
		return noSuchVolume()
	}
	d, err := v.driver(ctx, rec.Driver)
	if err != nil {
		return err
	}
	sized, ok := d.(driver.Resizer)
	if !ok {
		return fault.New(fault.NotImplemented, "driver %s cannot change the size of its volumes", rec.Driver)
	}
	if err := sized.Resize(ctx, name, bytes); err != nil {
		return err
	}
	if rec.Driver != localDriver {
		return nil // the driver's options stay what the volume was made with
	}
	changed := *rec
	changed.Options = maps.Clone(rec.Options)
	changed.Options["size"] = strconv.FormatInt(bytes, 10)
	if err := writeRecord(v.path(name), &changed); err != nil {
		return err
	}
	v.keep(name, &changed)
	return nil
}

package volume

import (
	"context"
	"errors"
	"os"
	"strings"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/volume/driver"
)

// Rename gives a volume another name. Nobody may refer to it. fault.Conflict: it is in use, or the new name is taken;
// fault.NotImplemented: its driver knows it by its name.
func (v *Volumes) Rename(ctx context.Context, name, to string) error {
	err := v.rename(ctx, name, to)
	return fault.In(err, "rename %s to %s", name, to)
}

func (v *Volumes) rename(ctx context.Context, name, to string) error {
	if err := CheckName(to); err != nil {
		return err
	}
	release, err := v.turns.Take(ctx, name, to)
	if err != nil {
		return err
	}
	defer release()
	rec, ok := v.record(name)
	if !ok {
		return noSuchVolume()
	}
	if name == to {
		return nil
	}
	if _, taken := v.record(to); taken {
		return fault.New(fault.Conflict, "there is a volume %s already", to)
	}
	if refs := v.references(name); len(refs) > 0 {
		return fault.New(fault.Conflict, "volume is in use - [%s]", strings.Join(refs, ", "))
	}
	d, err := v.driver(ctx, rec.Driver)
	if err != nil {
		return err
	}
	named, ok := d.(driver.Renamer)
	if !ok {
		return fault.New(fault.NotImplemented, "driver %s has no way to rename its volumes", rec.Driver)
	}
	if err := v.move(ctx, rec.Driver, named, name, to); err != nil {
		return err
	}
	renamed := *rec
	renamed.Name = to
	v.keep(name, nil)
	v.keep(to, &renamed)
	v.cfg.Emit("rename", to, map[string]string{"driver": rec.Driver, "oldName": name})
	// The name in the record is for readers only: the directory's is the volume's.
	if err := writeRecord(v.path(to), &renamed); err != nil {
		v.log.Warn("record of a renamed volume shows its old name", "volume", to, "error", err)
	}
	return nil
}

// move renames the directory and what the driver keeps. A driver outside has files of its own, so that there are two steps: a note tells the next
// engine to finish them.
func (v *Volumes) move(ctx context.Context, kind string, d driver.Renamer, name, to string) error {
	note := v.path(renamePrefix + name)
	if kind != localDriver {
		if err := atomicfile.Write(note, []byte(to), 0o600); err != nil {
			return err
		}
		if err := d.Rename(ctx, name, to); err != nil {
			return errors.Join(err, atomicfile.Remove(note))
		}
		if err := failpoint.Hit("volume/half-renamed"); err != nil {
			return err
		}
	}
	if err := os.Rename(v.path(name), v.path(to)); err != nil {
		return err
	}
	if kind != localDriver {
		return atomicfile.Remove(note) // syncs the root
	}
	if err := atomicfile.SyncDir(v.cfg.Root); err != nil {
		return err
	}
	return d.Rename(ctx, name, to)
}

// renamePrefix begins the name of a note that says what a volume is being renamed to.
const renamePrefix = ".renaming-"

// finishRename does what is left of a rename: the driver's part was first, and nobody knows whether it was done; doing it again is no error.
func (v *Volumes) finishRename(ctx context.Context, name string) error {
	note := v.path(renamePrefix + name)
	b, err := os.ReadFile(note)
	if err != nil {
		return err
	}
	to := string(b)
	if CheckName(name) != nil || CheckName(to) != nil {
		return fault.New(fault.Internal, "%s names no volumes", note)
	}
	rec, found, err := readRecord(v.path(name))
	if err != nil {
		return err
	}
	if found {
		d, err := v.driver(ctx, rec.Driver)
		if err != nil {
			return err
		}
		if named, ok := d.(driver.Renamer); ok {
			if err := named.Rename(ctx, name, to); err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
		}
		if err := os.Rename(v.path(name), v.path(to)); err != nil {
			return err
		}
	}
	return atomicfile.Remove(note)
}

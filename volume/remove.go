package volume

import (
	"context"
	"os"
	"slices"
	"strings"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/kernel/mount"
	"berth/volume/driver"
)

// removeOptions say how a volume is removed.
type removeOptions struct {
	force bool   // drop the record although the driver fails; delete what cannot go into the trash
	good  bool   // not into the trash
	with  string // the container that it is removed with
}

// Remove takes a volume and its content away: into the trash where there is one, else for good. fault.Conflict: "remove NAME: volume is in use - [ids]", force or not;
// fault.NotFound: "get NAME: no such volume", unless force. force also drops the record of a volume whose driver fails. Where removed
// volumes can be restored, one that cannot, because its content is with another driver, is refused unless force.
func (v *Volumes) Remove(ctx context.Context, name string, force bool) error {
	return v.removeAsked(ctx, name, removeOptions{force: force})
}

// RemoveWith is Remove of a volume that was made for a container alone, with the container.
func (v *Volumes) RemoveWith(ctx context.Context, name, containerID string) error {
	return v.removeAsked(ctx, name, removeOptions{with: containerID})
}

// RemoveForGood is Remove past the trash, of what nobody can want back.
func (v *Volumes) RemoveForGood(ctx context.Context, name string) error {
	return v.removeAsked(ctx, name, removeOptions{good: true})
}

func (v *Volumes) removeAsked(ctx context.Context, name string, o removeOptions) error {
	force := o.force
	if _, err := v.Get(ctx, name); err != nil {
		_, recorded := v.record(name)
		switch {
		case recorded && (force || fault.Is(err, fault.NotFound)):
		case fault.Is(err, fault.NotFound) && force:
			return nil
		default:
			return err
		}
	}
	release, err := v.turns.Take(ctx, name)
	if err != nil {
		return fault.In(err, "remove %s", name)
	}
	defer release()
	kind, err := v.remove(ctx, name, o)
	if err != nil {
		return fault.In(err, "remove %s", name)
	}
	v.cfg.Emit("destroy", name, map[string]string{"driver": kind})
	return nil
}

func (v *Volumes) remove(ctx context.Context, name string, o removeOptions) (kind string, err error) {
	if refs := v.references(name); len(refs) > 0 {
		return "", fault.New(fault.Conflict, "volume is in use - [%s]", strings.Join(refs, ", "))
	}
	rec, recorded := v.record(name)
	if !recorded { // a plugin's own
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		vol, ok := v.elsewhere(ask, name)
		if !ok {
			return "", noSuchVolume()
		}
		rec = &vol
	}
	window := v.window()
	if o.good {
		window = 0
	}
	if window > 0 && rec.Driver != localDriver && !o.force {
		return "", fault.New(fault.Conflict, "a volume of driver %s cannot be kept in the trash: remove it with --force to delete it for good", rec.Driver)
	}
	var d driver.Driver
	if d, err = v.driver(ctx, rec.Driver); err == nil {
		err = d.Remove(ctx, name)
	}
	if err != nil && !o.force {
		return "", err
	}
	if err != nil {
		if later, ok := d.(driver.Forgetter); ok {
			if err := later.Forget(ctx, name); err != nil {
				return "", err
			}
		}
		v.log.Warn("volume forgotten by force; its driver may still have it", "volume", name, "driver", rec.Driver, "error", err)
	}
	if recorded && window > 0 && rec.Driver == localDriver {
		return rec.Driver, v.trash(name, o.with, window)
	}
	if recorded {
		return rec.Driver, v.drop(name)
	}
	return rec.Driver, nil
}

// drop takes a volume's directory away: its name at once and durably, then the content. What cannot be deleted now is tried
// again by Open.
func (v *Volumes) drop(name string) error {
	gone := gonePrefix + name
	// A left-over of that name: the same volume was removed, and made again, before.
	v.sweep(gone)
	if err := os.Rename(v.path(name), v.path(gone)); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := atomicfile.SyncDir(v.cfg.Root); err != nil {
		return err
	}
	v.keep(name, nil)
	failpoint.Hit("volume/unnamed")
	v.sweep(gone)
	return nil
}

// sweep deletes a directory in the root that has no name any more.
func (v *Volumes) sweep(name string) {
	path := v.path(name)
	if _, err := os.Lstat(path); os.IsNotExist(err) {
		return
	}
	v.local.Forget(path)
	// Nothing that is mounted below may be emptied.
	if err := mount.UnmountBelow(path); err != nil {
		v.log.Error("left-over of a volume is mounted and stays", "path", path, "error", err)
		return
	}
	if err := v.lock.RemoveAll(name); err != nil {
		v.log.Error("left-over of a volume cannot be deleted yet", "path", path, "error", err)
	}
}

// references lists who refers to a volume or has it mounted.
func (v *Volumes) references(name string) []string {
	v.mu.Lock()
	usedBy := v.usedBy
	var refs []string
	for user := range v.users[name] {
		refs = append(refs, user)
	}
	v.mu.Unlock()
	if usedBy != nil {
		refs = append(refs, usedBy(name)...)
	}
	slices.Sort(refs)
	return slices.Compact(refs)
}

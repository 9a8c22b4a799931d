package volume

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/kernel/mount"
	"berth/volume/driver"
)

// Remove takes a volume and its content away for good. fault.Conflict: "remove NAME: volume is in use - [ids]", force or not;
// fault.NotFound: "get NAME: no such volume", unless force. force also drops the record of a volume whose driver fails.
func (v *Volumes) Remove(ctx context.Context, name string, force bool) error {
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
	kind, err := v.remove(ctx, name, force)
	if err != nil {
		return fault.In(err, "remove %s", name)
	}
	v.cfg.Emit("destroy", name, map[string]string{"driver": kind})
	return nil
}

func (v *Volumes) remove(ctx context.Context, name string, force bool) (kind string, err error) {
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
	var d driver.Driver
	if d, err = v.driver(ctx, rec.Driver); err == nil {
		err = d.Remove(ctx, name)
	}
	if err != nil && !force {
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

// Prune removes the local volumes that nobody refers to and that keep does not want to stay. As Docker's, it spares those with
// options, whose content is elsewhere. keep nil keeps none. fault.Conflict while another one runs.
func (v *Volumes) Prune(ctx context.Context, keep func(Volume) bool) (PruneReport, error) {
	report := PruneReport{Deleted: []string{}}
	if !v.pruning.CompareAndSwap(false, true) {
		return report, fault.New(fault.Conflict, "a prune operation is already running")
	}
	defer v.pruning.Store(false)
	v.mu.Lock()
	all := sorted(v.records)
	v.mu.Unlock()
	for _, name := range all {
		if ctx.Err() != nil {
			break // what was removed is told
		}
		rec, ok := v.record(name)
		if !ok || rec.Driver != localDriver || len(rec.Options) > 0 || keep != nil && keep(v.filled(*rec)) {
			continue
		}
		if len(v.references(name)) > 0 {
			continue
		}
		size, err := v.Size(ctx, name)
		if err != nil {
			v.log.Warn("size of a volume unknown", "volume", name, "error", err)
		}
		if err := v.Remove(ctx, name, false); err != nil {
			if !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
				v.log.Warn("volume not pruned", "volume", name, "error", err)
			}
			continue
		}
		report.Deleted = append(report.Deleted, name)
		report.Reclaimed += uint64(max(size, 0))
	}
	v.cfg.Emit("prune", "", map[string]string{"reclaimed": strconv.FormatUint(report.Reclaimed, 10)})
	return report, nil
}

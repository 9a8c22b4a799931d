package volume

import (
	"context"
	"strconv"
	"strings"
	"time"

	"berth/base/fault"
	"berth/base/id"
	"berth/base/removal"
)

// PlanPrune says which local volumes nobody refers to. As Docker's, it spares those with options, whose content is elsewhere, and those
// of which keep says why they stay; keep nil keeps none. gone says which containers are to be taken for gone; nil: none.
func (v *Volumes) PlanPrune(ctx context.Context, keep func(Volume) (why string), gone func(containerID string) bool) (*removal.Plan, error) {
	plan := removal.NewPlan(time.Now())
	v.mu.Lock()
	all := sorted(v.records)
	v.mu.Unlock()
	for _, name := range all {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rec, ok := v.record(name)
		if !ok {
			continue
		}
		item := removal.Item{Kind: removal.Volume, ID: name, Name: name, Created: rec.Created, Size: -1}
		var users []string
		for _, u := range v.references(name) {
			if gone == nil || !gone(u) {
				users = append(users, "container "+id.Short(u))
			}
		}
		switch {
		case len(users) > 0:
			item.Why = "used by " + strings.Join(users, ", ")
		case rec.Driver != localDriver:
			item.Why = "its content is with driver " + rec.Driver
		case len(rec.Options) > 0:
			item.Why = "its content is elsewhere: it has options"
		case keep != nil:
			item.Why = keep(v.filled(*rec))
		}
		if item.Why != "" {
			plan.Spare = append(plan.Spare, item)
			continue
		}
		size, err := v.Size(ctx, name)
		if err != nil {
			v.log.Warn("size of a volume unknown", "volume", name, "error", err)
			size = -1
		}
		item.Size, item.Look, item.Why = size, look(rec, size), "no container refers to it"
		if rec.Anonymous {
			item.Why = "anonymous, and " + item.Why
		}
		plan.Remove = append(plan.Remove, item)
		plan.Reclaimable += max(0, size)
	}
	return plan, nil
}

// look is what a plan remembers of a volume: that it is the same one, with as much in it.
func look(rec *Volume, size int64) string {
	return rec.Created.UTC().Format(time.RFC3339Nano) + " " + strconv.FormatInt(size, 10)
}

// ApplyPrune removes what a plan says, as far as it still looks as it did then, and nothing else. fault.Conflict while another one runs.
func (v *Volumes) ApplyPrune(ctx context.Context, plan *removal.Plan) (removal.Outcome, error) {
	out := removal.Outcome{Trashed: v.window() > 0}
	if !v.pruning.CompareAndSwap(false, true) {
		return out, fault.New(fault.Conflict, "a prune operation is already running")
	}
	defer v.pruning.Store(false)
	for _, item := range removal.Of(plan.Remove, removal.Volume) {
		if ctx.Err() != nil {
			break // what was removed is told
		}
		rec, ok := v.record(item.ID)
		if !ok {
			out.Skip(item, "it is gone already")
			continue
		}
		size, err := v.Size(ctx, item.ID)
		if err != nil {
			size = -1
		}
		if look(rec, size) != item.Look {
			out.Skip(item, "its content has changed")
			continue
		}
		switch err := v.removeExactly(ctx, item.ID, rec); {
		case err == nil:
			item.Size = size
			out.Done(item)
		default:
			out.Skip(item, err.Error())
			if !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
				v.log.Warn("volume not pruned", "volume", item.ID, "error", err)
			}
		}
	}
	if out.Trashed {
		out.Reclaimed = 0 // not before its time in the trash is over
	}
	v.cfg.Emit("prune", "", map[string]string{"reclaimed": strconv.FormatInt(out.Reclaimed, 10)})
	return out, nil
}

// removeExactly removes a volume if it is still the one of that record.
func (v *Volumes) removeExactly(ctx context.Context, name string, seen *Volume) error {
	release, err := v.turns.Take(ctx, name)
	if err != nil {
		return fault.In(err, "remove %s", name)
	}
	defer release()
	if rec, ok := v.record(name); !ok || !rec.Created.Equal(seen.Created) {
		return fault.New(fault.NotFound, "it is another volume now")
	}
	kind, err := v.remove(ctx, name, removeOptions{})
	if err != nil {
		return err
	}
	v.cfg.Emit("destroy", name, map[string]string{"driver": kind})
	return nil
}

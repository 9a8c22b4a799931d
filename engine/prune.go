package engine

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"berth/base/fault"
	"berth/base/removal"
	"berth/engine/container"
)

// PlanPrune says which containers do not run and match. It changes nothing.
func (e *Engine) PlanPrune(ctx context.Context, f container.Filters) (*removal.Plan, error) {
	now := time.Now()
	match, err := f.ForPrune(container.Lookup{Now: now})
	if err != nil {
		return nil, err
	}
	plan := removal.NewPlan(now)
	for _, c := range e.index.all() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		i := c.snapshot()
		if c.hidden {
			continue
		}
		item := removal.Item{Kind: removal.Container, ID: c.id, Name: i.Name, Size: -1, Created: i.Created, LastUsed: lastUsed(i)}
		switch {
		case i.State.Running:
			item.Why = "it is " + string(i.State.Status)
			plan.Spare = append(plan.Spare, item)
			continue
		case !match(i):
			item.Why = "the filters leave it out"
			plan.Spare = append(plan.Spare, item)
			continue
		}
		item.Look, item.Why = look(i), whyPrune(i)
		if size, err := e.images.LayerSize(c.id); err == nil {
			item.Size = size
		}
		plan.Remove = append(plan.Remove, item)
		plan.Reclaimable += max(0, item.Size)
	}
	removal.Sort(plan.Remove)
	removal.Sort(plan.Spare)
	return plan, nil
}

// look is what a plan remembers of a container: what it is called and that it has not run since.
func look(i *container.Info) string {
	return fmt.Sprintf("%s %s %d %d", i.Name, i.State.Status, unixNano(i.State.StartedAt), unixNano(i.State.FinishedAt))
}

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// lastUsed is when a container last ran.
func lastUsed(i *container.Info) time.Time {
	if i.State.FinishedAt.After(i.State.StartedAt) {
		return i.State.FinishedAt
	}
	return i.State.StartedAt
}

func whyPrune(i *container.Info) string {
	switch {
	case i.State.Status == container.Dead:
		return "its removal failed before"
	case i.State.StartedAt.IsZero():
		return "never started"
	}
	return "ended with code " + strconv.Itoa(i.State.ExitCode)
}

// Prune removes the containers of a plan that still look as they did then, and nothing else: as Docker, not the volumes that were made
// for them.
func (e *Engine) Prune(ctx context.Context, plan *removal.Plan) (removal.Outcome, error) {
	out := removal.Outcome{Trashed: e.cfg.TrashWindow != nil && e.cfg.TrashWindow() > 0}
	for _, item := range removal.Of(plan.Remove, removal.Container) {
		if ctx.Err() != nil {
			break // what was done is reported
		}
		c := e.index.get(item.ID)
		if c == nil || c.hidden {
			out.Skip(item, "it is gone already")
			continue
		}
		if size, err := e.images.LayerSize(c.id); err == nil {
			item.Size = size
		}
		err := e.removeIf(ctx, c.id, RemoveOptions{}, func(i *container.Info) error {
			if look(i) != item.Look {
				return fault.New(fault.Conflict, "it has changed: it is %s", changed(i))
			}
			return nil
		})
		switch {
		case err == nil:
			out.Done(item)
		default:
			out.Skip(item, err.Error())
			if !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Conflict) {
				e.log.Warn("prune could not remove a container", "container", c.id, "error", err)
			}
		}
	}
	if out.Trashed {
		out.Reclaimed = 0 // not before its time in the trash is over
	}
	e.events.Publish(pruneEvent(out.Reclaimed))
	return out, nil
}

func changed(i *container.Info) string {
	if i.State.Running {
		return string(i.State.Status) + " now"
	}
	return string(i.State.Status) + ", is called " + i.Name + " and last ended " + i.State.FinishedAt.Format(time.RFC3339)
}

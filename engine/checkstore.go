package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"berth/base/checkup"
	"berth/base/fault"
	"berth/engine/store"
)

// CheckStore verifies what is on disk of every container against what the engine knows: records, layers, and the journals of where
// containers stand. What the engine has in memory is written again; a layer whose directory is gone is made anew from its image only
// where nobody could have written to it. A record that could not be read at the start is known to nobody: it is told, and left alone.
func (e *Engine) CheckStore(ctx context.Context, repair bool) checkup.Room {
	room := checkup.Room{Name: "containers"}
	found, strays, err := e.store.Look()
	if err != nil {
		room.Found(checkup.Damage{Subject: "containers", What: err.Error()}, nil)
		return room
	}
	onDisk := map[string]bool{}
	for _, f := range found {
		if ctx.Err() != nil {
			return room
		}
		onDisk[f.ID] = true
		e.checkRecord(&room, f, repair)
	}
	layers := 0
	for _, c := range e.index.all() {
		if ctx.Err() != nil {
			return room
		}
		if !onDisk[c.id] && !c.isGone() && e.index.get(c.id) == c {
			e.checkRecord(&room, store.Found{ID: c.id, Err: fs.ErrNotExist}, repair)
		}
		layers += e.checkLayer(ctx, &room, c, repair)
	}
	for _, name := range strays {
		d := checkup.Damage{Subject: filepath.Join("containers", name), What: "it belongs to no container", Repair: "deleted"}
		if !store.Ours(name) {
			d.Repair, d.Advice = "", "it is nothing of the engine's: move it away"
			room.Found(d, nil)
			continue
		}
		room.Found(d, e.fix(repair, func() error { return e.store.RemoveStray(name) }))
	}
	trash := e.store.LookAtTrash()
	for _, f := range trash {
		if f.Err != nil {
			room.Found(checkup.Damage{Subject: filepath.Join("containers/.trash", f.ID), What: "it cannot be restored: " + f.Err.Error(), Advice: "what the container wrote is in image/layer/c/" + f.ID + "/fs until the trash is emptied"}, nil)
		}
	}
	if len(trash) > 0 {
		room.Count("in the trash", len(trash))
	}
	lines := e.checkJournals(&room, repair)
	room.Count("records", len(found))
	room.Count("layers", layers)
	room.Count("journal lines", lines)
	return room
}

// fix gives what is to be done, or nil where nothing is.
func (e *Engine) fix(repair bool, do func() error) func() error {
	if !repair {
		return nil
	}
	return do
}

func (e *Engine) checkRecord(room *checkup.Room, f store.Found, repair bool) {
	path := filepath.Join("containers", f.ID, "container.json")
	c := e.index.get(f.ID)
	if c == nil {
		if errors.Is(f.Err, fs.ErrNotExist) && !e.store.Left(f.ID) || f.Err == nil {
			return // it is being created, or was removed meanwhile
		}
		room.Found(checkup.Damage{Subject: path, What: "the record cannot be read, and the engine does not know this container: " + f.Err.Error(),
			Advice: "put the file back from a backup and restart the engine, or move the directory away; what the container wrote is in image/layer/c/" + f.ID + "/fs"}, nil)
		return
	}
	end, free := c.tryBegin("check")
	if !free {
		return // somebody works on it, and writes what he changes
	}
	defer end()
	r := c.record()
	if f.Same(r) || c.isGone() {
		return
	}
	if again, _ := e.store.LookOne(f.ID); again.Same(r) {
		return // it was changed between the two looks
	}
	what := "the record is another one than the engine works by"
	switch {
	case errors.Is(f.Err, fs.ErrNotExist):
		what = "the record is missing"
	case f.Err != nil:
		what = "the record cannot be read: " + f.Err.Error()
	}
	room.Found(checkup.Damage{Subject: path, What: what, Repair: "written again from the engine's memory"}, e.fix(repair, func() error { return e.store.Rewrite(r) }))
}

// checkLayer looks whether a container has its writable layer.
func (e *Engine) checkLayer(ctx context.Context, room *checkup.Room, c *entry, repair bool) (looked int) {
	_, err := e.images.Layer(c.id)
	if err == nil {
		return 1
	}
	end, free := c.tryBegin("check")
	if !free {
		return 0
	}
	defer end()
	if c.isGone() || c.snapshot().State.Status.Alive() {
		return 0
	}
	d := checkup.Damage{Subject: "container " + c.id, What: "it has no usable layer: " + err.Error()}
	if !fault.Is(err, fault.NotFound) {
		d.Advice = "its image is damaged: see there"
		room.Found(d, nil)
		return 1
	}
	r := c.record()
	if _, err := e.images.Resolve(r.ImageID); err != nil {
		d.Advice = fmt.Sprintf("its image %s is not here; load or pull it, and check again", r.ImageID)
		room.Found(d, nil)
		return 1
	}
	d.Repair = "its record is made again from the image; files that the container wrote and that are still there are kept"
	room.Found(d, e.fix(repair, func() error { _, err := e.layerOf(c); return err })) // within its limit
	return 1
}

func (e *Engine) checkJournals(room *checkup.Room, repair bool) (lines int) {
	for _, j := range e.store.LookAtJournals() {
		lines += j.Lines
		d := checkup.Damage{Subject: j.Name, Repair: "written again from the engine's memory"}
		switch {
		case errors.Is(j.Err, fs.ErrNotExist):
			d.What = "it is missing"
		case j.Err != nil:
			d.What = j.Err.Error()
		case j.Bad > 0:
			d.What = fmt.Sprintf("%d lines cannot be read", j.Bad)
		default:
			continue
		}
		room.Found(d, e.fix(repair, func() error {
			all := map[string]store.Standing{}
			for _, c := range e.index.all() {
				all[c.id] = c.standing()
			}
			if err := e.store.Renew(all); err != nil {
				return err
			}
			var errs []error
			for _, c := range e.index.all() {
				if c.standing() != all[c.id] { // it was changed, and noted, in between: once more
					errs = append(errs, c.change(func(*store.Standing) error { return nil }))
				}
			}
			return errors.Join(errs...)
		}))
	}
	return lines
}

// tryBegin takes the right to work on the container if nobody has it.
func (c *entry) tryBegin(what string) (end func(), free bool) {
	select {
	case c.op <- struct{}{}:
		return c.working(what), true
	default:
		return nil, false
	}
}

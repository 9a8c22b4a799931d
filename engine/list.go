package engine

import (
	"context"
	"slices"
	"strings"
	"time"

	"berth/engine/container"
)

// Inspect gives a snapshot of one container.
func (e *Engine) Inspect(ctx context.Context, ref string) (container.Info, error) {
	c, err := e.index.find(ref)
	if err != nil {
		return container.Info{}, err
	}
	i := *c.snapshot()
	if l, err := e.images.Layer(c.id); err == nil {
		i.Lower, i.Upper, i.Work = l.Lower, l.Upper, l.Work
	}
	return i, nil
}

// Size measures the container's own layer and everything it sees, in bytes.
func (e *Engine) Size(ctx context.Context, ref string) (rw, root int64, err error) {
	c, err := e.index.find(ref)
	if err != nil {
		return 0, 0, err
	}
	return e.size(c.snapshot())
}

func (e *Engine) size(i *container.Info) (rw, root int64, err error) {
	if rw, err = e.images.LayerSize(i.ID); err != nil {
		return 0, 0, err
	}
	root = rw
	if img, err := e.images.Resolve(i.ImageID); err == nil {
		root += img.Size
	}
	return rw, root, nil
}

// List gives the containers that match, newest first. It waits for no verb at work.
func (e *Engine) List(ctx context.Context, o ListOptions) ([]container.Info, error) {
	filters := o.Filters
	if o.Before != "" || o.Since != "" {
		filters = cloneFilters(filters)
		if o.Before != "" {
			filters["before"] = append(filters["before"], o.Before)
		}
		if o.Since != "" {
			filters["since"] = append(filters["since"], o.Since)
		}
	}
	match, err := filters.ForList(container.Lookup{
		Now: time.Now(),
		Container: func(ref string) (*container.Info, error) {
			c, err := e.index.find(ref)
			if err != nil {
				return nil, err
			}
			return c.snapshot(), nil
		},
		Images: func(ref string) ([]string, error) {
			img, err := e.images.Resolve(ref)
			if err != nil {
				return nil, err
			}
			return append(e.images.Descendants(img.ID), img.ID), nil
		},
	})
	if err != nil {
		return nil, err
	}
	all := o.All || o.Limit > 0 || filters.NeedsAll()
	var found []*container.Info
	for _, c := range e.index.all() {
		if i := c.snapshot(); !c.hidden && (all || i.State.Running) && match(i) {
			found = append(found, i)
		}
	}
	slices.SortFunc(found, func(a, b *container.Info) int {
		if d := b.Created.Compare(a.Created); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	})
	if o.Limit > 0 && len(found) > o.Limit {
		found = found[:o.Limit]
	}
	list := make([]container.Info, len(found))
	links := e.linkNames()
	for n, i := range found {
		list[n] = *i
		list[n].LinkNames = links[i.ID]
		if o.Size {
			if rw, root, err := e.size(i); err == nil {
				list[n].SizeRw, list[n].SizeRootFs = &rw, &root
			}
		}
	}
	return list, nil
}

func cloneFilters(f container.Filters) container.Filters {
	n := container.Filters{}
	for k, v := range f {
		n[k] = slices.Clone(v)
	}
	return n
}

// Plugins gives the containers that run managed plugins, which List leaves out.
func (e *Engine) Plugins() (list []container.Info) {
	for _, c := range e.index.all() {
		if c.hidden {
			list = append(list, *c.snapshot())
		}
	}
	return list
}

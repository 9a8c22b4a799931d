package engine

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"time"

	"berth/base/fault"
	"berth/base/id"
	"berth/base/wait"
	"berth/engine/container"
	"berth/engine/health"
	"berth/engine/step"
	"berth/engine/store"
)

// Create makes a container that does not run yet. When it returns, the container is on disk. name "" gets a random one.
func (e *Engine) Create(ctx context.Context, name string, s container.Spec) (CreateResult, error) {
	if name != "" {
		var err error
		if name, err = container.CleanName(name); err != nil {
			return CreateResult{}, err
		}
	}
	img, err := e.images.Resolve(s.Image)
	if err != nil {
		return CreateResult{}, err
	}
	if s, err = s.WithImage(img.Defaults); err != nil {
		return CreateResult{}, err
	}
	warnings, err := e.check(&s)
	if err != nil {
		return CreateResult{}, err
	}
	if err := health.Check(s.Healthcheck); err != nil {
		return CreateResult{}, err
	}
	warnings = append(warnings, healthWarning(&s)...)
	r, err := e.newRecord(s, img)
	if err != nil {
		return CreateResult{}, err
	}
	e.creating.Store(r.ID, r.ImageID)
	defer e.creating.Delete(r.ID)
	more, err := e.confine(r)
	if err != nil {
		return CreateResult{}, err
	}
	warnings = append(warnings, more...)
	if name, err = e.claimName(name, r.ID); err != nil {
		e.unconfine(r)
		return CreateResult{}, err
	}
	r.Name = name
	if err := e.build(ctx, r, img); err != nil {
		e.index.release(name, r.ID)
		e.unconfine(r)
		return CreateResult{}, err
	}
	c := newEntry(e, r, store.Standing{State: container.State{Status: container.Created}})
	e.index.add(c)
	e.making.Delete(r.ID)
	e.imageUsed(r)
	e.tell(c, "create", nil)
	return CreateResult{ID: r.ID, Warnings: append(warnings, platformWarning(s.Platform, img)...)}, nil
}

// build makes what the container consists of on disk. The directory comes first: it is how a crash is noticed (see recover.go).
func (e *Engine) build(ctx context.Context, r *container.Record, img Image) error {
	var made []string // volumes, for this container alone
	w := e.cfg.Waits.Begin("create", r.ID)
	defer w.End()
	return step.Run(wait.With(ctx, w), "create",
		step.Step{Name: "directory", Do: func(context.Context) error { return e.store.MakeDir(r.ID) }, Undo: func() error { return e.store.Abandon(r.ID) }},
		step.Step{Name: "layer", Do: func(ctx context.Context) error { return e.makeLayer(ctx, r, img) }, Undo: func() error { return e.removeLayer(r) }},
		step.Step{Name: "workdir", Do: func(context.Context) error { return e.makeWorkingDir(r) }},
		step.Step{Name: "volumes", Do: func(ctx context.Context) (err error) {
			made, err = e.resolveMounts(ctx, r)
			if err == nil {
				err = e.fillVolumes(ctx, r)
			}
			if err != nil {
				e.making.Delete(r.ID)
				err = errors.Join(err, e.removeVolumes(context.WithoutCancel(ctx), made))
			}
			return err
		}, Undo: func() error {
			e.making.Delete(r.ID)
			return e.removeVolumes(context.WithoutCancel(ctx), made)
		}},
		step.Step{Name: "record", Do: func(context.Context) error { return e.store.Create(r) }},
	)
}

// newRecord fixes what is decided at creation.
func (e *Engine) newRecord(s container.Spec, img Image) (*container.Record, error) {
	cid := id.New()
	s.ImageID = img.ID
	var err error
	if s.Runtime, err = e.cfg.Runtimes.Chosen(s.Runtime); err != nil {
		return nil, err
	}
	if s.Hostname == "" && !s.Network.IsContainer() {
		s.Hostname = e.hostnameFor(&s, cid)
	}
	group, err := e.groups.path(s.Resources.CgroupParent, cid)
	if err != nil {
		return nil, err
	}
	r := &container.Record{
		Version: container.Version, ID: cid, Created: time.Now().UTC(), Spec: &s, ImageID: img.ID, Platform: "linux", Cgroup: group,
	}
	if r.LayerSize, err = e.quotas.layerSize(s.StorageOpt, e.cfg.LayerSize); err != nil {
		return nil, err
	}
	r.Path, r.Args = s.Process.CommandLine()
	if s.Log.Driver == "json-file" {
		r.LogPath = e.store.Dir(cid) + "/" + cid + "-json.log"
	}
	return r, nil
}

// claimName reserves the name, or finds a random one that is free.
func (e *Engine) claimName(name, cid string) (string, error) {
	if name != "" {
		return name, e.index.reserve(name, cid)
	}
	for attempt := range 20 {
		name = container.RandomName(attempt)
		if e.index.reserve(name, cid) == nil {
			return name, nil
		}
	}
	return id.Short(cid), e.index.reserve(id.Short(cid), cid)
}

// platformWarning says when an image of another machine's kind was taken without being asked for.
func platformWarning(asked string, img Image) []string {
	if asked != "" || img.Architecture == "" || img.Architecture == runtime.GOARCH {
		return nil
	}
	return []string{"The requested image's platform (" + img.OS + "/" + img.Architecture + ") does not match the detected host platform (linux/" + runtime.GOARCH + ") and no specific platform was requested"}
}

// Rename gives the container another name, durably.
func (e *Engine) Rename(ctx context.Context, ref, newName string) error {
	if ref == "" || newName == "" {
		return fault.New(fault.Invalid, "Neither old nor new names may be empty")
	}
	c, err := e.index.find(ref)
	if err != nil {
		return err
	}
	newName, err = container.CleanName("/" + strings.TrimPrefix(newName, "/"))
	if err != nil {
		return fault.In(err, "Error when allocating new name")
	}
	end, err := c.begin(ctx, "rename")
	if err != nil {
		return err
	}
	defer end()
	old := c.record()
	if old.Name == newName {
		return fault.New(fault.Invalid, "Renaming a container with the same name as its current name")
	}
	if err := c.mayChange("rename"); err != nil {
		return err
	}
	if err := e.index.reserve(newName, c.id); err != nil {
		return fault.In(err, "Error when allocating new name")
	}
	r := *old
	r.Name = newName
	if err := e.store.Write(&r); err != nil {
		e.index.release(newName, c.id)
		return err
	}
	c.setRecord(&r)
	e.index.release(old.Name, c.id)
	if e.networks != nil {
		e.networks.Rename(c.id, newName)
	}
	e.tell(c, "rename", map[string]string{"oldName": "/" + old.Name})
	return nil
}

// mayChange refuses a verb on a container that is on its way out.
func (c *entry) mayChange(verb string) error {
	switch c.snapshot().State.Status {
	case container.Removing, container.Dead:
		return fault.New(fault.Conflict, "container %s is marked for removal: cannot %s it", c.id, verb)
	}
	return nil
}

// joined gives the container that a namespace mode names, by full id ("container:ID"), or "".
func joined(mode string) string {
	ref, ok := strings.CutPrefix(mode, "container:")
	if !ok {
		return ""
	}
	return ref
}

// resolveJoins replaces the references in "container:REF" by full ids, so that a rename does not change with whom one lives. A container
// that does not exist is refused at the start: the answer "no such container" to a create would make clients look for the image.
func (e *Engine) resolveJoins(s *container.Spec) error {
	for _, mode := range []*string{&s.Namespaces.PID, &s.Namespaces.IPC, &s.Network.Mode, &s.Security.UsernsMode} {
		ref := joined(*mode)
		if ref == "" {
			if strings.HasPrefix(*mode, "container:") {
				return fault.New(fault.Invalid, "invalid mode %q: it names no container", *mode)
			}
			continue
		}
		if c, err := e.index.find(ref); err == nil {
			*mode = "container:" + c.id
		}
	}
	return nil
}

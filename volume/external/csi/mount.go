package csi

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/kernel/mount"
)

// Mount attaches, stages and publishes a volume for its first user; the others share the path. Of a block volume the path is the device's.
func (v *volumes) Mount(ctx context.Context, name, user string) (string, error) {
	release, err := v.turns.Take(ctx, name)
	if err != nil {
		return "", err
	}
	defer release()
	st, err := v.store.read(name)
	if err != nil {
		return "", err
	}
	if st == nil || !st.shown() {
		return "", fault.New(fault.NotFound, "no such volume")
	}
	if st.Phase == deleting {
		return "", fault.New(fault.Conflict, "volume %s is being removed", name)
	}
	if st.Snapshot {
		return "", fault.New(fault.Conflict, "%s is a snapshot: clone it to have a volume of it", name)
	}
	path, fresh, err := v.cfg.Notes.Begin(name, user)
	if err != nil {
		return "", err
	}
	if path != "" && v.isUp(name) {
		return path, nil
	}
	if err := v.bringUp(ctx, name, st); err != nil {
		err = fault.Wrap(kindOfMount(err), err, "error while mounting volume '%s'", name)
		if !fresh {
			return "", err
		}
		// What was begun is undone, within the same bounds; what the driver does not undo stays noted for the next try.
		v.cfg.Notes.End(name, user)
		if others, uerr := v.cfg.Notes.Users(name); uerr == nil && len(others) == 0 {
			if uerr := v.takeDown(context.WithoutCancel(ctx), name, st); uerr != nil {
				v.cfg.Log.Warn("CSI volume is half mounted; the next mount or removal goes on with it", "volume", name, "error", uerr)
			} else {
				v.cfg.Notes.Clear(name)
			}
		}
		return "", err
	}
	path = v.store.target(name)
	return path, v.cfg.Notes.Done(name, user, path)
}

// kindOfMount keeps "not found" for volumes: what a driver does not find is an error of the mount.
func kindOfMount(err error) fault.Kind {
	switch k := fault.KindOf(err); k {
	case fault.NotFound, fault.NotImplemented, fault.Forbidden:
		return fault.Internal
	default:
		return k
	}
}

// Unmount ends a user's use, and everything with the last.
func (v *volumes) Unmount(ctx context.Context, name, user string) error {
	release, err := v.turns.Take(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	others, err := v.cfg.Notes.Users(name)
	if err != nil {
		return err
	}
	if len(others) > 1 || len(others) == 1 && others[0] != user {
		return v.cfg.Notes.End(name, user)
	}
	st, err := v.store.read(name)
	if err != nil {
		return err
	}
	if st != nil {
		if err := v.takeDown(ctx, name, st); err != nil {
			return err
		}
	}
	return v.cfg.Notes.Clear(name)
}

// isUp reports whether the volume is published and still mounted.
func (v *volumes) isUp(name string) bool {
	h, err := v.store.readHere(name)
	return err == nil && h.Published && mounted(v.store.target(name))
}

func mounted(path string) bool {
	list, err := mount.Self(func(i *mount.Info) bool { return i.Point == path })
	return err == nil && len(list) > 0
}

// bringUp goes through the steps, each noted before it is done. Steps that were done are done again: the driver knows.
func (v *volumes) bringUp(ctx context.Context, name string, st *state) error {
	o, err := parse(st.Options)
	if err != nil {
		return err
	}
	c, f, p, err := v.reach(ctx, st)
	if err != nil {
		return err
	}
	secret, err := secrets(p, o)
	if err != nil {
		return err
	}
	s := &steps{v: v, name: name, st: st, o: o, c: c, f: f, secret: secret, cap: o.capability(f.manyWriters)}
	if f.attach {
		if err := s.attach(ctx); err != nil {
			return err
		}
	}
	failpoint.Hit("volume/csi-attached")
	if f.stage {
		if err := s.stage(ctx); err != nil {
			return err
		}
	}
	failpoint.Hit("volume/csi-staged")
	if err := s.publish(ctx, p.Unmounted); err != nil {
		return err
	}
	failpoint.Hit("volume/csi-published")
	if st.Grow > 0 {
		return v.grow(ctx, name, st, o, c, f, secret)
	}
	return nil
}

// steps is a volume on its way to a path.
type steps struct {
	v      *volumes
	name   string
	st     *state
	o      *options
	c      *client
	f      *facts
	secret map[string]string
	cap    *csi.VolumeCapability
}

func (s *steps) attach(ctx context.Context) error {
	if s.st.Attach != nil && s.st.Attach.Done {
		return nil
	}
	s.st.Attach = &attachment{Node: s.f.nodeID}
	if err := s.v.store.write(s.name, s.st); err != nil {
		return err
	}
	a, err := call(ctx, s.c, "ControllerPublishVolume", s.c.control.ControllerPublishVolume, &csi.ControllerPublishVolumeRequest{
		VolumeId: s.st.ID, NodeId: s.f.nodeID, VolumeCapability: s.cap, Readonly: s.o.readOnly && s.f.attachRO, Secrets: s.secret, VolumeContext: s.st.Context,
	})
	if err != nil {
		return err
	}
	s.st.Attach.Done, s.st.Attach.Context = true, a.GetPublishContext()
	return s.v.store.write(s.name, s.st)
}

func (s *steps) published() map[string]string {
	if s.st.Attach == nil {
		return nil
	}
	return s.st.Attach.Context
}

func (s *steps) stage(ctx context.Context) error {
	h, err := s.v.store.readHere(s.name)
	if err != nil {
		return err
	}
	h.Staged = true
	if err := s.v.store.writeHere(s.name, h); err != nil {
		return err
	}
	at := s.v.store.staging(s.name)
	if err := os.MkdirAll(at, 0o750); err != nil {
		return err
	}
	_, err = call(ctx, s.c, "NodeStageVolume", s.c.node.NodeStageVolume, &csi.NodeStageVolumeRequest{
		VolumeId: s.st.ID, PublishContext: s.published(), StagingTargetPath: at, VolumeCapability: s.cap, Secrets: s.secret, VolumeContext: s.st.Context,
	})
	return err
}

func (s *steps) publish(ctx context.Context, unmounted bool) error {
	h, err := s.v.store.readHere(s.name)
	if err != nil {
		return err
	}
	h.Published = true
	if err := s.v.store.writeHere(s.name, h); err != nil {
		return err
	}
	at := s.v.store.target(s.name)
	q := &csi.NodePublishVolumeRequest{
		VolumeId: s.st.ID, PublishContext: s.published(), TargetPath: at, VolumeCapability: s.cap, Readonly: s.o.readOnly, Secrets: s.secret, VolumeContext: s.st.Context,
	}
	if s.f.stage {
		q.StagingTargetPath = s.v.store.staging(s.name)
	}
	if _, err := call(ctx, s.c, "NodePublishVolume", s.c.node.NodePublishVolume, q); err != nil {
		return err
	}
	if unmounted || mounted(at) {
		return nil
	}
	return fault.New(fault.Internal, "CSI driver %s says that the volume is at %s, but nothing is mounted there: if it runs in a container, it needs %s shared with the host (-v %s:%s:rshared, on a host mount that is shared)",
		s.f.name, at, s.v.cfg.RunRoot, s.v.cfg.RunRoot, s.v.cfg.RunRoot)
}

// takeDown undoes what may have been done, in the opposite order. What the driver says it has not is done.
func (v *volumes) takeDown(ctx context.Context, name string, st *state) error {
	h, err := v.store.readHere(name)
	if err != nil {
		return err
	}
	if !h.Published && !h.Staged && st.Attach == nil {
		return nil
	}
	c, f, p, err := v.reach(ctx, st)
	if err != nil {
		return err
	}
	if h.Published {
		_, err := call(ctx, c, "NodeUnpublishVolume", c.node.NodeUnpublishVolume, &csi.NodeUnpublishVolumeRequest{VolumeId: st.ID, TargetPath: v.store.target(name)})
		if err == nil || fault.Is(err, fault.NotFound) {
			err = vacate(v.store.target(name))
		}
		if err != nil {
			return err
		}
		h.Published = false
		if err := v.store.writeHere(name, h); err != nil {
			return err
		}
	}
	failpoint.Hit("volume/csi-unpublished")
	if h.Staged {
		_, err := call(ctx, c, "NodeUnstageVolume", c.node.NodeUnstageVolume, &csi.NodeUnstageVolumeRequest{VolumeId: st.ID, StagingTargetPath: v.store.staging(name)})
		if err == nil || fault.Is(err, fault.NotFound) {
			err = vacate(v.store.staging(name))
		}
		if err != nil {
			return err
		}
	}
	if err := os.RemoveAll(filepath.Join(v.store.dir(name), "state.json")); err != nil {
		return err
	}
	if err := os.Remove(v.store.dir(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if st.Attach == nil {
		return nil
	}
	return v.detach(ctx, name, st, c, f, p)
}

func (v *volumes) detach(ctx context.Context, name string, st *state, c *client, f *facts, p *place) error {
	o, err := parse(st.Options)
	if err != nil {
		return err
	}
	secret, err := secrets(p, o)
	if err != nil {
		return err
	}
	if f.attach {
		_, err = call(ctx, c, "ControllerUnpublishVolume", c.control.ControllerUnpublishVolume,
			&csi.ControllerUnpublishVolumeRequest{VolumeId: st.ID, NodeId: st.Attach.Node, Secrets: secret})
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	st.Attach = nil
	return v.store.write(name, st)
}

// vacate removes the empty file or directory at a path that a driver has left. One that is still mounted is not removed: its content would go.
func vacate(path string) error {
	if mounted(path) {
		return fault.New(fault.Internal, "the driver says that it has unmounted %s, but it is still mounted", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

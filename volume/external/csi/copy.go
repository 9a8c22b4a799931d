package csi

import (
	"context"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"berth/base/failpoint"
	"berth/base/fault"
)

// Clone makes a volume with the content of another volume, or of a snapshot.
func (v *volumes) Clone(ctx context.Context, from, name string, options map[string]string) error {
	st, err := v.store.read(from)
	if err != nil {
		return err
	}
	if st == nil || st.Phase != ready {
		return fault.New(fault.NotFound, "no such volume")
	}
	_, f, _, err := v.reach(ctx, st)
	if err != nil {
		return err
	}
	if !f.create || !st.Snapshot && !f.clone {
		return fault.New(fault.NotImplemented, "CSI driver %s clones no volumes", f.name)
	}
	return v.create(ctx, name, options, &source{ID: st.ID, Snapshot: st.Snapshot})
}

// Snapshot has the driver keep the content that a volume has now.
func (v *volumes) Snapshot(ctx context.Context, name, snapshot string) error {
	of, err := v.store.read(name)
	if err != nil {
		return err
	}
	if of == nil || of.Phase != ready {
		return fault.New(fault.NotFound, "no such volume")
	}
	o, err := parse(of.Options)
	if err != nil {
		return err
	}
	release, err := v.turns.Take(ctx, snapshot)
	if err != nil {
		return err
	}
	defer release()
	c, f, p, err := v.reach(ctx, of)
	if err != nil {
		return err
	}
	if !f.snapshot || of.Snapshot {
		return fault.New(fault.NotImplemented, "CSI driver %s makes no snapshots", f.name)
	}
	if old, err := v.store.read(snapshot); err != nil {
		return err
	} else if old != nil && old.shown() {
		return fault.New(fault.Conflict, "driver %s already has a volume %s", old.Driver, snapshot)
	} else if old != nil {
		if err := v.delete(ctx, snapshot, old); err != nil {
			return fault.In(err, "an earlier volume of that name is still there")
		}
	}
	st := &state{Driver: of.Driver, Socket: of.Socket, Request: randomName(), Phase: creating, Snapshot: true, Created: time.Now().UTC(),
		Options: of.Options, From: &source{ID: of.ID}}
	if err := v.store.write(snapshot, st); err != nil {
		return err
	}
	if err := v.askSnapshot(ctx, st, o, c, p); err != nil {
		if final(err) {
			v.store.remove(snapshot)
		} else {
			v.kick()
		}
		return err
	}
	failpoint.Hit("volume/csi-snapshot")
	st.Phase = ready
	return v.store.write(snapshot, st)
}

// askSnapshot has the driver make the snapshot that the state describes, and waits until it can be used: some upload it first.
func (v *volumes) askSnapshot(ctx context.Context, st *state, o *options, c *client, p *place) error {
	secret, err := secrets(p, o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, v.cfg.Timeout)
	defer cancel()
	for {
		a, err := call(ctx, c, "CreateSnapshot", c.control.CreateSnapshot,
			&csi.CreateSnapshotRequest{SourceVolumeId: st.From.ID, Name: st.Request, Secrets: secret, Parameters: p.Parameters})
		if err != nil {
			return err
		}
		st.ID, st.Capacity = a.GetSnapshot().GetSnapshotId(), a.GetSnapshot().GetSizeBytes()
		if a.GetSnapshot().GetReadyToUse() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Deadline, "CSI driver at %s: the snapshot is not ready after %s", c.socket, v.cfg.Timeout)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// Resize makes a volume larger, mounted or not.
func (v *volumes) Resize(ctx context.Context, name string, size int64) error {
	release, err := v.turns.Take(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	st, err := v.store.read(name)
	if err != nil {
		return err
	}
	if st == nil || st.Phase != ready || st.Snapshot {
		return fault.New(fault.NotFound, "no such volume")
	}
	o, err := parse(st.Options)
	if err != nil {
		return err
	}
	c, f, p, err := v.reach(ctx, st)
	if err != nil {
		return err
	}
	if !f.expand && !f.nodeExpand {
		return fault.New(fault.NotImplemented, "CSI driver %s cannot make volumes larger", f.name)
	}
	secret, err := secrets(p, o)
	if err != nil {
		return err
	}
	st.Grow = 0
	if f.expand {
		a, err := call(ctx, c, "ControllerExpandVolume", c.control.ControllerExpandVolume, &csi.ControllerExpandVolumeRequest{
			VolumeId: st.ID, CapacityRange: &csi.CapacityRange{RequiredBytes: size}, Secrets: secret, VolumeCapability: o.capability(f.manyWriters)})
		if err != nil {
			return err
		}
		st.Capacity = a.GetCapacityBytes()
		if a.GetNodeExpansionRequired() {
			st.Grow = size
		}
	} else {
		st.Grow = size
	}
	if err := v.store.write(name, st); err != nil {
		return err
	}
	h, err := v.store.readHere(name)
	if err != nil || st.Grow == 0 || !h.Published {
		return err // a volume that is not here grows when it is published
	}
	return v.grow(ctx, name, st, o, c, f, secret)
}

// grow has the node service make the file system as large as its volume has become.
func (v *volumes) grow(ctx context.Context, name string, st *state, o *options, c *client, f *facts, secret map[string]string) error {
	if f.nodeExpand {
		q := &csi.NodeExpandVolumeRequest{VolumeId: st.ID, VolumePath: v.store.target(name), CapacityRange: &csi.CapacityRange{RequiredBytes: st.Grow},
			VolumeCapability: o.capability(f.manyWriters), Secrets: secret}
		if f.stage {
			q.StagingTargetPath = v.store.staging(name)
		}
		a, err := call(ctx, c, "NodeExpandVolume", c.node.NodeExpandVolume, q)
		if err != nil {
			return err
		}
		st.Capacity = max(st.Capacity, a.GetCapacityBytes())
	}
	st.Grow = 0
	return v.store.write(name, st)
}

// Rename gives a volume another name here; the driver knows it by its id. It must not be mounted.
func (v *volumes) Rename(ctx context.Context, name, to string) error {
	release, err := v.turns.Take(ctx, name, to)
	if err != nil {
		return err
	}
	defer release()
	st, err := v.store.read(name)
	if err != nil {
		return err
	}
	if st == nil {
		if done, err := v.store.read(to); err != nil || done != nil {
			return err // it was renamed before
		}
		return fault.New(fault.NotFound, "no such volume")
	}
	if err := v.takeDown(ctx, name, st); err != nil {
		return err
	}
	return v.store.rename(name, to)
}

package csi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"maps"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/volume/driver"
)

// volumes is the volumes of one driver.
type volumes struct {
	*Drivers
	at *place
}

// Scope is "local": a volume is known to this engine alone, wherever its bytes are.
func (v *volumes) Scope(context.Context) string { return "local" }

// Check refuses options that are wrong whatever the driver.
func (v *volumes) Check(given map[string]string) error {
	o, err := parse(given)
	if err != nil {
		return err
	}
	if v.at.socket == "" && o.endpoint == "" {
		return fault.New(fault.Invalid, `missing required option: "endpoint"`)
	}
	return nil
}

// Create makes a volume.
func (v *volumes) Create(ctx context.Context, name string, given map[string]string) error {
	return v.create(ctx, name, given, nil)
}

func (v *volumes) create(ctx context.Context, name string, given map[string]string, from *source) error {
	o, err := parse(given)
	if err != nil {
		return err
	}
	release, err := v.turns.Take(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	st, err := v.store.read(name)
	if err != nil {
		return err
	}
	if st != nil && st.shown() {
		if from == nil && st.Phase == ready && maps.Equal(st.Options, given) {
			return nil // made before, and its answer lost
		}
		return fault.New(fault.Conflict, "driver %s already has a volume %s, made with other options: remove it first", st.Driver, name)
	}
	if st != nil { // half made, or forgotten by force: it holds nothing that anybody wants
		if err := v.delete(ctx, name, st); err != nil {
			return fault.In(err, "an earlier volume of that name is still there")
		}
	}
	st = &state{Driver: v.at.name, Socket: o.endpoint, Request: randomName(), Phase: creating, Created: time.Now().UTC(), Options: given, From: from}
	c, f, p, err := v.reach(ctx, st)
	if err != nil {
		return err
	}
	if o.handle != "" {
		return v.adopt(ctx, name, st, o, c, f, p)
	}
	if !f.create {
		return fault.New(fault.Invalid, "CSI driver %s makes no volumes: name an existing one with volumehandle=ID", f.name)
	}
	if err := v.store.write(name, st); err != nil {
		return err
	}
	if err := failpoint.Hit("volume/csi-creating"); err != nil {
		return err
	}
	if err := v.ask(ctx, st, o, c, f, p); err != nil {
		if final(err) {
			v.store.remove(name)
		} else {
			v.kick()
		}
		return err
	}
	failpoint.Hit("volume/csi-created")
	st.Phase = ready
	return v.store.write(name, st)
}

// ask has the driver make the volume that the state describes, and takes what it answers into the state.
func (v *volumes) ask(ctx context.Context, st *state, o *options, c *client, f *facts, p *place) error {
	secret, err := secrets(p, o)
	if err != nil {
		return err
	}
	parameters := maps.Clone(p.Parameters)
	if parameters == nil {
		parameters = map[string]string{}
	}
	maps.Copy(parameters, o.parameters)
	q := &csi.CreateVolumeRequest{
		Name: st.Request, CapacityRange: o.capacity(), VolumeCapabilities: []*csi.VolumeCapability{o.capability(f.manyWriters)},
		Parameters: parameters, Secrets: secret, VolumeContentSource: contentSource(st.From),
	}
	if f.topology {
		q.AccessibilityRequirements = requirements(f, o)
	}
	a, err := call(ctx, c, "CreateVolume", c.control.CreateVolume, q)
	if err != nil {
		return err
	}
	made := a.GetVolume()
	if made.GetVolumeId() == "" {
		return fault.New(fault.Internal, "CSI driver %s: CreateVolume: it gave the volume no id", f.name)
	}
	st.ID, st.Context, st.Capacity = made.GetVolumeId(), made.GetVolumeContext(), made.GetCapacityBytes()
	for _, t := range made.GetAccessibleTopology() {
		st.Topology = append(st.Topology, t.GetSegments())
	}
	return nil
}

// requirements asks for a volume that this node can reach.
func requirements(f *facts, o *options) *csi.TopologyRequirement {
	places := o.topology
	if places == nil && len(f.segments) > 0 {
		places = []map[string]string{f.segments}
	}
	if places == nil {
		return nil
	}
	r := &csi.TopologyRequirement{}
	for _, segments := range places {
		t := &csi.Topology{Segments: segments}
		r.Requisite, r.Preferred = append(r.Requisite, t), append(r.Preferred, t)
	}
	return r
}

func contentSource(from *source) *csi.VolumeContentSource {
	switch {
	case from == nil:
		return nil
	case from.Snapshot:
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: from.ID}}}
	}
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: from.ID}}}
}

// adopt takes a volume that others made, once the driver says that it can be used as asked.
func (v *volumes) adopt(ctx context.Context, name string, st *state, o *options, c *client, f *facts, p *place) error {
	st.ID, st.Context, st.Static, st.Phase = o.handle, o.context, true, ready
	if f.hasController {
		secret, err := secrets(p, o)
		if err != nil {
			return err
		}
		a, err := call(ctx, c, "ValidateVolumeCapabilities", c.control.ValidateVolumeCapabilities, &csi.ValidateVolumeCapabilitiesRequest{
			VolumeId: st.ID, VolumeContext: st.Context, VolumeCapabilities: []*csi.VolumeCapability{o.capability(f.manyWriters)}, Parameters: o.parameters, Secrets: secret,
		})
		if err != nil && !fault.Is(err, fault.NotImplemented) {
			return err
		}
		if err == nil && a.GetConfirmed() == nil {
			return fault.New(fault.Invalid, "CSI driver %s: volume %s cannot be used like that: %s", f.name, st.ID, a.GetMessage())
		}
	}
	return v.store.write(name, st)
}

// Remove undoes what is mounted and deletes the volume.
func (v *volumes) Remove(ctx context.Context, name string) error {
	release, err := v.turns.Take(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	st, err := v.store.read(name)
	if err != nil || st == nil {
		return err
	}
	if err := v.delete(ctx, name, st); err != nil {
		return err
	}
	return v.cfg.Notes.Clear(name)
}

// Forget leaves a volume to be deleted in the background, when its driver is there.
func (v *volumes) Forget(ctx context.Context, name string) error {
	release, err := v.turns.Take(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	st, err := v.store.read(name)
	if err != nil || st == nil {
		return err
	}
	st.Phase, st.Forgotten = deleting, true
	defer v.kick()
	return v.store.write(name, st)
}

// delete takes a volume away, whatever phase it is in. Of one whose making was not answered the id is learnt by asking again.
func (v *volumes) delete(ctx context.Context, name string, st *state) error {
	if err := v.takeDown(ctx, name, st); err != nil {
		return err
	}
	if st.Static {
		return v.store.remove(name)
	}
	o, err := parse(st.Options)
	if err != nil {
		return err
	}
	c, f, p, err := v.reach(ctx, st)
	if err != nil {
		v.kick()
		return err
	}
	if st.Phase == creating && st.ID == "" {
		if err := v.learn(ctx, st, o, c, f, p); final(err) {
			return v.store.remove(name) // it says that there is none
		} else if err != nil {
			v.kick()
			return err
		}
	}
	st.Phase = deleting
	if err := v.store.write(name, st); err != nil {
		return err
	}
	failpoint.Hit("volume/csi-deleting")
	secret, err := secrets(p, o)
	if err != nil {
		return err
	}
	if st.Snapshot {
		_, err = call(ctx, c, "DeleteSnapshot", c.control.DeleteSnapshot, &csi.DeleteSnapshotRequest{SnapshotId: st.ID, Secrets: secret})
	} else {
		_, err = call(ctx, c, "DeleteVolume", c.control.DeleteVolume, &csi.DeleteVolumeRequest{VolumeId: st.ID, Secrets: secret})
	}
	if err != nil && !fault.Is(err, fault.NotFound) {
		if fault.Is(err, fault.Conflict) { // in use there: a snapshot needs it
			st.Phase = ready
			v.store.write(name, st)
		} else {
			v.kick()
		}
		return err
	}
	return v.store.remove(name)
}

func (v *volumes) learn(ctx context.Context, st *state, o *options, c *client, f *facts, p *place) error {
	if st.Snapshot {
		return v.askSnapshot(ctx, st, o, c, p)
	}
	return v.ask(ctx, st, o, c, f, p)
}

// Get tells what is known of a volume, without asking its driver: it may be away.
func (v *volumes) Get(_ context.Context, name string) (driver.Found, error) {
	st, err := v.store.read(name)
	if err != nil {
		return driver.Found{}, err
	}
	if st == nil || !st.shown() || st.Driver != v.at.name {
		return driver.Found{}, fault.New(fault.NotFound, "no such volume")
	}
	return v.found(name, st), nil
}

func (v *volumes) found(name string, st *state) driver.Found {
	f := driver.Found{Name: name, Created: st.Created, Status: map[string]any{"volumeHandle": st.ID, "phase": st.Phase}}
	if st.Snapshot {
		f.Status = map[string]any{"snapshotHandle": st.ID, "phase": st.Phase}
	}
	if st.Capacity > 0 {
		f.Status["capacityBytes"] = st.Capacity
	}
	if len(st.Topology) > 0 {
		f.Status["topology"] = st.Topology
	}
	if st.Attach != nil {
		f.Status["attachedTo"] = st.Attach.Node
	}
	if h, err := v.store.readHere(name); err == nil && h.Published {
		f.Mountpoint = v.store.target(name)
	}
	return f
}

// List lists the volumes that this engine has of the driver.
func (v *volumes) List(context.Context) ([]driver.Found, error) {
	names, err := v.store.names()
	if err != nil {
		return nil, err
	}
	var list []driver.Found
	for _, name := range names {
		st, err := v.store.read(name)
		if err != nil {
			return list, err
		}
		if st != nil && st.shown() && st.Driver == v.at.name {
			list = append(list, v.found(name, st))
		}
	}
	return list, nil
}

func randomName() string {
	var b [16]byte
	rand.Read(b[:])
	return "berth-" + hex.EncodeToString(b[:])
}

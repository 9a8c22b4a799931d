package wire

import (
	"maps"
	"time"

	volumetypes "github.com/moby/moby/api/types/volume"

	"berth/base/fault"
	"berth/volume"
)

// AnonymousLabel is on volumes whose name was made up; clients look for it.
const AnonymousLabel = "com.docker.volume.anonymous"

// VolumeCreateRequest is the body of POST /volumes/create.
type VolumeCreateRequest struct{ volumetypes.CreateRequest }

// Request gives what is asked for. What is wrong with its values the volume room says.
func (r *VolumeCreateRequest) Request(v Version) (volume.CreateRequest, error) {
	if r.ClusterVolumeSpec != nil && v >= 42 {
		return volume.CreateRequest{}, fault.New(fault.Unavailable, `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
	}
	return volume.CreateRequest{Name: r.Name, Driver: r.Driver, Labels: r.Labels, Options: r.DriverOpts}, nil
}

// Volume is a volume as lists show it.
func Volume(v *volume.Volume) volumetypes.Volume {
	out := volumetypes.Volume{
		Name: v.Name, Driver: v.Driver, Labels: VolumeLabels(v), Options: v.Options, Mountpoint: v.Mountpoint, Scope: or(v.Scope, "local"),
	}
	if !v.Created.IsZero() {
		out.CreatedAt = v.Created.UTC().Format(time.RFC3339)
	}
	return out
}

// VolumeInspect is the answer to GET /volumes/NAME.
func VolumeInspect(v *volume.Volume) volumetypes.Volume {
	out := Volume(v)
	out.Status = v.Status
	return out
}

// VolumeLabels gives a volume's labels, with the one that marks the anonymous.
func VolumeLabels(v *volume.Volume) map[string]string {
	if _, there := v.Labels[AnonymousLabel]; there || !v.Anonymous {
		return v.Labels
	}
	all := maps.Clone(v.Labels)
	if all == nil {
		all = map[string]string{}
	}
	all[AnonymousLabel] = ""
	return all
}

// VolumeUse is a volume with what it takes and who uses it.
type VolumeUse struct {
	Volume volume.Volume
	Size   int64 // bytes; -1 unknown
	Users  int   // containers that refer to it
}

// volumeUsage sums up. Items are for the caller to keep or drop.
func volumeUsage(all []VolumeUse) *volumetypes.DiskUsage {
	d := &volumetypes.DiskUsage{TotalCount: int64(len(all))}
	for i := range all {
		u := &all[i]
		item := Volume(&u.Volume)
		item.UsageData = &volumetypes.UsageData{RefCount: int64(u.Users), Size: u.Size}
		d.Items = append(d.Items, item)
		if u.Users > 0 {
			d.ActiveCount++
		}
		if u.Size < 0 {
			continue
		}
		d.TotalSize += u.Size
		if u.Users == 0 {
			d.Reclaimable += u.Size
		}
	}
	return d
}

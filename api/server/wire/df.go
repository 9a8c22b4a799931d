package wire

import (
	"time"

	"github.com/moby/moby/api/types/build"
	containertypes "github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	volumetypes "github.com/moby/moby/api/types/volume"

	"berth/engine/container"
	"berth/image"
)

// Usage is what takes room on the disk. A list that is nil was not asked for; an empty one was.
type Usage struct {
	Containers []container.Info // with their sizes
	Images     []image.Summary  // with shared sizes and containers
	LayersSize int64            // bytes of all layers, each counted once
	Volumes    []VolumeUse
	BuildCache bool // asked for; there is none
}

// DiskUsage is the answer to GET /system/df at API version v. asked says that the client asked for sums without lists, or with them
// (verbose), in the way that 1.52 brought; it then gets none of the old fields.
func (u *Usage) DiskUsage(v Version, asked, verbose bool, now time.Time) any {
	r := &usage{}
	old := v < 52 || v == 52 && !asked
	if u.Containers != nil {
		d, rows := containerUsage(u.Containers, v, now)
		r.ContainerUsage = d
		if old {
			r.Containers = &rows
		} else if verbose {
			d.Items = rows
		}
	}
	if u.Images != nil {
		d := imageUsage(u.Images, u.LayersSize)
		r.ImageUsage = d
		if old {
			rows := []any{}
			for _, i := range u.Images {
				row := imageSummary(&i, v)
				if v < 44 {
					rows = append(rows, &legacySummary{row, row.Size})
				} else {
					rows = append(rows, row)
				}
			}
			r.LayersSize, r.Images = &u.LayersSize, &rows
		} else if verbose {
			for _, s := range u.Images {
				d.Items = append(d.Items, *imageSummary(&s, v))
			}
		}
	}
	if u.Volumes != nil {
		d := volumeUsage(u.Volumes)
		r.VolumeUsage = d
		if old {
			rows := append([]volumetypes.Volume{}, d.Items...)
			r.Volumes = &rows
		}
		if old || !verbose {
			d.Items = nil
		}
	}
	if u.BuildCache {
		r.BuildCacheUsage = &build.DiskUsage{}
		if old {
			r.BuildCache = &[]any{}
		}
	}
	if v < 52 {
		r.ImageUsage, r.ContainerUsage, r.VolumeUsage, r.BuildCacheUsage = nil, nil, nil, nil
		if v < 42 {
			r.BuilderSize = new(int64)
		}
	}
	return r
}

// usage has the fields of all versions.
type usage struct {
	system.DiskUsage
	LayersSize  *int64                    `json:",omitempty"`
	Images      *[]any                    `json:",omitempty"`
	Containers  *[]containertypes.Summary `json:",omitempty"`
	Volumes     *[]volumetypes.Volume     `json:",omitempty"`
	BuildCache  *[]any                    `json:",omitempty"`
	BuilderSize *int64                    `json:",omitempty"`
}

func containerUsage(all []container.Info, v Version, now time.Time) (*containertypes.DiskUsage, []containertypes.Summary) {
	d, rows := &containertypes.DiskUsage{TotalCount: int64(len(all))}, []containertypes.Summary{}
	for i := range all {
		row := Summary(&all[i], all[i].Spec.Image, nil, v, now)
		d.TotalSize += row.SizeRw
		if all[i].State.Running {
			d.ActiveCount++
		} else {
			d.Reclaimable += row.SizeRw
		}
		rows = append(rows, row)
	}
	return d, rows
}

func imageUsage(all []image.Summary, layers int64) *imagetypes.DiskUsage {
	d := &imagetypes.DiskUsage{TotalCount: int64(len(all)), TotalSize: layers, Reclaimable: layers}
	for _, s := range all {
		if s.Containers > 0 {
			d.ActiveCount++
			d.Reclaimable -= s.Size - max(s.SharedSize, 0)
		}
	}
	d.Reclaimable = max(d.Reclaimable, 0)
	return d
}

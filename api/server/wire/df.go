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
	Images     *image.DiskUsage
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
		d, all := imageUsage(u.Images)
		r.ImageUsage = d
		if old {
			rows := []any{}
			for _, i := range all {
				row := imageSummary(i, v)
				if v < 44 {
					rows = append(rows, &legacySummary{row, row.Size})
				} else {
					rows = append(rows, row)
				}
			}
			size := d.TotalSize
			r.LayersSize, r.Images = &size, &rows
		} else if verbose {
			for _, i := range all {
				d.Items = append(d.Items, *imageSummary(i, v))
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
	}
	return r
}

// usage has the fields of all versions.
type usage struct {
	system.DiskUsage
	LayersSize *int64                    `json:",omitempty"`
	Images     *[]any                    `json:",omitempty"`
	Containers *[]containertypes.Summary `json:",omitempty"`
	Volumes    *[]volumetypes.Volume     `json:",omitempty"`
	BuildCache *[]any                    `json:",omitempty"`
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

// imageUsage adds up what images take: layers, documents, and compressed layers that are kept. Images that exist only as parents of
// others are no rows of their own.
func imageUsage(u *image.DiskUsage) (*imagetypes.DiskUsage, []*image.Summary) {
	d := &imagetypes.DiskUsage{TotalSize: u.Layers.Size + u.Documents.Size + u.Kept.Size, Reclaimable: u.Reclaimable}
	parents := map[string]bool{}
	for _, i := range u.Images {
		parents[i.Parent] = true
	}
	var rows []*image.Summary
	for _, i := range u.Images {
		if len(i.RepoTags)+len(i.RepoDigests) == 0 && parents[i.ID] {
			continue
		}
		whole := *i.Image
		whole.Size = i.TotalSize
		rows = append(rows, &image.Summary{Image: &whole, SharedSize: i.SharedSize, Containers: len(i.Containers)})
		if d.TotalCount++; len(i.Containers) > 0 {
			d.ActiveCount++
		}
	}
	return d, rows
}

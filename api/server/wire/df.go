package wire

import (
	"strings"
	"time"

	"github.com/moby/moby/api/types/build"
	containertypes "github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	volumetypes "github.com/moby/moby/api/types/volume"

	"berth/build/cache"
	"berth/engine/container"
	"berth/image"
)

// Usage is what takes room on the disk. A list that is nil was not asked for; an empty one was.
type Usage struct {
	Containers []container.Info // with their sizes
	Images     *image.DiskUsage
	Volumes    []VolumeUse
	BuildCache []cache.Usage
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
			size := u.Images.Layers.Size + u.Images.Kept.Size // Docker's word is of layers: no configurations, no manifests
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
	if u.BuildCache != nil {
		d, rows := cacheUsage(u.BuildCache, v)
		r.BuildCacheUsage = d
		if old {
			r.BuildCache = &rows
		}
		if old || !verbose {
			d.Items = nil
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

// cacheUsage adds up what builds keep. What images use too is not the cache's: it has a size in its row, and none in the sums.
func cacheUsage(all []cache.Usage, v Version) (*build.DiskUsage, []any) {
	d, rows := &build.DiskUsage{TotalCount: int64(len(all))}, []any{}
	for i := range all {
		u := &all[i]
		row := build.CacheRecord{ID: u.ID, Type: u.Type, Description: u.Description, InUse: u.InUse, Shared: u.Shared, Size: u.Size, CreatedAt: u.Created, UsageCount: u.Uses}
		if !u.LastUsed.IsZero() {
			row.LastUsedAt = &u.LastUsed
		}
		switch {
		case u.InUse:
			d.ActiveCount++
		case !u.Shared:
			d.Reclaimable += u.Size
		}
		if !u.Shared {
			d.TotalSize += u.Size
		}
		if v >= 42 {
			row.Parents = u.Parents
			rows = append(rows, row)
		} else {
			rows = append(rows, &legacyCacheRecord{row, strings.Join(u.Parents, " ")})
		}
		d.Items = append(d.Items, row)
	}
	return d, rows
}

// legacyCacheRecord is a row of before 1.42, with one parent.
type legacyCacheRecord struct {
	build.CacheRecord
	Parent string
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

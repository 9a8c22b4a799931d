package image

import (
	"context"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/image/layer"
	"berth/kernel/tree"
)

// Space is room on the disk: how many, bytes as people count, bytes of real blocks.
type Space = layer.Space

// DiskUsage is the room that images take. Layers, Containers, Documents, Kept and Other together are what du says of
// the store's directory.
type DiskUsage struct {
	Images      []ImageUsage // in the order of List, with those that are dangling or only parents
	Layers      Space        // unpacked layers, each once
	Containers  Space        // containers' own layers
	Documents   Space        // configurations, manifests, indexes, attestations
	Kept        Space        // compressed layers kept beside the unpacked ones
	Other       Space        // database, skeletons, directories, what is being unpacked or deleted
	Reclaimable int64        // bytes of files that would be gone without the images that no container uses
}

// Disk is the sum of all real blocks.
func (u *DiskUsage) Disk() int64 {
	return u.Layers.Disk + u.Containers.Disk + u.Documents.Disk + u.Kept.Disk + u.Other.Disk
}

// ImageUsage is the room of one image, with those of other platforms that stand under it.
type ImageUsage struct {
	*Image
	TotalSize  int64    // bytes of all layers of all its platforms, each once
	SharedSize int64    // of these, bytes of layers that other images have too
	UniqueSize int64    // TotalSize without SharedSize: what its removal frees
	Kept       int64    // bytes of its kept blobs
	Containers []string // that use it, on any platform
}

// DiskUsage measures the store.
func (s *Store) DiskUsage(ctx context.Context) (*DiskUsage, error) {
	u := &DiskUsage{}
	list, err := s.List(ctx, ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	lu, err := s.layers.DiskUsage(ctx)
	if err != nil {
		return nil, err
	}
	for _, sp := range lu.Layers {
		u.Layers.Add(sp)
	}
	for _, sp := range lu.Containers {
		u.Containers.Add(sp)
	}
	u.Other.Add(lu.Other)
	kept := s.imageUsages(u, list, lu.Layers)
	if err := s.blobUsage(ctx, u, kept); err != nil {
		return nil, err
	}
	u.Other.Count = 0
	return u, nil
}

// imageUsages shares the layers out among the images, and tells which blobs are kept layers.
func (s *Store) imageUsages(u *DiskUsage, list []Summary, layers map[digest.Digest]Space) map[digest.Digest]bool {
	type group struct {
		layers  []digest.Digest
		records []*record
	}
	groups := make([]group, len(list))
	var users map[digest.Digest]int
	kept := map[digest.Digest]bool{}
	s.mu.RLock()
	users = s.layerUsers()
	for i, sum := range list {
		r := s.images[digest.Digest(sum.ID)]
		if r == nil {
			continue // removed meanwhile
		}
		g := &groups[i]
		g.records = s.groupIn(s.views(), r)
		for _, m := range g.records {
			g.layers = union(g.layers, m.doc.RootFS.DiffIDs)
		}
	}
	for _, r := range s.images {
		for _, o := range r.Origins {
			for _, d := range o.Blobs {
				kept[d] = true
			}
		}
	}
	s.mu.RUnlock()
	needed := map[digest.Digest]bool{}
	for i, sum := range list {
		iu := ImageUsage{Image: sum.Image}
		for _, d := range union(nil, groups[i].layers) {
			size := layers[d].Size
			iu.TotalSize += size
			if users[d] > 1 {
				iu.SharedSize += size
			}
		}
		iu.UniqueSize = iu.TotalSize - iu.SharedSize
		blobs := map[digest.Digest]bool{}
		for _, r := range groups[i].records {
			for _, use := range s.usedBy(string(r.id)) {
				iu.Containers = append(iu.Containers, use.ContainerID)
			}
			for _, o := range r.Origins {
				for _, d := range o.Blobs {
					if !blobs[d] {
						blobs[d] = true
						iu.Kept += s.blobs.Size(d)
					}
				}
			}
		}
		if len(iu.Containers) > 0 {
			for _, d := range groups[i].layers {
				needed[d] = true
			}
		}
		u.Images = append(u.Images, iu)
	}
	for d, sp := range layers {
		if !needed[d] && users[d] > 0 {
			u.Reclaimable += sp.Size
		}
	}
	return kept
}

// blobUsage adds the blob store and what stands beside it.
func (s *Store) blobUsage(ctx context.Context, u *DiskUsage, kept map[digest.Digest]bool) error {
	root, err := tree.OpenDir(s.cfg.Root)
	if err != nil {
		return fault.In(err, "measure images")
	}
	defer root.Close()
	own := func(dir *tree.Dir, name string) error {
		st, err := dir.Stat(name)
		if tree.Missing(err) {
			return nil
		}
		u.Other.Disk += st.Blocks * 512
		return err
	}
	if err := own(root, ""); err != nil {
		return err
	}
	names, err := root.Names()
	if err != nil {
		return fault.In(err, "measure images")
	}
	for _, n := range names {
		if n != "layer" && n != "blob" {
			if err := own(root, n); err != nil {
				return err
			}
		}
	}
	err = s.blobs.Measure(func(d digest.Digest, size, disk int64) {
		sp := Space{Count: 1, Size: size, Disk: disk}
		if kept[d] {
			u.Kept.Add(sp)
		} else {
			u.Documents.Add(sp)
		}
	}, func(_ string, disk int64) { u.Other.Disk += disk })
	if err != nil {
		return err
	}
	tmp, err := layer.Measure(ctx, filepath.Join(s.cfg.Root, "blob", "tmp"))
	u.Other.Disk += tmp.Disk
	return err
}

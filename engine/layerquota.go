package engine

import (
	"context"
	"errors"
	"hash/crc32"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/docker/go-units"

	"berth/base/fault"
	"berth/engine/container"
	"berth/kernel/quota"
)

// layerQuotas bounds what containers write beside their image, by a project of the file system for each writable layer. The directories
// of a layer get the project's number while they are empty, and all that is made in them inherits it; the kernel then shows the limit as
// the size of the container's root file system, too. Without a file system that counts projects there is no control, and why says so.
type layerQuotas struct {
	control quotaControl
	why     error
	first   uint32 // of this engine's numbers

	mu sync.Mutex // one number is chosen at a time
}

// quotaControl is what is needed of kernel/quota.
type quotaControl interface {
	Free(first uint32, taken func(uint32) bool) (uint32, error)
	Set(dir string, project uint32, bytes uint64) error
	Limit(project uint32, bytes uint64) error
	Close() error
}

// firstProject begins the 1<<28 numbers of layers. Those of volumes begin at 1<<30 (volume/local).
const firstProject = 5 << 28

// open looks at the file system that root is on. wanted is the limit that the configuration sets for all layers.
func (q *layerQuotas) open(root string, wanted uint64) error {
	// Engines that share a file system seldom meet, and Free steps over what others took.
	q.first = firstProject | crc32.ChecksumIEEE([]byte(root))&0xfff<<16
	c, err := quota.Open(root)
	if err != nil {
		q.why = err
		if wanted > 0 {
			return fault.Wrap(fault.Invalid, err, "Storage option overlay2.size not supported. Filesystem does not support Project Quota")
		}
		return nil
	}
	q.control = c
	return nil
}

func (q *layerQuotas) close() {
	if q.control != nil {
		q.control.Close()
	}
}

// makeLayer makes a container's writable layer, within its limit. What it notes in r is not on disk yet.
func (e *Engine) makeLayer(ctx context.Context, r *container.Record, img Image) error {
	if err := e.images.CreateLayer(ctx, r.ID, img); err != nil || r.LayerSize == 0 {
		return err
	}
	l, err := e.images.Layer(r.ID)
	if err == nil {
		err = e.quotas.limit(r, l)
	}
	if err != nil {
		return errors.Join(err, e.images.RemoveLayer(r.ID))
	}
	return nil
}

// removeLayer gives a container's layer up, and its limit.
func (e *Engine) removeLayer(r *container.Record) error {
	if err := e.images.RemoveLayer(r.ID); err != nil {
		return err
	}
	return e.quotas.forget(r)
}

// sweepLayer removes a layer of which no record tells, and its limit.
func (e *Engine) sweepLayer(cid string) error {
	var r container.Record
	if l, err := e.images.Layer(cid); err == nil {
		if p, err := quota.Project(l.Upper); err == nil && p>>28 == firstProject>>28 {
			r.LayerProject = p
		}
	}
	if err := e.images.RemoveLayer(cid); err != nil {
		return err
	}
	return e.quotas.forget(&r)
}

// layerSize reads a container's --storage-opt: the bytes that its layer may hold, 0 for no limit. The errors are Docker's.
func (q *layerQuotas) layerSize(opts map[string]string, byDefault uint64) (uint64, error) {
	size := byDefault
	for key, value := range opts {
		if strings.ToLower(key) != "size" {
			return 0, fault.New(fault.Invalid, "Unknown option %s", key)
		}
		n, err := units.RAMInBytes(value)
		if err != nil {
			return 0, fault.Wrap(fault.Invalid, err, "--storage-opt size=%s", value)
		}
		size = uint64(n)
	}
	if len(opts) > 0 && q.control == nil {
		return 0, fault.Wrap(fault.Invalid, q.why, "--storage-opt is supported only for overlay over xfs with 'pquota' mount option, or ext4 with 'prjquota'")
	}
	return size, nil
}

// limit gives a new layer a project of its own, and notes it in the record, which is not on disk yet.
func (q *layerQuotas) limit(r *container.Record, l Layer) error {
	if r.LayerSize == 0 {
		return nil
	}
	if q.control == nil {
		return fault.Wrap(fault.Invalid, q.why, "the writable layer cannot be limited")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	project, err := q.control.Free(q.first, func(uint32) bool { return false })
	if err != nil {
		return err
	}
	// The work directory as well: the kernel refuses to move what is made there into a directory of another project.
	dirs := []string{l.Upper, l.Work}
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) {
		if err := q.control.Set(filepath.Clean(dir), project, r.LayerSize); err != nil {
			q.control.Limit(project, 0)
			return fault.In(err, "limiting the writable layer")
		}
	}
	r.LayerProject = project
	return nil
}

// forget gives the number of a removed layer back.
func (q *layerQuotas) forget(r *container.Record) error {
	if r.LayerProject == 0 || q.control == nil {
		return nil
	}
	return q.control.Limit(r.LayerProject, 0)
}

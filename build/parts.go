package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/cache"
	"berth/build/content"
	"berth/build/exec"
	"berth/build/export"
	"berth/build/file"
	"berth/build/graph"
	"berth/build/remotecache"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/build/source/blob"
	"berth/build/source/git"
	"berth/build/source/http"
	imagesource "berth/build/source/image"
	"berth/build/source/local"
	"berth/build/source/oci"
	"berth/image"
	"berth/image/layer"
)

// parts are the packages of the room, open and joined.
type parts struct {
	snapshots *snapshot.Store
	content   *content.Hasher
	cache     *cache.Store
	exec      *exec.Runner
	files     *file.Ops
	sources   *sources
	solver    *solver.Solver
	export    *export.Exporter
	remote    *remotecache.Caches

	closers []func() error // in the order of opening
}

// openParts opens everything, lowest first; what was opened is closed again when something fails.
func (b *Builder) openParts() (_ *parts, err error) {
	p := &parts{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	layers := b.cfg.Images.Layers()
	if p.snapshots, err = snapshot.Open(snapshot.Config{Layers: layers, Root: b.dir("snapshots"), Log: b.log}); err != nil {
		return nil, err
	}
	p.closers = append(p.closers, p.snapshots.Close)
	p.content = content.New()
	p.exec, err = exec.Open(exec.Config{
		Snapshots: p.snapshots, Sessions: b.sessions, Root: b.dir("mounts"), ExecRoot: filepath.Join(b.cfg.ExecRoot, "build"),
		CgroupParent: b.cfg.CgroupParent, Networks: b.cfg.Networks, UserNS: b.cfg.UserNS, Devices: b.cfg.Devices, Security: b.cfg.Security,
		SeccompProfile: b.cfg.SeccompProfile, CgroupNS: b.cfg.CgroupNS, NofileHard: b.cfg.NofileHard, InUserNS: b.cfg.InUserNS, Facts: b.cfg.Facts, Log: b.log,
	})
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, p.exec.Close)
	p.files = file.New(p.snapshots)
	trees := local.New(local.Config{Root: b.dir("trees"), Snapshots: p.snapshots, Log: b.log})
	p.closers = append(p.closers, trees.Close)
	p.sources = &sources{trees: trees, images: imagesource.New(imagesource.Config{
		Images: b.cfg.Images, Transfer: b.cfg.Transfer, Snapshots: p.snapshots, Sessions: b.sessions, Log: b.log,
	}), layouts: oci.New(oci.Config{Images: b.cfg.Images, Snapshots: p.snapshots, Sessions: b.sessions, Log: b.log}),
		blobs: blob.New(blob.Config{Remote: b.cfg.Remote, Snapshots: p.snapshots, Sessions: b.sessions})}
	p.sources.web, err = http.Open(http.Config{Snapshots: p.snapshots, Sessions: b.sessions, Root: b.dir("http"), Log: b.log})
	if err != nil {
		return nil, err
	}
	p.sources.git, err = git.Open(git.Config{Snapshots: p.snapshots, Sessions: b.sessions, Root: b.dir("git"), Blobs: p.sources.blobs, CgroupParent: b.cfg.CgroupParent,
		InUserNS: b.cfg.InUserNS, Facts: b.cfg.Facts, Log: b.log})
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, p.sources.git.Close)
	p.cache, err = cache.Open(cache.Config{
		Layers: layers, Root: filepath.Join(b.cfg.DataRoot, "build"), Size: layerSize(layers), Shared: b.imageLayers(),
		Others: []cache.Other{p.exec, trees, p.sources.git}, Log: b.log,
	})
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, p.cache.Close)
	if b.cfg.Retained != nil {
		b.cfg.Retained()
	}
	p.solver = solver.New(solver.Config{
		Snapshots: p.snapshots, Content: p.content, Cache: p.cache, Sessions: b.sessions,
		Op: p.op, Source: b.policed(p.sources), Canonical: git.Canonical, Nested: nested, Devices: p.devices, Parallel: b.cfg.Parallel, Log: b.log,
	})
	p.export = export.New(export.Config{
		Root: b.dir("export"), Images: b.cfg.Images, Remote: b.cfg.Remote, Snapshots: p.snapshots, Sessions: b.sessions, Log: b.log,
	})
	mounts, _ := any(p.exec).(remotecache.Mounts)
	p.remote = remotecache.New(remotecache.Config{
		Images: b.cfg.Images, Remote: b.cfg.Remote, Sessions: b.sessions, Export: p.export, Mounts: mounts, Env: os.Getenv, Log: b.log,
	})
	return p, nil
}

// close closes everything, highest first.
func (p *parts) close() error {
	var errs []error
	for i := len(p.closers) - 1; i >= 0; i-- {
		errs = append(errs, p.closers[i]())
	}
	return errors.Join(errs...)
}

// devices tells the devices that a step's word means, and whether each is free.
func (p *parts) devices(word string) map[string]bool {
	free := map[string]bool{}
	for _, d := range p.exec.MeantDevices(word) {
		free[d.Name] = d.Free()
	}
	return free
}

// op gives the operation of a vertex that runs something or works on files.
func (p *parts) op(v *graph.Vertex) (solver.Op, error) {
	switch {
	case v.Op.GetExec() != nil:
		return p.exec.Op(v)
	case v.Op.GetFile() != nil:
		return p.files.Op(v.Op.GetFile(), len(v.Inputs))
	}
	return nil, fault.New(fault.Invalid, "could not resolve %T", v.Op.Op)
}

// layerSize gives the sizes of layers.
func layerSize(layers *layer.Store) func(digest.Digest) int64 {
	return func(d digest.Digest) int64 {
		info, err := layers.Stat(d)
		if err != nil {
			return 0
		}
		return info.Size
	}
}

// imageLayers tells which layers images have. It looks again after a second: who asks does so for all layers at once.
func (b *Builder) imageLayers() func(digest.Digest) bool {
	var mu sync.Mutex
	var known map[digest.Digest]bool
	var asked time.Time
	return func(d digest.Digest) bool {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(asked) > time.Second {
			known, asked = b.layersInUse(), time.Now()
		}
		return known[d]
	}
}

func (b *Builder) layersInUse() map[digest.Digest]bool {
	used := map[digest.Digest]bool{}
	list, err := b.cfg.Images.List(context.Background(), image.ListOptions{All: true})
	if err != nil {
		b.log.Warn("which layers images have is not known", "err", err)
		return used
	}
	for _, i := range list {
		if img, err := b.cfg.Images.Get(digest.Digest(i.ID)); err == nil {
			for _, d := range img.Layers {
				used[d] = true
			}
		}
	}
	return used
}

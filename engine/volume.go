package engine

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/base/id"
	"berth/engine/container"
	"berth/engine/mergedroot"
	"berth/kernel/mount"
	"berth/kernel/overlay"
	"berth/volume"
)

// Volumes is what the engine needs of the volume room.
type Volumes interface {
	// Create makes a volume, or hands back the one of that name.
	Create(ctx context.Context, r volume.CreateRequest) (volume.Volume, error)
	Get(ctx context.Context, name string) (volume.Volume, error)
	Remove(ctx context.Context, name string, force bool) error
	// Mount gives the host path of a volume's content, or of a part of it, for as long as the container runs.
	Mount(ctx context.Context, name, subpath, containerID string) (string, error)
	// Unmount ends all that Mount gave the container of this volume.
	Unmount(ctx context.Context, name, containerID string) error
	// Fill gives an empty volume the content, owner and mode of a directory.
	Fill(ctx context.Context, name, subpath string, from *os.File) error
	// Recovered unmounts what containers that do not run left.
	Recovered(runs func(containerID string) bool)
	// UsedBy is told how to ask which containers refer to a volume that is not mounted.
	UsedBy(func(volume string) []string)
}

// VolumeUsers gives the ids of the containers that refer to a volume.
func (e *Engine) VolumeUsers(name string) (ids []string) {
	e.making.Range(func(cid, names any) bool {
		if slices.Contains(names.([]string), name) {
			ids = append(ids, cid.(string))
		}
		return true
	})
	for _, c := range e.index.all() {
		if c.snapshot().State.Status == container.Removing {
			continue // what it has goes with it
		}
		if slices.ContainsFunc(c.record().AllMounts(), func(m container.Mount) bool { return m.Type == "volume" && m.Source == name }) {
			ids = append(ids, c.id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids) // one that has just been created is in both
}

// resolveMounts decides what is mounted into a new container, as Docker does: the mounts of other containers, then those asked for, which
// win, then a volume of its own for each remaining path that image or client declare. Volumes are named and made here; those that were
// made up for this container are listed in made, and nothing else is to be undone.
func (e *Engine) resolveMounts(ctx context.Context, r *container.Record) (made []string, err error) {
	all, err := e.borrowed(r.Spec.VolumesFrom)
	if err != nil {
		return nil, err
	}
	put := func(m container.Mount) {
		at := path.Clean(m.Target)
		all = append(slices.DeleteFunc(all, func(o container.Mount) bool { return path.Clean(o.Target) == at }), m)
	}
	for _, m := range r.Spec.Mounts {
		put(m)
	}
	for _, target := range sortedNames(r.Spec.Volumes) {
		if !slices.ContainsFunc(all, func(o container.Mount) bool { return path.Clean(o.Target) == path.Clean(target) }) {
			put(container.Mount{Type: "volume", Target: target, FromImage: true})
		}
	}
	for i := range all {
		if all[i].Type == "image" {
			img, err := e.images.Resolve(all[i].Source)
			if err != nil {
				return made, err
			}
			all[i].Path, all[i].ReadOnly = img.ID, true
		}
		if all[i].Type != "volume" || all[i].FromContainer != "" {
			continue
		}
		if e.volumes == nil {
			return made, fault.New(fault.NotImplemented, "this engine runs without volumes; use a bind mount (-v /host/path:/path) or --tmpfs")
		}
		m := &all[i]
		if m.Source == "" {
			m.Source, m.Anonymous = id.New(), true
			made = append(made, m.Source)
			if err := e.store.NoteVolumes(r.ID, made); err != nil {
				return made, err
			}
		}
		if m.Anonymous { // nobody knows of it yet, but a prune would find it
			e.willUse(r.ID, m.Source)
		}
		if err := e.makeVolume(ctx, m, r.Spec.VolumeDriver); err != nil {
			return made, err
		}
		if !m.Anonymous { // not before: one that its plugin has lost is made anew only while nobody refers to it
			e.willUse(r.ID, m.Source)
		}
	}
	r.Mounts = all
	return made, nil
}

// willUse notes that a container that is being created uses a volume, so that no prune takes it meanwhile.
func (e *Engine) willUse(cid, name string) {
	var names []string
	if now, ok := e.making.Load(cid); ok {
		names = now.([]string)
	}
	e.making.Store(cid, append(slices.Clip(names), name))
}

// makeVolume makes sure that the volume of a mount exists, and notes in the mount what was found.
func (e *Engine) makeVolume(ctx context.Context, m *container.Mount, driver string) error {
	v, err := e.volumes.Create(ctx, volume.CreateRequest{
		Name: m.Source, Anonymous: m.Anonymous, Driver: cmp.Or(m.Driver, driver), Labels: m.VolumeLabels, Options: m.DriverOptions,
	})
	if err != nil {
		return err
	}
	m.Driver, m.Path = v.Driver, v.Mountpoint
	return nil
}

// borrowed gives the mounts of the containers that --volumes-from names.
func (e *Engine) borrowed(refs []string) (all []container.Mount, err error) {
	for _, text := range refs {
		ref, mode, _ := strings.Cut(text, ":")
		from, err := e.index.find(ref)
		if err != nil {
			return nil, err
		}
		words := strings.Split(mode, ",")
		if mode != "" && !slices.ContainsFunc(words, func(w string) bool { return w == "ro" || w == "rw" || w == "z" || w == "Z" }) {
			return nil, fault.New(fault.Invalid, "invalid mode for volumes-from: %s", mode)
		}
		for _, m := range from.record().AllMounts() {
			if m.Type != "bind" && m.Type != "volume" {
				continue
			}
			m.FromContainer, m.FromImage, m.NoCopy = from.id, false, true
			m.ReadOnly = m.ReadOnly || slices.Contains(words, "ro")
			all = slices.DeleteFunc(all, func(o container.Mount) bool { return path.Clean(o.Target) == path.Clean(m.Target) })
			all = append(all, m)
		}
	}
	return all, nil
}

// removeVolumes removes what was made for a container alone.
func (e *Engine) removeVolumes(ctx context.Context, names []string) error {
	bin, ok := e.volumes.(volumeTrash)
	if !ok {
		return e.eachVolume(names, func(name string) error { return e.volumes.Remove(ctx, name, false) })
	}
	return e.eachVolume(names, func(name string) error { return bin.RemoveForGood(ctx, name) })
}

// volumeTrash is a volume room that may keep what is removed.
type volumeTrash interface {
	// RemoveWith removes a volume that was made for a container alone, with it.
	RemoveWith(ctx context.Context, name, containerID string) error
	// RemoveForGood removes one that nobody can want back.
	RemoveForGood(ctx context.Context, name string) error
}

// removeVolumesWith removes what was made for a container alone, with the container: where there is a trash, it can come back with it.
func (e *Engine) removeVolumesWith(ctx context.Context, cid string, names []string) error {
	bin, ok := e.volumes.(volumeTrash)
	if !ok {
		return e.removeVolumes(ctx, names)
	}
	return e.eachVolume(names, func(name string) error { return bin.RemoveWith(ctx, name, cid) })
}

func (e *Engine) eachVolume(names []string, remove func(name string) error) error {
	var errs []error
	for _, name := range names {
		err := remove(name)
		switch {
		case fault.Is(err, fault.NotFound):
		case fault.Is(err, fault.Conflict): // another container has it by --volumes-from, as in Docker
			e.log.Info("a container's own volume stays after it", "volume", name, "because", err)
		default:
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeNoted removes the volumes of a container whose creation was cut off.
func (e *Engine) removeNoted(ctx context.Context, cid string) error {
	if e.volumes == nil {
		return nil
	}
	return e.removeVolumes(ctx, e.store.NotedVolumes(cid))
}

// ownVolumes gives the names of the volumes that have no name but one made up, for the container or for one whose volumes it has: they go
// with the last container that has them.
func ownVolumes(r *container.Record) (names []string) {
	for _, m := range r.AllMounts() {
		if m.Anonymous {
			names = append(names, m.Source)
		}
	}
	return names
}

// unmissed leaves out of a container's volumes what it has borrowed from one that is in the trash now: that would come back without them.
func (e *Engine) unmissed(r *container.Record, names []string) []string {
	if !slices.ContainsFunc(r.AllMounts(), func(m container.Mount) bool { return m.Anonymous && m.FromContainer != "" }) {
		return names
	}
	for _, t := range e.store.ReadTrash() {
		has := ownVolumes(t.Record)
		names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(has, name) })
	}
	return names
}

// fillVolumes copies what the image has at a volume's place into a volume that is empty.
func (e *Engine) fillVolumes(ctx context.Context, r *container.Record) error {
	if !slices.ContainsFunc(r.Mounts, fillable) {
		return nil
	}
	layer, err := e.images.Layer(r.ID)
	if err != nil {
		return err
	}
	merged, err := mergedroot.Open(layer.Upper, layer.Lower)
	if err != nil {
		return err
	}
	defer merged.Close()
	var root *os.File // of the image, mounted for the first that needs it
	for i := range r.Mounts {
		m := &r.Mounts[i]
		if !fillable(*m) || r.IDMap != nil && e.hostOwned(m) { // the image's root is not the host's there
			continue
		}
		if st, err := merged.Stat(m.Target); err != nil || !st.IsDir() {
			continue // the image has nothing there
		}
		if root == nil {
			if root, err = e.mountImage(r.ID, layer.Lower); err != nil {
				return err
			}
			defer root.Close()
		}
		if err := e.fillVolume(ctx, m, root); err != nil {
			return fault.In(err, "copying the image's content of %s into volume %s", m.Target, m.Source)
		}
	}
	return nil
}

func fillable(m container.Mount) bool {
	return m.Type == "volume" && !m.NoCopy && m.FromContainer == ""
}

func (e *Engine) fillVolume(ctx context.Context, m *container.Mount, root *os.File) error {
	fd, err := mount.OpenInRoot(e.facts, int(root.Fd()), m.Target, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "opening the directory in the image")
	}
	from := os.NewFile(uintptr(fd), m.Target)
	defer from.Close()
	return e.volumes.Fill(ctx, m.Source, m.Subpath, from)
}

// mountImage gives the root of layers stacked and mounted, read only, where nobody else sees it. Closing it unmounts.
func (e *Engine) mountImage(cid string, lower []string) (*os.File, error) {
	if len(lower) == 1 {
		return os.Open(lower[0])
	}
	scratch := filepath.Join(e.store.Dir(cid), "image")
	if err := os.Mkdir(scratch, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fault.Wrap(fault.Internal, err, "making a place for the image")
	}
	defer os.Remove(scratch)
	fd, err := overlay.Stack{Lower: lower}.Mount(e.facts, scratch)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "image"), nil
}

// sources are the host paths behind a run's volumes and images, by place in the container.
type sources map[string]string

// mountVolumes makes the volumes and images of a run ready and gives their paths. When it fails, nothing stays mounted.
func (e *Engine) mountVolumes(ctx context.Context, r *container.Record) (_ sources, err error) {
	paths := sources{}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.unmountVolumes(r))
		}
	}()
	for _, m := range r.AllMounts() {
		switch m.Type {
		case "volume":
			if e.volumes == nil {
				return nil, fault.New(fault.NotImplemented, "this engine runs without volumes; the container wants %s", m.Source)
			}
			if paths[m.Target], err = e.volumes.Mount(ctx, m.Source, m.Subpath, r.ID); err != nil {
				return nil, err
			}
		case "image":
			if paths[m.Target], err = e.mountImageAt(r, m); err != nil {
				return nil, err
			}
		}
	}
	return paths, nil
}

// unmountVolumes gives up what mountVolumes made ready. What is not there is no error.
func (e *Engine) unmountVolumes(r *container.Record) error {
	ctx, cancel := context.WithTimeout(context.Background(), unmountPatience)
	defer cancel()
	var errs []error
	done := map[string]bool{}
	for _, m := range r.AllMounts() {
		switch {
		case m.Type == "volume" && e.volumes != nil && !done[m.Source]:
			done[m.Source] = true
			errs = append(errs, e.volumes.Unmount(ctx, m.Source, r.ID))
		case m.Type == "image":
			errs = append(errs, unmountImageAt(e.imagePlace(r.ID, m.Target)))
		}
	}
	return errors.Join(errs...)
}

// unmountPatience bounds how long the end of a run waits for its volumes: one may be in somebody's hands whose server does not answer.
const unmountPatience = time.Minute

// imagePlace is where an image that is mounted into a container is mounted on the host: below the container's own directory. Its name
// says nothing: a place in the container may be longer than a name can be, and "/a/b" is not "/a-b".
func (e *Engine) imagePlace(cid, target string) string {
	sum := sha256.Sum256([]byte(path.Clean(target)))
	return filepath.Join(e.store.Dir(cid), "images", hex.EncodeToString(sum[:8]))
}

func (e *Engine) mountImageAt(r *container.Record, m container.Mount) (string, error) {
	lower, err := e.images.Lower(m.Path)
	if err != nil {
		return "", err
	}
	place := e.imagePlace(r.ID, m.Target)
	if err := os.MkdirAll(place, 0o700); err != nil {
		return "", fault.Wrap(fault.Internal, err, "making a place for image %s", m.Source)
	}
	if err := unmountImageAt(place); err != nil {
		return "", err
	}
	var tree int
	err = withMapping(r, func(m *overlay.Mapping) (err error) {
		switch {
		case len(lower) > 1:
			tree, err = overlay.Stack{Lower: lower, Map: m}.Mount(e.facts, place)
		case m != nil:
			tree, err = m.Clone(lower[0])
		default:
			tree, err = mount.OpenTree(unix.AT_FDCWD, lower[0], true, false)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	defer unix.Close(tree)
	// A single layer is the image store's own directory. Before Linux 5.12 it can be read-only in the container alone.
	if err := mount.ReadOnly(tree); err != nil && !fault.Is(err, fault.NotImplemented) {
		return "", err
	}
	if err := mount.Move(tree, unix.AT_FDCWD, place); err != nil {
		return "", err
	}
	if m.Subpath == "" {
		return place, nil
	}
	// The tree is read only: what the path leads to now it leads to later.
	root, err := unix.Open(place, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "opening image %s", m.Source)
	}
	defer unix.Close(root)
	if err := mount.CheckBeneath(e.facts, root, m.Subpath); err != nil {
		return "", fault.Wrap(fault.Invalid, err, "path %q of image %s", m.Subpath, m.Source)
	}
	fd, err := mount.OpenInRoot(e.facts, root, m.Subpath, unix.O_PATH, 0)
	if err != nil {
		return "", fault.Wrap(fault.Invalid, err, "cannot access path %s of image %s", m.Subpath, m.Source)
	}
	defer unix.Close(fd)
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
}

func unmountImageAt(place string) error {
	err := unix.Unmount(place, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fault.Wrap(fault.Internal, err, "unmounting an image")
}

// knownSources gives the paths that a run's volumes and images have, or would have: without making them ready.
func (e *Engine) knownSources(r *container.Record) sources {
	paths := sources{}
	for _, m := range r.AllMounts() {
		switch m.Type {
		case "volume":
			paths[m.Target] = cmp.Or(m.Path, "/") // of a plugin's nobody knows before it is mounted
		case "image":
			paths[m.Target] = e.imagePlace(r.ID, m.Target)
		}
	}
	return paths
}

func sortedNames(set map[string]struct{}) []string {
	var names []string
	for n := range set {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

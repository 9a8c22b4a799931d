package engine

import (
	"context"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/base/tarstream"
	"berth/base/userdb"
	"berth/engine/container"
	"berth/engine/userns"
	"berth/image/archive"
	"berth/kernel/idmap"
	"berth/kernel/overlay"
	"berth/kernel/tree"
	"berth/runtime/launch"
)

// A container in a user namespace of its own has its mapping in its record, from its creation to its removal. Its files,
// and those of its volumes, are stored with the ids that they have inside and are shown to it through the mapping.

// usernses is what the engine has for user namespaces.
type usernses struct {
	pool *userns.Pool

	mu  sync.Mutex
	can map[fileSystem]bool // whether it can be id-mapped
}

// fileSystem names one. Numbers of devices that are none (tmpfs, NFS) come again, for another one in the end.
type fileSystem struct {
	dev  uint64
	kind int64
}

func (e *Engine) openUserns() {
	e.userns.pool = userns.NewPool(e.cfg.Userns.Users, e.cfg.Userns.Groups)
	if len(e.cfg.Userns.Remap.Users) > 0 {
		e.userns.pool.Keep("--userns-remap", e.cfg.Userns.Remap)
	}
}

// giveUserns decides in which user namespace a new container lives and gives it its ids, which releaseUserns takes back.
func (e *Engine) giveUserns(r *container.Record) (warnings []string, err error) {
	s := r.Spec
	mode, err := userns.Parse(s.Security.UsernsMode)
	if err != nil {
		return nil, err
	}
	donor, err := e.usernsDonor(s, mode)
	if err != nil {
		return nil, err
	}
	switch {
	case s.Plugin != "": // it is part of the engine
		return nil, nil
	case mode.Kind == userns.Host, donor == nil && mode.Kind == userns.Default && !e.cfg.Userns.Remaps():
		return nil, nil
	case donor != nil:
		d := donor.record()
		if d.IDMap == nil {
			return nil, nil // it lives in the engine's
		}
		r.IDMap, r.UsernsOf = d.IDMap, d.ID
		if err := e.mayMap(s); err != nil {
			return nil, err
		}
		e.userns.pool.Keep(r.ID, *r.IDMap)
		return nil, nil
	}
	if err := e.mayMap(s); err != nil {
		if mode.Kind == userns.Auto || !e.cfg.Userns.HostToo {
			return nil, err
		}
		s.Security.UsernsMode = "host"
		return []string{"The container has the host's user namespace: " + err.Error()}, nil
	}
	if mode.Kind == userns.Default && e.cfg.Userns.Default == userns.Default {
		m := e.cfg.Userns.Remap
		r.IDMap = &m
		e.userns.pool.Keep(r.ID, m)
		return nil, nil
	}
	m, err := e.userns.pool.Take(r.ID, mode.Auto)
	if err != nil {
		return nil, err
	}
	r.IDMap = &m
	return nil, nil
}

// StepIDs gives a build step the mapping of its user namespace, and what gives it back: as with a container that says nothing about it. nil: the
// engine's own.
func (e *Engine) StepIDs(id string) (m *idmap.Pair, release func(), err error) {
	c := e.cfg.Userns
	if !c.Remaps() {
		return nil, nil, nil
	}
	if err := e.mayMap(&container.Spec{}); err != nil {
		if c.HostToo {
			return nil, nil, nil
		}
		return nil, nil, err
	}
	if c.Default == userns.Default {
		remap := c.Remap
		return &remap, nil, nil
	}
	const step = "build step " // no container is called that
	got, err := e.userns.pool.Take(step+id, userns.Wish{})
	if err != nil {
		return nil, nil, err
	}
	return &got, func() { e.userns.pool.Release(step + id) }, nil
}

// mayMap refuses a user namespace for a container that cannot live in one. The words are Docker's.
func (e *Engine) mayMap(s *container.Spec) error {
	switch {
	case s.Security.Privileged:
		return fault.New(fault.Invalid, "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode")
	case s.Network.Name() == "host" && !s.Network.IsContainer():
		return fault.New(fault.Invalid, "cannot share the host's network namespace when user namespaces are enabled")
	case s.Namespaces.PID == "host":
		return fault.New(fault.Invalid, "cannot share the host PID namespace when user namespaces are enabled")
	case s.Namespaces.IPC == "host":
		return fault.New(fault.Invalid, "cannot share the host IPC namespace when user namespaces are enabled")
	case s.Namespaces.UTS == "host":
		return fault.New(fault.Invalid, "cannot share the host UTS namespace when user namespaces are enabled")
	}
	if s.Runtime != "" {
		return fault.New(fault.NotImplemented, "user namespaces are the built-in runtime's matter: runtime %s needs --userns=host", s.Runtime)
	}
	if why := overlay.CanMap(e.facts); why != "" {
		return fault.New(fault.NotImplemented, "user namespaces: the image's files cannot be shown with other owners (%s); use --userns=host", why)
	}
	if !e.canMap(e.cfg.DataRoot) {
		return fault.New(fault.NotImplemented, "user namespaces: the file system of %s has no id-mapped mounts, or this engine may not make them: put the data root on ext4, xfs or btrfs, or use --userns=host", e.cfg.DataRoot)
	}
	return nil
}

// usernsDonor gives the container whose user namespace a new one joins: the one that --userns names, else the one with
// which it shares a namespace that a user namespace owns. A container that says that it wants another is refused, as the
// kernel would; nil: none.
func (e *Engine) usernsDonor(s *container.Spec, mode userns.Mode) (*entry, error) {
	refs := []string{joined(s.Network.Mode), joined(s.Namespaces.PID), joined(s.Namespaces.IPC)}
	if mode.Kind == userns.Container {
		refs = append([]string{mode.Ref}, refs...)
	}
	var donor *entry
	for _, ref := range refs {
		if ref == "" {
			continue
		}
		c, err := e.index.find(ref)
		if err != nil {
			if mode.Kind == userns.Container && ref == mode.Ref {
				return nil, err
			}
			continue // the start says it
		}
		switch {
		case donor == nil:
			donor = c
		case e.homeOf(donor.record()) != e.homeOf(c.record()):
			return nil, fault.New(fault.Invalid, "conflicting options: containers %s and %s, whose namespaces are to be joined, live in different user namespaces", donor.snapshot().Name, c.snapshot().Name)
		}
	}
	switch {
	case donor == nil, mode.Kind == userns.Container, mode.Kind == userns.Default:
		return donor, nil
	case mode.Kind == userns.Auto:
		return nil, fault.New(fault.Invalid, "conflicting options: --userns=auto and a namespace of container %s: who shares one lives in its user namespace", donor.snapshot().Name)
	}
	return nil, nil // the host's: it may look into any
}

// homeOf names a container's user namespace: by the container that it was made for, "" the engine's.
func (e *Engine) homeOf(r *container.Record) string {
	if r.IDMap == nil {
		return ""
	}
	for r.UsernsOf != "" { // who joins is younger than whom it joins: this ends
		c := e.index.get(r.UsernsOf)
		if c == nil {
			return r.UsernsOf
		}
		r = c.record()
	}
	return r.ID
}

// regiveUserns gives a container that had ids of its own and was removed its ids again, or others where somebody has them
// by now: its files are stored with neither.
func (e *Engine) regiveUserns(r *container.Record) error {
	mode, err := userns.Parse(r.Spec.Security.UsernsMode)
	if r.IDMap == nil || r.UsernsOf != "" || err != nil || !e.userns.pool.Meets(*r.IDMap) || sameMap(*r.IDMap, e.cfg.Userns.Remap) {
		return err // keepUserns follows
	}
	wish := mode.Auto
	for _, m := range r.IDMap.Users {
		wish.Size = max(wish.Size, m.Inside+m.Size)
	}
	m, err := e.userns.pool.Take(r.ID, wish)
	if err != nil {
		return err
	}
	r.IDMap = &m
	return nil
}

func sameMap(a, b idmap.Pair) bool { return a.Key() == b.Key() }

// keepUserns notes what a container holds that existed before this engine.
func (e *Engine) keepUserns(r *container.Record) {
	if r.IDMap != nil {
		e.userns.pool.Keep(r.ID, *r.IDMap)
	}
}

func (e *Engine) releaseUserns(r *container.Record) {
	if r.IDMap != nil {
		e.userns.pool.Release(r.ID)
	}
}

// ownsUserns says whether a run of the container makes its own user namespace together with its network.
func ownsUserns(r *container.Record) bool {
	return r.IDMap != nil && r.UsernsOf == "" && needsSandbox(r.Spec)
}

// checkMapped refuses a user or group that has no id in the container's user namespace.
func checkMapped(r *container.Record, u userdb.User) error {
	if r.IDMap == nil {
		return nil
	}
	refuse := func(what string, id uint32) error {
		return fault.New(fault.Invalid, "%s %d has no id in the container's user namespace, which has %v: use --userns=auto:size=N with a larger N, or --userns=host", what, id, r.IDMap.Users)
	}
	if _, ok := r.IDMap.Users.Out(u.UID); !ok {
		return refuse("user", u.UID)
	}
	for _, g := range append([]uint32{u.GID}, u.Groups...) {
		if _, ok := r.IDMap.Groups.Out(g); !ok {
			return refuse("group", g)
		}
	}
	return nil
}

// canMap says whether what is at a path can be shown through an id mapping: its file system may be of a kind that
// cannot, such as NFS. It is asked once for each.
func (e *Engine) canMap(name string) bool {
	var st unix.Stat_t
	err := unix.Stat(name, &st)
	if err == unix.ENOENT { // it is about to be made
		name = path.Dir(name)
		err = unix.Stat(name, &st)
	}
	var sf unix.Statfs_t
	if err == nil {
		err = unix.Statfs(name, &sf)
	}
	if err != nil {
		return false
	}
	e.userns.mu.Lock()
	defer e.userns.mu.Unlock()
	fs := fileSystem{st.Dev, int64(sf.Type)}
	if can, known := e.userns.can[fs]; known {
		return can
	}
	m := idmap.Map{{Inside: 0, Outside: userns.DefaultSize, Size: 1}} // any will do
	ns, err := launch.UserNamespace(idmap.Pair{Users: m, Groups: m})
	if err != nil {
		return false
	}
	defer unix.Close(ns)
	if e.userns.can == nil {
		e.userns.can = map[fileSystem]bool{}
	}
	can, err := overlay.Mappable(name, ns)
	if err != nil { // it is asked again
		e.log.Warn("it cannot be told whether files can be id-mapped", "path", name, "error", err)
		return false
	}
	e.userns.can[fs] = can
	if !can {
		e.log.Warn("files cannot be id-mapped: containers in user namespaces see the host's owners", "path", name)
	}
	return can
}

// mappable is canMap for what a run mounts: a volume that shows the host's owners is not mapped.
func (e *Engine) mappable(r *container.Record, paths sources) func(path string) bool {
	if r.IDMap == nil {
		return e.canMap
	}
	host := map[string]bool{}
	for _, m := range r.AllMounts() {
		if m.Type == "volume" && e.hostOwned(&m) {
			host[paths[m.Target]] = true
		}
	}
	return func(path string) bool { return !host[path] && e.canMap(path) }
}

// hostOwned says whether a mount shows a container in a user namespace the host's owners. Binds do, as in Docker, unless it is asked
// otherwise; so do volumes that are nothing but a bind: shown through the mapping, others than the engine could reach the set-uid programs
// that the container's root makes there as the host's.
func (e *Engine) hostOwned(m *container.Mount) bool {
	switch {
	case m.Type == "bind":
		return !m.IDMap
	case m.Type != "volume" || m.Driver != "local" || e.volumes == nil:
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), volumePatience)
	defer cancel()
	v, err := e.volumes.Get(ctx, m.Source)
	if err != nil {
		return true // gone, for instance: the stricter of the two
	}
	for o := range strings.SplitSeq(v.Options["o"], ",") {
		if o = strings.TrimSpace(o); o == "bind" || o == "rbind" {
			return true
		}
	}
	return false
}

// volumePatience bounds a question about a local volume, which nobody but this process answers.
const volumePatience = 5 * time.Second

// withMapping calls do with what shows layers as a container sees them; nil for one without a mapping.
func withMapping(r *container.Record, do func(*overlay.Mapping) error) error {
	if r.IDMap == nil {
		return do(nil)
	}
	uid, gid, ok := r.IDMap.Root()
	if !ok {
		return fault.New(fault.Internal, "container %s: its mapping has no root", r.ID)
	}
	ns, err := launch.UserNamespace(*r.IDMap)
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	return do(&overlay.Mapping{NS: ns, UID: uid, GID: gid})
}

// ownersAt gives the mapping between the ids that a view shows at a place and those of the container; nil where they
// are the same. A running container's files show what it is on the host. Those of one that does not run are shown as they
// are stored, which is as it has them inside, unless they are the host's own.
func (e *Engine) ownersAt(r *container.Record, v *view, at *tree.Dir) (*idmap.Pair, error) {
	if r.IDMap == nil || v.live {
		return r.IDMap, nil
	}
	real, err := at.Real(v.root)
	if err != nil {
		return nil, fault.In(err, "copy")
	}
	if m := mountAt(r, path.Join("/", real)); m != nil && e.hostOwned(m) {
		return r.IDMap, nil
	}
	return nil, nil
}

// applyAs unpacks an archive with a container's ids into one of its directories.
func (e *Engine) applyAs(ctx context.Context, r *container.Record, v *view, at *tree.Dir, src tarstream.Source, o archive.ApplyOptions) error {
	owners, err := e.ownersAt(r, v, at)
	if err != nil {
		return err
	}
	if owners == nil {
		_, err := archive.Apply(ctx, at, src, o)
		return err
	}
	given, out := o.Owner, outside(owners)
	o.Owner = func(uid, gid uint32) (uint32, uint32) {
		if given != nil {
			uid, gid = given(uid, gid)
		}
		return out(uid, gid)
	}
	uid, gid, _ := owners.Root()
	o.CapRoot = uid
	return idmap.As(uid, gid, func() error { // the host's root could make nothing in there
		_, err := archive.Apply(ctx, at, src, o)
		return err
	})
}

// mountAt gives the mount that a path in the container lies in; nil: its own files.
func mountAt(r *container.Record, real string) (in *container.Mount) {
	all := r.AllMounts()
	for i := range all {
		m := &all[i]
		if (real == m.Target || strings.HasPrefix(real, strings.TrimSuffix(m.Target, "/")+"/")) && (in == nil || len(m.Target) > len(in.Target)) {
			in = m
		}
	}
	return in
}

// inside translates the host's ids to a container's; who has none there is nobody.
func inside(m *idmap.Pair) func(uid, gid uint32) (uint32, uint32) {
	return func(uid, gid uint32) (uint32, uint32) { return orNobody(m.Users.In(uid)), orNobody(m.Groups.In(gid)) }
}

// outside is inside's inverse; what has no id on the host becomes root's in the container.
func outside(m *idmap.Pair) func(uid, gid uint32) (uint32, uint32) {
	rootUID, rootGID, _ := m.Root()
	return func(uid, gid uint32) (uint32, uint32) {
		u, ok := m.Users.Out(uid)
		if !ok {
			u = rootUID
		}
		g, ok := m.Groups.Out(gid)
		if !ok {
			g = rootGID
		}
		return u, g
	}
}

func orNobody(id uint32, ok bool) uint32 {
	if !ok {
		return idmap.Overflow
	}
	return id
}

// rootOptions gives the options that make a tmpfs the container's root's.
func rootOptions(r *container.Record) string {
	if r.IDMap == nil {
		return ""
	}
	uid, gid, _ := r.IDMap.Root()
	return fmt.Sprintf(",uid=%d,gid=%d", uid, gid)
}

// usernsOption takes --security-opt userns=MODE for --userns=MODE: stock command lines let nothing but "host" pass there.
func usernsOption(s *container.Spec) error {
	var left []string
	for _, o := range s.Security.SecurityOpt {
		mode, is := strings.CutPrefix(o, "userns=")
		if !is {
			left = append(left, o)
			continue
		}
		if s.Security.UsernsMode != "" && s.Security.UsernsMode != mode {
			return fault.New(fault.Invalid, "conflicting options: --userns=%s and --security-opt %s", s.Security.UsernsMode, o)
		}
		s.Security.UsernsMode = mode
	}
	s.Security.SecurityOpt = left
	return nil
}

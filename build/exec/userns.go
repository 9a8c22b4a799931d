package exec

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/idmap"
	"berth/kernel/mount"
	"berth/kernel/overlay"
	"berth/runtime/launch"
)

// A box in a user namespace of its own (Config.UserNS) is what a container in one is (docs/decisions says how those are made): its files are stored
// with the ids that they have inside, and its mounts are shown to it through the mapping. So a layer is the same with and without.
//
// Of its mounts, overlays have each of their layers mapped, what is a directory of ours (a single layer, a cache) is mapped itself, and what is made
// for the step alone (secrets, sockets, /etc/hosts) belongs to ids of the mapping.

// UserNS gives steps their user namespaces.
type UserNS interface {
	// Take gives the mapping of the user namespace in which the step called id is to live; nil: the engine's. Whoever got one calls release once
	// the step is over.
	Take(id string) (m *idmap.Pair, release func(), err error)
}

// takeIDs finds out in which user namespace the box is to live.
func (b *box) takeIDs() error {
	if b.r.cfg.UserNS == nil || b.r.cfg.InUserNS {
		return nil
	}
	m, release, err := b.r.cfg.UserNS.Take(b.cfg.id)
	if err != nil || m == nil {
		return fault.In(err, "give the step a user namespace")
	}
	b.ids, b.releaseIDs = m, release
	uid, gid, ok := m.Root()
	if !ok {
		return fault.New(fault.Internal, "the user namespace of build steps has no root")
	}
	ns, err := launch.UserNamespace(*m)
	if err != nil {
		return fault.In(err, "make the step's user namespace")
	}
	b.mapping = &overlay.Mapping{NS: ns, UID: uid, GID: gid}
	return nil
}

// dropIDs gives back what takeIDs took.
func (b *box) dropIDs() {
	if b.mapping != nil {
		_ = unix.Close(b.mapping.NS)
		b.mapping = nil
	}
	if b.releaseIDs != nil {
		b.releaseIDs()
		b.releaseIDs = nil
	}
}

// mapPlace has a tree that shows a directory of ours as it is on disk show it as the step is to see it.
func (b *box) mapPlace(p *place) error {
	if b.mapping == nil || p.tree < 0 || !p.borrows {
		return nil
	}
	return fault.In(mount.IDMap(p.tree, b.mapping.NS, false),
		"show files to a step in a user namespace of its own: the file system may have no id-mapped mounts (ext4, xfs, btrfs, and tmpfs since Linux 6.3 have)")
}

// host gives the ids on the host of ids in the box.
func (b *box) host(uid, gid uint32) (hostUID, hostGID uint32, err error) {
	if b.ids == nil {
		return uid, gid, nil
	}
	hostUID, ok := b.ids.Users.Out(uid)
	if !ok {
		return 0, 0, fault.New(fault.Invalid, "user %d has no id in the user namespace of build steps, which has %v", uid, b.ids.Users)
	}
	hostGID, ok = b.ids.Groups.Out(gid)
	if !ok {
		return 0, 0, fault.New(fault.Invalid, "group %d has no id in the user namespace of build steps, which has %v", gid, b.ids.Groups)
	}
	return hostUID, hostGID, nil
}

// inside is host's inverse; who has no id in the box is nobody.
func (b *box) inside(uid, gid uint32) (uint32, uint32) {
	if b.ids == nil {
		return uid, gid
	}
	const nobody = 65534 // the kernel's overflow id
	in := func(m idmap.Map, id uint32) uint32 {
		if got, ok := m.In(id); ok {
			return got
		}
		return nobody
	}
	return in(b.ids.Users, uid), in(b.ids.Groups, gid)
}

// asRoot calls do with the rights to make files in the box's root: who is none of the mapping's could make nothing there.
func (b *box) asRoot(do func() error) error {
	if b.mapping == nil {
		return do()
	}
	return idmap.As(b.mapping.UID, b.mapping.GID, do)
}

// mapNamespaces puts the box into its user namespace: that which its network belongs to, else the one of its mounts.
func (b *box) mapNamespaces() {
	if b.mapping == nil {
		return
	}
	l := b.spec.Linux
	l.UIDMappings, l.GIDMappings = b.ids.Users.Spec(), b.ids.Groups.Spec()
	path := source(b.mapping.NS)
	if b.ownsNet() {
		path = b.net.NetNS
	}
	l.Namespaces = append([]specs.LinuxNamespace{{Type: specs.UserNamespace, Path: path}}, l.Namespaces...)
}

// ownsNet says that the box's network namespace was made beforehand, with a user namespace that owns it.
func (b *box) ownsNet() bool { return b.mapping != nil && b.net.NetNS != "" }

// mount mounts a stack of layers as the box is to see it.
func (b *box) mount(s overlay.Stack) (int, error) {
	s.Map, s.Label = b.mapping, b.confined.MountLabel
	scratch, done, err := b.r.scratch()
	if err != nil {
		return -1, err
	}
	defer done()
	return s.Mount(b.r.facts, scratch)
}

// lendSys puts the host's /sys in the place of one of the box's own: only who rules a network namespace may mount a sysfs that shows it.
func lendSys(list []specs.Mount) {
	for i := range list {
		if list[i].Type == "sysfs" {
			list[i] = specs.Mount{Destination: list[i].Destination, Type: "bind", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "rro"}}
		}
	}
}

package container

import (
	"cmp"
	"path"
	"slices"
)

// MountPoints gives the record's mounts as inspect shows them, by destination.
func (r *Record) MountPoints() []MountPoint {
	var all []MountPoint
	for _, m := range r.AllMounts() {
		all = append(all, m.point())
	}
	slices.SortFunc(all, func(a, b MountPoint) int { return cmp.Compare(a.Destination, b.Destination) })
	return all
}

func (m *Mount) point() MountPoint {
	p := MountPoint{Type: m.Type, Source: m.Source, Destination: path.Clean(m.Target), Mode: m.Mode, RW: !m.ReadOnly}
	switch m.Type {
	case "bind":
		p.Propagation = cmp.Or(m.Propagation, "rprivate")
	case "volume":
		p.Name, p.Source, p.Driver = m.Source, m.Path, cmp.Or(m.Driver, "local")
		p.Propagation = m.Propagation
	case "image":
		p.RW = false
	case "tmpfs":
		p.Source = ""
	}
	return p
}

package bundle

import (
	"fmt"
	"maps"

	"berth/engine/container"
	"berth/runtime/spec"
)

// maps says whether a mount is shown through the container's mapping: a volume's files are stored with the ids that they have inside, so
// that containers with different mappings share it; a bind shows the host's owners, as in Docker, unless it is asked for.
func (in Input) maps(m *container.Mount, source string) bool {
	switch m.Type {
	case "volume":
		return in.mapped(source)
	case "bind":
		return m.IDMap && in.Record.IDMap != nil
	}
	return false // images are mounted through it already
}

// mapped says whether what the engine keeps at a host path can be shown through the container's mapping.
func (in Input) mapped(source string) bool {
	return in.Record.IDMap != nil && in.CanMap != nil && in.CanMap(source)
}

// sysctls gives what was asked for over what a network namespace of the container's own gets.
func (r *Rules) sysctls(rec *container.Record) map[string]string {
	s := rec.Spec
	if s.Network.Name() == "host" || s.Network.IsContainer() {
		return s.Security.Sysctls
	}
	all := spec.NetworkSysctls()
	if own := r.cfg.Own; own != nil {
		all[pingGroups] = fmt.Sprintf("0 %d", own.LastGroup)
	}
	if rec.IDMap != nil {
		delete(all, pingGroups)
		if g := rec.IDMap.Groups; len(g) > 0 && g[0].Inside == 0 {
			all[pingGroups] = fmt.Sprintf("0 %d", g[0].Size-1) // both ends must have an id
		}
	}
	maps.Copy(all, s.Security.Sysctls)
	return all
}

const pingGroups = "net.ipv4.ping_group_range"

package archive

import "encoding/binary"

// Capabilities of a file belong to the root of the user namespace that they were given in (capabilities(7), "Namespaced file
// capabilities", struct vfs_ns_cap_data). In an archive they are the plain ones, version 2, whoever's container it comes from; seen from
// the host, the files of a container in a user namespace carry version 3, with its root's id on the host behind.
const (
	capAttr     = "security.capability"
	capVersion2 = 0x02000000
	capVersion3 = 0x03000000
	capVersions = 0xff000000
	capSize2    = 20
	capSize3    = 24
)

// capOf makes plain capabilities those of the root with this id on the host. Any others stay as they are.
func capOf(v []byte, root uint32) []byte {
	if root == 0 || len(v) != capSize2 {
		return v
	}
	magic := binary.LittleEndian.Uint32(v)
	if magic&capVersions != capVersion2 {
		return v
	}
	out := make([]byte, capSize3)
	copy(out, v)
	binary.LittleEndian.PutUint32(out, magic&^capVersions|capVersion3)
	binary.LittleEndian.PutUint32(out[capSize2:], root)
	return out
}

// plainCap is capOf's inverse.
func plainCap(v []byte, root uint32) []byte {
	if root == 0 || len(v) != capSize3 || binary.LittleEndian.Uint32(v[capSize2:]) != root {
		return v
	}
	magic := binary.LittleEndian.Uint32(v)
	if magic&capVersions != capVersion3 {
		return v
	}
	out := append([]byte(nil), v[:capSize2]...)
	binary.LittleEndian.PutUint32(out, magic&^capVersions|capVersion2)
	return out
}

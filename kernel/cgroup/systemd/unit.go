package systemd

import (
	"strings"

	"berth/base/fault"
)

// Unit is a container's place in systemd's tree.
type Unit struct {
	Name  string // "berth-0123.scope", or a slice
	Slice string // the slice it is in: "system.slice"
}

// Parse reads OCI's cgroupsPath "slice:prefix:name". An empty path is the scope of the id in the default
// slice; an empty slice is system.slice, for an ordinary user's systemd user.slice.
func Parse(cgroupsPath, prefix, id string, user bool) (Unit, error) {
	slice, name := "", ""
	if cgroupsPath == "" {
		name = id
	} else {
		parts := strings.Split(cgroupsPath, ":")
		if len(parts) != 3 {
			return Unit{}, fault.New(fault.Invalid, `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got %q instead`, cgroupsPath)
		}
		slice, prefix, name = parts[0], parts[1], parts[2]
	}
	if slice == "" {
		slice = "system.slice"
		if user {
			slice = "user.slice"
		}
	}
	u := Unit{Slice: slice}
	switch {
	case name == "":
		return u, fault.New(fault.Invalid, "cgroupsPath %q has no name: give slice:prefix:name", cgroupsPath)
	case strings.HasSuffix(name, ".slice"):
		u.Name = name
	case prefix == "":
		u.Name = name + ".scope"
	default:
		u.Name = prefix + "-" + name + ".scope"
	}
	if _, err := ExpandSlice(slice); err != nil {
		return u, err
	}
	if bad := strings.IndexFunc(u.Name, invalidInName); bad >= 0 || len(u.Name) > 255 {
		return u, fault.New(fault.Invalid, "%q is no unit's name: letters, digits and :-_.\\@ only, at most 255 of them", u.Name)
	}
	if u.IsSlice() {
		_, err := ExpandSlice(u.Name)
		return u, err
	}
	return u, nil
}

// IsSlice reports whether the unit is a slice, which holds no processes of its own at its start.
func (u Unit) IsSlice() bool { return strings.HasSuffix(u.Name, ".slice") }

// Path is the unit's cgroup below systemd's own root: "/system.slice/berth-0123.scope".
func (u Unit) Path() string {
	if u.IsSlice() {
		p, _ := ExpandSlice(u.Name)
		return p
	}
	p, _ := ExpandSlice(u.Slice)
	if p == "/" {
		p = ""
	}
	return p + "/" + u.Name
}

// ExpandSlice gives a slice's path: "a-b.slice" is inside "a.slice". "-.slice" is the root.
func ExpandSlice(slice string) (string, error) {
	if slice == "-.slice" {
		return "/", nil
	}
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || name == "" || strings.Contains(name, "/") || strings.IndexFunc(name, invalidInName) >= 0 {
		return "", fault.New(fault.Invalid, "invalid slice name: %s: give one such as machine.slice", slice)
	}
	var path, prefix string
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", fault.New(fault.Invalid, "invalid slice name: %s: a dash stands between two parts", slice)
		}
		prefix += part
		path += "/" + prefix + ".slice"
		prefix += "-"
	}
	return path, nil
}

// invalidInName: systemd.unit(5) allows these and no others in a unit's name.
func invalidInName(c rune) bool {
	return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(`:-_.\@`, c))
}

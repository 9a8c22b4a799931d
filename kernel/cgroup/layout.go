package cgroup

import (
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Mode says which kind of cgroups a machine has mounted.
type Mode uint8

// The modes.
const (
	None   Mode = iota // nothing usable is mounted
	V1                 // only v1 hierarchies
	V2                 // only the unified hierarchy
	Hybrid             // v1 hierarchies with controllers and the unified one beside them
)

// String gives "v1", "v2", "hybrid" or "none".
func (m Mode) String() string {
	switch m {
	case V1:
		return "v1"
	case V2:
		return "v2"
	case Hybrid:
		return "hybrid"
	}
	return "none"
}

// Hierarchy is one mounted cgroup tree.
type Hierarchy struct {
	V2  bool
	Dir string // mount point
	// Controllers are v1's name for the hierarchy ("cpu", "cpuacct" or "name=systemd"), or the controllers
	// that v2's topmost visible cgroup offers (cgroup.controllers).
	Controllers []string
	// Own is this process's cgroup, as a path below Dir ("/" is Dir itself). Relative cgroup paths start here.
	Own string
}

// Layout is what a machine has mounted. It is a plain value; tests make their own.
type Layout struct {
	Mode        Mode
	Hierarchies []Hierarchy // v1's in the kernel's order, then v2's
}

// Detect finds the mounted hierarchies of this process's mount namespace. It looks where hierarchies are
// by convention, and reads the whole mount table only when one is not there.
func Detect() (Layout, error) { return DetectAt("") }

// DetectAt is Detect with every absolute path (/proc, /sys) prefixed by root. Below a root that is not
// "" hierarchies are taken from root's /proc/self/mountinfo alone, so that ordinary directories can stand
// for cgroup file systems in tests.
func DetectAt(root string) (Layout, error) {
	text, err := readFile(root + "/proc/self/cgroup")
	if err != nil {
		return Layout{}, fault.Wrap(fault.Internal, err, "find this process's cgroups")
	}
	self := ownPaths(text)
	if root == "" {
		var st unix.Statfs_t
		if unix.Statfs(conventional, &st) == nil && int64(st.Type) == unix.CGROUP2_SUPER_MAGIC {
			h := Hierarchy{V2: true, Dir: conventional, Own: ownV2(self)}
			if h.Own == "" || h.Own == "/" || exists(h.Dir+h.Own) {
				return finish([]Hierarchy{h})
			}
		} else if hs, ok := byConvention(self); ok {
			return finish(hs)
		}
	}
	mounts, err := readFile(root + "/proc/self/mountinfo")
	if err != nil {
		return Layout{}, fault.Wrap(fault.Internal, err, "find the mounted cgroup hierarchies")
	}
	return finish(fromMounts(mounts, self, root))
}

const conventional = "/sys/fs/cgroup"

// V2 gives the unified hierarchy, or nil.
func (l Layout) V2() *Hierarchy {
	for i := range l.Hierarchies {
		if l.Hierarchies[i].V2 {
			return &l.Hierarchies[i]
		}
	}
	return nil
}

// Find gives the hierarchy that has the controller, or nil. For named v1 hierarchies ask "name=systemd".
func (l Layout) Find(controller string) *Hierarchy {
	for i := range l.Hierarchies {
		if slices.Contains(l.Hierarchies[i].Controllers, controller) {
			return &l.Hierarchies[i]
		}
	}
	return nil
}

// Place gives the directory that the cgroup path means in this hierarchy. An absolute path starts at the
// mount point. A relative one starts at this process's own cgroup; in a pure v2 layout beside it, since
// a v2 cgroup that has processes cannot give controllers to its children. No path leaves the mount point.
func (h *Hierarchy) Place(mode Mode, p string) string {
	if len(p) == 0 || p[0] != '/' {
		own := h.Own
		if mode == V2 {
			own = path.Dir(own)
		}
		p = own + path.Clean("/"+p)
	}
	p = path.Clean("/" + p)
	if p == "/" {
		return h.Dir
	}
	return h.Dir + p
}

// Has reports whether the hierarchy has the controller.
func (h *Hierarchy) Has(controller string) bool { return slices.Contains(h.Controllers, controller) }

func finish(hs []Hierarchy) (Layout, error) {
	l := Layout{Hierarchies: hs}
	v1, v2 := 0, 0
	for i := range hs {
		h := &hs[i]
		if h.Own == "" {
			h.Own = "/"
		}
		if !h.V2 {
			v1++
			continue
		}
		v2++
		if b, err := readFile(h.Dir + "/cgroup.controllers"); err == nil {
			h.Controllers = strings.Fields(string(b))
		}
	}
	switch {
	case v1 > 0 && v2 > 0:
		l.Mode = Hybrid
	case v1 > 0:
		l.Mode = V1
	case v2 > 0:
		l.Mode = V2
	default:
		return l, fault.New(fault.NotImplemented, "no cgroup hierarchy is mounted: mount cgroup2 on /sys/fs/cgroup")
	}
	return l, nil
}

// own is a line of /proc/self/cgroup, "id:controllers:path".
type own struct {
	v2          bool
	controllers string // "cpu,cpuacct", "name=systemd", "" for v2
	path        string
}

// ownPaths reads /proc/self/cgroup.
func ownPaths(self []byte) []own {
	list := make([]own, 0, 16)
	for rest := string(self); rest != ""; {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		id, line, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		controllers, p, ok := strings.Cut(line, ":")
		if !ok || len(p) == 0 || p[0] != '/' {
			continue
		}
		// A process outside its cgroup namespace's root sees "/../..": Clean keeps it inside.
		list = append(list, own{id == "0" && controllers == "", controllers, path.Clean(p)})
	}
	return list
}

// ownV2 gives this process's path in the unified hierarchy, or "".
func ownV2(list []own) string {
	for i := range list {
		if list[i].v2 {
			return list[i].path
		}
	}
	return ""
}

// byConvention looks for each hierarchy of this process at /sys/fs/cgroup/NAME, which costs one statfs
// each whatever the number of mounts. It gives up (false) when a v1 one is elsewhere, or when a process's
// own cgroup is not visible below its mount point: then only the mount table tells.
func byConvention(list []own) ([]Hierarchy, bool) {
	hs := make([]Hierarchy, 0, len(list))
	for _, o := range list {
		h := Hierarchy{V2: o.v2, Own: o.path}
		magic := int64(unix.CGROUP_SUPER_MAGIC)
		if o.v2 {
			h.Dir, magic = conventional+"/unified", unix.CGROUP2_SUPER_MAGIC
		} else {
			h.Dir = conventional + "/" + strings.TrimPrefix(o.controllers, "name=")
			h.Controllers = strings.Split(o.controllers, ",")
		}
		var st unix.Statfs_t
		if unix.Statfs(h.Dir, &st) != nil || int64(st.Type) != magic {
			return nil, false
		}
		if h.Own != "/" && !exists(h.Dir+h.Own) {
			return nil, false
		}
		hs = append(hs, h)
	}
	for i := range hs {
		if hs[i].V2 { // last
			v2 := hs[i]
			hs = append(append(hs[:i:i], hs[i+1:]...), v2)
			break
		}
	}
	return hs, len(hs) > 1 || len(hs) == 1 && !hs[0].V2
}

// fromMounts takes the hierarchies from the mount table. Of several mounts of one hierarchy it takes the
// first below /sys/fs/cgroup, else the first.
func fromMounts(mounts []byte, self []own, root string) []Hierarchy {
	var hs []Hierarchy
	var v2 *Hierarchy
	seen := make(map[string]int)
	for line := range strings.SplitSeq(string(mounts), "\n") {
		m, ok := parseMount(line)
		if !ok {
			continue
		}
		h := Hierarchy{V2: m.v2, Dir: root + m.dir}
		key := ""
		if m.v2 {
			h.Own = ownV2(self)
		} else {
			h.Controllers = v1Controllers(m.options)
			if len(h.Controllers) == 0 {
				continue
			}
			key = strings.Join(h.Controllers, ",")
			h.Own = ownV1(self, h.Controllers[0])
		}
		h.Own = ownBelow(h.Own, m.root)
		preferred := m.dir == conventional || strings.HasPrefix(m.dir, conventional+"/")
		if m.v2 {
			if v2 == nil || preferred && !strings.HasPrefix(v2.Dir, root+conventional) {
				v2 = &h
			}
			continue
		}
		if i, again := seen[key]; again {
			if preferred && !strings.HasPrefix(hs[i].Dir, root+conventional) {
				hs[i] = h
			}
			continue
		}
		seen[key] = len(hs)
		hs = append(hs, h)
	}
	if v2 != nil {
		hs = append(hs, *v2)
	}
	return hs
}

// ownV1 finds the own path in the v1 hierarchy that has the controller; the two files may list its
// controllers in another order.
func ownV1(list []own, controller string) string {
	for _, o := range list {
		if !o.v2 && slices.Contains(strings.Split(o.controllers, ","), controller) {
			return o.path
		}
	}
	return "/"
}

// ownBelow turns a path in the hierarchy into one below a mount that shows only the part under mountRoot,
// as in a container without a cgroup namespace.
func ownBelow(p, mountRoot string) string {
	if mountRoot == "/" || mountRoot == "" || strings.HasPrefix(mountRoot, "/..") {
		return p
	}
	if p == mountRoot {
		return "/"
	}
	if rest, ok := strings.CutPrefix(p, mountRoot+"/"); ok {
		return "/" + rest
	}
	return "/"
}

// v1Controllers picks the controllers out of a v1 mount's super options ("rw,cpu,cpuacct").
func v1Controllers(options string) []string {
	var cs []string
	for o := range strings.SplitSeq(options, ",") {
		switch {
		case strings.HasPrefix(o, "name="):
			cs = append(cs, o)
		case slices.Contains(knownControllers[:], o):
			cs = append(cs, o)
		}
	}
	return cs
}

// knownControllers are all that v1 ever had; the other super options are flags.
var knownControllers = [...]string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio",
	"pids", "net_cls", "net_prio", "perf_event", "hugetlb", "rdma", "misc", "debug"}

type mountLine struct {
	v2                 bool
	root, dir, options string
}

// parseMount reads one line of mountinfo if it is a cgroup mount. (kernel/mount has the full parser; this
// one stays small because it is on the start path of every container.)
func parseMount(line string) (mountLine, bool) {
	before, after, ok := strings.Cut(line, " - ")
	if !ok || !strings.HasPrefix(after, "cgroup") {
		return mountLine{}, false
	}
	tail := strings.SplitN(after, " ", 3)
	head := strings.SplitN(before, " ", 6)
	if len(tail) != 3 || len(head) < 5 || tail[0] != "cgroup" && tail[0] != "cgroup2" {
		return mountLine{}, false
	}
	return mountLine{tail[0] == "cgroup2", unescape(head[3]), unescape(head[4]), tail[2]}, true
}

// unescape undoes mountinfo's \040 writing.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }

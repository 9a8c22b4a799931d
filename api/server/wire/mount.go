package wire

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	containertypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"berth/base/fault"
	"berth/engine/container"
)

// mounts gathers -v, --tmpfs and --mount, in this order.
func mounts(h *HostConfig, v Version) ([]container.Mount, error) {
	var out []container.Mount
	for _, raw := range h.Binds {
		m, err := bind(raw)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	for _, target := range sortedKeys(h.Tmpfs) {
		if err := checkTarget(target); err != nil {
			return nil, err
		}
		if err := checkTmpfsOptions(h.Tmpfs[target]); err != nil {
			return nil, err
		}
		out = append(out, container.Mount{Type: "tmpfs", Target: path.Clean(target), FromTmpfs: true, TmpfsOptions: h.Tmpfs[target]})
	}
	for i := range h.Mounts {
		m, err := apiMount(&h.Mounts[i])
		if err != nil {
			return nil, err
		}
		if m.Type == "volume" && h.VolumeDriver != "" && m.Driver == "" {
			m.Driver = "local" // the driver for all volumes is for those of -v
		}
		out = append(out, m)
	}
	for i := range out {
		if slices.ContainsFunc(out[:i], func(o container.Mount) bool { return o.Target == out[i].Target }) {
			return nil, fault.New(fault.Invalid, "Duplicate mount point: %s", out[i].Target)
		}
		// Before 1.44 a read-only bind left the mounts beneath it writable.
		if v < 44 && out[i].Type == "bind" && out[i].ReadOnly {
			out[i].ReadOnlyNonRecursive = true
		}
	}
	return out, nil
}

// bind reads one -v: [SOURCE:]TARGET[:OPTIONS]. A source that is no absolute path is the name of a volume; without one it is a volume
// for this container alone.
func bind(raw string) (container.Mount, error) {
	bad := func(why string, args ...any) (container.Mount, error) {
		text := fmt.Sprintf("invalid volume specification: '%s'", raw)
		if why != "" {
			text += ": " + fmt.Sprintf(why, args...)
		}
		return container.Mount{}, fault.New(fault.Invalid, "%s", text)
	}
	part := strings.SplitN(raw, ":", 4)
	if part[0] == "" || len(part) > 3 {
		return bad("")
	}
	m := container.Mount{FromBinds: true}
	switch len(part) {
	case 1:
		m.Target = part[0]
	case 2:
		if modeOK(part[1]) {
			return bad("") // a target and options, but no source
		}
		m.Source, m.Target = part[0], part[1]
	case 3:
		m.Source, m.Target, m.Mode = part[0], part[1], part[2]
	}
	if !modeOK(m.Mode) {
		return m, fault.New(fault.Invalid, "invalid mode: %s", m.Mode)
	}
	m.Type = mountKind(m.Source)
	if err := checkTarget(m.Target); err != nil {
		return bad("invalid mount config for type %q: %v", m.Type, err)
	}
	m.Target = path.Clean(m.Target)
	if m.Type == "bind" {
		m.Source = path.Clean(m.Source)
	}
	for _, o := range strings.Split(m.Mode, ",") {
		switch o {
		case "ro":
			m.ReadOnly = true
		case "z", "Z":
			m.Relabel = o
		case "nocopy":
			m.NoCopy = true
		case "idmap":
			m.IDMap = true
		case "consistent", "cached", "delegated":
			m.Consistency = o
		case "private", "rprivate", "shared", "rshared", "slave", "rslave":
			m.Propagation = o
		}
	}
	switch {
	case m.Type == "bind" && m.NoCopy:
		return bad("invalid mount config for type %q: field VolumeOptions must not be specified", m.Type)
	case m.Type == "volume" && m.Propagation != "":
		return bad("invalid mount config for type %q: field BindOptions must not be specified", m.Type)
	}
	return m, nil
}

func mountKind(source string) string {
	if path.IsAbs(source) {
		return "bind"
	}
	return "volume"
}

// modeOK reports whether the options of a -v are known and none of a kind comes twice.
func modeOK(mode string) bool {
	if mode == "" {
		return true
	}
	kinds := [][]string{
		{"rw", "ro"}, {"z", "Z"}, {"private", "rprivate", "shared", "rshared", "slave", "rslave"}, {"nocopy"}, {"consistent", "cached", "delegated"}, {"idmap"},
	}
	seen := make([]bool, len(kinds))
	for _, o := range strings.Split(mode, ",") {
		k := slices.IndexFunc(kinds, func(of []string) bool { return slices.Contains(of, o) })
		if k < 0 || seen[k] {
			return false
		}
		seen[k] = true
	}
	return true
}

func checkTarget(target string) error {
	switch {
	case target == "":
		return fault.New(fault.Invalid, "field Target must not be empty")
	case path.Clean(target) == "/":
		return fault.New(fault.Invalid, "invalid specification: destination can't be '/'")
	case !path.IsAbs(target):
		return fault.New(fault.Invalid, "invalid mount path: '%s' mount path must be absolute", target)
	}
	return nil
}

// checkTmpfsOptions knows the options that Docker passes on; see tmpfs(5).
func checkTmpfsOptions(options string) error {
	flags := []string{
		"", "defaults", "ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "sync", "async", "dirsync", "remount", "mand", "nomand",
		"atime", "noatime", "diratime", "nodiratime", "bind", "rbind", "unbindable", "runbindable", "private", "rprivate", "shared", "rshared",
		"slave", "rslave", "relatime", "norelatime", "strictatime", "nostrictatime",
	}
	keys := []string{"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"}
	for _, o := range strings.Split(options, ",") {
		key, value, pair := strings.Cut(o, "=")
		if pair && slices.Contains(keys, key) && value != "" || !pair && slices.Contains(flags, o) {
			continue
		}
		return fault.New(fault.Invalid, "invalid tmpfs option %q", o)
	}
	return nil
}

// apiMount translates one --mount.
func apiMount(a *mount.Mount) (container.Mount, error) {
	m := container.Mount{Type: string(a.Type), Source: a.Source, Target: a.Target, ReadOnly: a.ReadOnly, Consistency: string(a.Consistency)}
	if err := checkMount(a); err != nil {
		return m, fault.Wrap(fault.Invalid, err, "invalid mount config for type %q", a.Type)
	}
	m.Target = path.Clean(m.Target)
	switch a.Type {
	case mount.TypeBind:
		m.Source = path.Clean(m.Source)
		if b := a.BindOptions; b != nil {
			m.Propagation, m.NonRecursive, m.CreateMountpoint = string(b.Propagation), b.NonRecursive, b.CreateMountpoint
			m.ReadOnlyNonRecursive, m.ReadOnlyForceRecursive = b.ReadOnlyNonRecursive, b.ReadOnlyForceRecursive
		}
	case mount.TypeTmpfs:
		if t := a.TmpfsOptions; t != nil {
			m.TmpfsSize, m.TmpfsMode = t.SizeBytes, uint32(t.Mode)
			var words []string
			for _, o := range t.Options {
				words = append(words, strings.Join(o, "="))
			}
			m.TmpfsOptions = strings.Join(words, ",")
		}
	case mount.TypeVolume:
		if o := a.VolumeOptions; o != nil {
			m.NoCopy, m.VolumeLabels, m.Subpath = o.NoCopy, o.Labels, o.Subpath
			if d := o.DriverConfig; d != nil {
				m.Driver, m.DriverOptions = d.Name, d.Options
			}
		}
	case mount.TypeImage:
		if o := a.ImageOptions; o != nil {
			m.Subpath = o.Subpath
		}
	}
	return m, nil
}

// checkMount says in Docker's words what is wrong with a --mount.
func checkMount(a *mount.Mount) error {
	extra := func(name string) error { return fmt.Errorf("field %s must not be specified", name) }
	if err := checkTarget(a.Target); err != nil {
		return err
	}
	switch a.Type {
	case mount.TypeBind, mount.TypeTmpfs, mount.TypeVolume, mount.TypeImage:
	default:
		return errors.New("mount type unknown")
	}
	switch {
	case a.BindOptions != nil && a.Type != mount.TypeBind:
		return extra("BindOptions")
	case a.VolumeOptions != nil && a.Type != mount.TypeVolume:
		return extra("VolumeOptions")
	case a.ImageOptions != nil && a.Type != mount.TypeImage:
		return extra("ImageOptions")
	case a.TmpfsOptions != nil && a.Type != mount.TypeTmpfs:
		return extra("TmpfsOptions")
	case a.ClusterOptions != nil:
		return extra("ClusterOptions")
	case a.Type == mount.TypeTmpfs && a.Source != "":
		return extra("Source")
	case (a.Type == mount.TypeBind || a.Type == mount.TypeImage) && a.Source == "":
		return errors.New("field Source must not be empty")
	case a.Type == mount.TypeBind && !path.IsAbs(a.Source):
		return fmt.Errorf("invalid mount path: '%s' mount path must be absolute", a.Source)
	}
	if b := a.BindOptions; b != nil {
		if b.Propagation != "" && !slices.Contains(mount.Propagations, b.Propagation) {
			return fmt.Errorf("invalid propagation mode: %s", b.Propagation)
		}
		if b.ReadOnlyNonRecursive && b.ReadOnlyForceRecursive {
			return errors.New("ReadOnlyNonRecursive and ReadOnlyForceRecursive contradict each other")
		}
	}
	if o := a.VolumeOptions; o != nil && o.Subpath != "" {
		if a.Source == "" {
			return errors.New("must not set Subpath when using anonymous volumes")
		}
		if !filepath.IsLocal(o.Subpath) {
			return errors.New("subpath must be a relative path within the volume")
		}
	}
	if o := a.ImageOptions; o != nil && o.Subpath != "" && !filepath.IsLocal(o.Subpath) {
		return errors.New("subpath must be a relative path within the volume")
	}
	if t := a.TmpfsOptions; t != nil {
		if t.SizeBytes < 0 {
			return errors.New("TmpfsOptions.SizeBytes cannot be negative")
		}
		for _, o := range t.Options {
			if len(o) < 1 || len(o) > 2 {
				return errors.New("invalid option array length")
			}
			if o[0] != "exec" && o[0] != "noexec" {
				return errors.New("invalid option: " + o[0])
			}
		}
	}
	return nil
}

// apiMounts gives mounts back in the three shapes in which they were asked for.
func apiMounts(in []container.Mount) (binds []string, tmpfs map[string]string, mounts []mount.Mount) {
	for _, m := range in {
		switch {
		case m.FromBinds:
			b := m.Target
			if m.Source != "" {
				b = m.Source + ":" + b
			}
			if m.Mode != "" {
				b += ":" + m.Mode
			}
			binds = append(binds, b)
		case m.FromTmpfs:
			if tmpfs == nil {
				tmpfs = map[string]string{}
			}
			tmpfs[m.Target] = m.TmpfsOptions
		default:
			mounts = append(mounts, asked(m))
		}
	}
	return binds, tmpfs, mounts
}

// asked gives back the --mount that m came from.
func asked(m container.Mount) mount.Mount {
	a := mount.Mount{Type: mount.Type(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly, Consistency: mount.Consistency(m.Consistency)}
	switch m.Type {
	case "volume":
		o := mount.VolumeOptions{NoCopy: m.NoCopy, Labels: m.VolumeLabels, Subpath: m.Subpath}
		if m.Driver != "" || m.DriverOptions != nil {
			o.DriverConfig = &mount.Driver{Name: m.Driver, Options: m.DriverOptions}
		}
		if o.NoCopy || o.Labels != nil || o.Subpath != "" || o.DriverConfig != nil {
			a.VolumeOptions = &o
		}
	case "image":
		if m.Subpath != "" {
			a.ImageOptions = &mount.ImageOptions{Subpath: m.Subpath}
		}
	}
	b := mount.BindOptions{
		Propagation: mount.Propagation(m.Propagation), NonRecursive: m.NonRecursive, CreateMountpoint: m.CreateMountpoint,
		ReadOnlyNonRecursive: m.ReadOnlyNonRecursive, ReadOnlyForceRecursive: m.ReadOnlyForceRecursive,
	}
	if b != (mount.BindOptions{}) {
		a.BindOptions = &b
	}
	if m.TmpfsSize != 0 || m.TmpfsMode != 0 || m.TmpfsOptions != "" {
		a.TmpfsOptions = &mount.TmpfsOptions{SizeBytes: m.TmpfsSize, Mode: fs.FileMode(m.TmpfsMode)}
		for _, o := range strings.Split(m.TmpfsOptions, ",") {
			if k, v, pair := strings.Cut(o, "="); pair {
				a.TmpfsOptions.Options = append(a.TmpfsOptions.Options, []string{k, v})
			} else if o != "" {
				a.TmpfsOptions.Options = append(a.TmpfsOptions.Options, []string{o})
			}
		}
	}
	return a
}

// volumes reads the paths at which the container gets volumes of its own.
func volumes(asked map[string]struct{}) (map[string]struct{}, error) {
	for _, target := range sortedKeys(asked) {
		if err := checkTarget(target); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "invalid mount config for type %q", mount.TypeVolume)
		}
	}
	return asked, nil
}

// checkVolumesFrom reads CONTAINER[:OPTIONS] of --volumes-from.
func checkVolumesFrom(all []string) error {
	for _, text := range all {
		if text == "" {
			return fault.New(fault.Invalid, "volumes-from specification cannot be an empty string")
		}
		_, mode, _ := strings.Cut(text, ":")
		inherited := []string{"nocopy", "idmap", "private", "rprivate", "shared", "rshared", "slave", "rslave"}
		if !modeOK(mode) || slices.ContainsFunc(strings.Split(mode, ","), func(o string) bool { return slices.Contains(inherited, o) }) {
			return fault.New(fault.Invalid, "invalid mode: %s", mode)
		}
	}
	return nil
}

// mountPoints is what inspect and list say is mounted. As in Docker a --tmpfs is not among them; a --mount type=tmpfs is.
func mountPoints(i *container.Info) []containertypes.MountPoint {
	out := []containertypes.MountPoint{}
	asked := map[string]*container.Mount{}
	for k := range i.Spec.Mounts {
		m := &i.Spec.Mounts[k]
		asked[path.Clean(m.Target)] = m
	}
	for _, m := range i.Mounts {
		from := asked[m.Destination]
		if from != nil && from.FromTmpfs {
			continue
		}
		p := containertypes.MountPoint{
			Type: mount.Type(m.Type), Name: m.Name, Source: m.Source, Destination: m.Destination, Driver: m.Driver, Mode: m.Mode, RW: m.RW,
			Propagation: mount.Propagation(m.Propagation),
		}
		if m.Type == "volume" && m.Driver == "local" && m.Mode == "" && from != nil {
			p.Mode = "z" // so Docker shows it, with SELinux and without
		}
		out = append(out, p)
	}
	return out
}

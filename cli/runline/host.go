package runline

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

func (b *builder) mounts() {
	covered := map[string]bool{}
	for _, v := range b.h.Binds {
		b.add("volume", v)
		covered[target(Option{Flag: "volume", Value: v})] = true
	}
	for _, m := range b.h.Mounts {
		b.add("mount", mountFields(m))
		covered[m.Target] = true
	}
	for _, at := range slices.Sorted(maps.Keys(b.h.Tmpfs)) {
		value := at
		if o := b.h.Tmpfs[at]; o != "" {
			value += ":" + o
		}
		b.add("tmpfs", value)
		covered[at] = true
	}
	for _, at := range slices.Sorted(maps.Keys(b.c.Volumes)) {
		if _, byImage := b.img.Volumes[at]; !byImage && !covered[at] {
			b.add("volume", at)
		}
	}
	b.each("volumes-from", b.h.VolumesFrom)
	b.text("volume-driver", b.h.VolumeDriver)
	b.yes("read-only", b.h.ReadonlyRootfs)
}

// mountFields gives a mount as --mount takes it.
func mountFields(m mount.Mount) string {
	f := []string{"type=" + string(m.Type)}
	text := func(name, value string) {
		if value != "" {
			f = append(f, name+"="+value)
		}
	}
	yes := func(name string, set bool) {
		if set {
			f = append(f, name)
		}
	}
	text("source", m.Source)
	text("target", m.Target)
	yes("readonly", m.ReadOnly)
	text("consistency", string(m.Consistency))
	if o := m.BindOptions; o != nil {
		text("bind-propagation", string(o.Propagation))
		switch {
		case o.NonRecursive:
			f = append(f, "bind-recursive=disabled")
		case o.ReadOnlyNonRecursive:
			f = append(f, "bind-recursive=writable")
		case o.ReadOnlyForceRecursive:
			f = append(f, "bind-recursive=readonly")
		}
		yes("bind-create-src", o.CreateMountpoint)
	}
	if o := m.VolumeOptions; o != nil {
		yes("volume-nocopy", o.NoCopy)
		text("volume-subpath", o.Subpath)
		for _, k := range slices.Sorted(maps.Keys(o.Labels)) {
			f = append(f, "volume-label="+k+"="+o.Labels[k])
		}
		if d := o.DriverConfig; d != nil {
			text("volume-driver", d.Name)
			for _, k := range slices.Sorted(maps.Keys(d.Options)) {
				f = append(f, "volume-opt="+k+"="+d.Options[k])
			}
		}
	}
	if o := m.ImageOptions; o != nil {
		text("image-subpath", o.Subpath)
	}
	if o := m.TmpfsOptions; o != nil {
		if o.SizeBytes > 0 {
			f = append(f, "tmpfs-size="+strconv.FormatInt(o.SizeBytes, 10))
		}
		if o.Mode != 0 {
			f = append(f, "tmpfs-mode="+strconv.FormatUint(uint64(o.Mode), 8))
		}
	}
	return csv(f)
}

// defaultShm is the size of /dev/shm that engines give.
const defaultShm = 64 << 20

func (b *builder) limits() {
	r := &b.h.Resources
	b.count("memory", r.Memory)
	b.count("memory-reservation", r.MemoryReservation)
	if r.MemorySwap != 2*r.Memory { // what engines make of a limit alone
		b.count("memory-swap", r.MemorySwap)
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 {
		b.add("memory-swappiness", strconv.FormatInt(*r.MemorySwappiness, 10))
	}
	if r.NanoCPUs != 0 {
		b.add("cpus", strings.TrimRight(strings.TrimRight(fmt.Sprintf("%d.%09d", r.NanoCPUs/1e9, r.NanoCPUs%1e9), "0"), "."))
	}
	b.count("cpu-shares", r.CPUShares)
	b.count("cpu-period", r.CPUPeriod)
	b.count("cpu-quota", r.CPUQuota)
	b.count("cpu-rt-period", r.CPURealtimePeriod)
	b.count("cpu-rt-runtime", r.CPURealtimeRuntime)
	b.text("cpuset-cpus", r.CpusetCpus)
	b.text("cpuset-mems", r.CpusetMems)
	if r.PidsLimit != nil {
		b.count("pids-limit", *r.PidsLimit)
	}
	b.count("blkio-weight", int64(r.BlkioWeight))
	for _, w := range r.BlkioWeightDevice {
		b.add("blkio-weight-device", w.String())
	}
	for _, t := range []struct {
		flag string
		list []*blkiodev.ThrottleDevice
	}{
		{"device-read-bps", r.BlkioDeviceReadBps}, {"device-write-bps", r.BlkioDeviceWriteBps},
		{"device-read-iops", r.BlkioDeviceReadIOps}, {"device-write-iops", r.BlkioDeviceWriteIOps},
	} {
		for _, d := range t.list {
			b.add(t.flag, d.String())
		}
	}
	b.yes("oom-kill-disable", r.OomKillDisable != nil && *r.OomKillDisable)
	b.count("oom-score-adj", int64(b.h.OomScoreAdj))
	for _, u := range r.Ulimits {
		b.add("ulimit", (&units.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard}).String())
	}
	b.text("cgroup-parent", r.CgroupParent)
	if b.h.ShmSize != defaultShm {
		b.count("shm-size", b.h.ShmSize)
	}
}

func (b *builder) devices() {
	for _, d := range b.h.Devices {
		b.add("device", d.PathOnHost+":"+d.PathInContainer+":"+d.CgroupPermissions)
	}
	b.each("device-cgroup-rule", b.h.DeviceCgroupRules)
	for _, r := range b.h.DeviceRequests {
		if r.Driver == "cdi" {
			b.each("device", r.DeviceIDs)
			continue
		}
		b.add("gpus", gpus(r))
	}
}

// gpus gives a device request as --gpus takes it.
func gpus(r container.DeviceRequest) string {
	var f []string
	if r.Driver != "" {
		f = append(f, "driver="+r.Driver)
	}
	switch {
	case len(r.DeviceIDs) > 0:
		f = append(f, "device="+strings.Join(r.DeviceIDs, ","))
	case r.Count == -1:
		f = append(f, "count=all")
	default:
		f = append(f, "count="+strconv.Itoa(r.Count))
	}
	for _, all := range r.Capabilities {
		named := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == "gpu" })
		if len(named) > 0 {
			f = append(f, "capabilities="+strings.Join(named, ","))
		}
	}
	if len(r.Options) > 0 {
		var o []string
		for _, k := range slices.Sorted(maps.Keys(r.Options)) {
			o = append(o, k+"="+r.Options[k])
		}
		f = append(f, "options="+strings.Join(o, ","))
	}
	return csv(f)
}

func (b *builder) security() {
	b.yes("privileged", b.h.Privileged)
	b.each("cap-add", b.h.CapAdd)
	b.each("cap-drop", b.h.CapDrop)
	for _, o := range b.h.SecurityOpt {
		if profile, ok := strings.CutPrefix(o, "seccomp="); ok && strings.HasPrefix(strings.TrimSpace(profile), "{") {
			b.add("security-opt", "seccomp="+SeccompFile)
			b.note("write the seccomp profile that inspect shows to " + SeccompFile)
			continue
		}
		b.add("security-opt", o)
	}
	if !b.h.Privileged && b.h.MaskedPaths != nil && len(b.h.MaskedPaths) == 0 && b.h.ReadonlyPaths != nil && len(b.h.ReadonlyPaths) == 0 {
		b.add("security-opt", "systempaths=unconfined")
	}
	b.pairs("sysctl", b.h.Sysctls, nil)
}

// SeccompFile is the name that a line gives the file of a seccomp profile: inspect has its text, and the command line wants a file.
const SeccompFile = "seccomp.json"

func (b *builder) namespaces() {
	b.text("pid", string(b.h.PidMode))
	if m := string(b.h.IpcMode); m != "private" {
		b.text("ipc", m)
	}
	b.text("uts", string(b.h.UTSMode))
	switch m := string(b.h.UsernsMode); m {
	case "", "host":
		b.text("userns", m)
	default: // the stock command line lets only "host" pass
		b.add("security-opt", "userns="+m)
	}
	if m := string(b.h.CgroupnsMode); m != b.s.Defaults.CgroupNS {
		b.text("cgroupns", m)
	}
}

package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/capability"
	"berth/runtime/oci/config"
	"berth/runtime/spec"
)

// configuration is a config.json together with its text.
type configuration struct {
	*config.Config
	text []byte
}

// loadConfig reads a config.json.
func loadConfig(path string) (*configuration, error) {
	text, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "JSON specification file %s not found", path)
	}
	if err != nil {
		return nil, err
	}
	parsed, err := config.Parse(text)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "%s", path)
	}
	if parsed.Spec.Linux == nil {
		parsed.Spec.Linux = &specs.Linux{}
	}
	return &configuration{Config: parsed, text: text}, nil
}

// checkSpec refuses what the specification forbids and what this runtime does not do, before anything
// is made. Each complaint names the member.
func checkSpec(s *specs.Spec, bundle string) error {
	knownAccess(s.Linux.Resources)
	if atLeast(s.Version, 1, 3, 0) {
		somePids(s.Linux.Resources)
	}
	if err := spec.Validate(s); err != nil {
		return err
	}
	if err := checkRootfs(rootPath(s, bundle)); err != nil {
		return err
	}
	if s.Linux.IntelRdt != nil {
		return fault.New(fault.NotImplemented, "linux.intelRdt: this runtime does not manage Intel RDT; remove it")
	}
	for i := range s.Mounts {
		if err := checkMount(&s.Mounts[i]); err != nil {
			return fault.In(err, "mounts[%d]", i)
		}
	}
	stripRoot(rootPath(s, bundle), s.Mounts)
	return checkTargets(rootPath(s, bundle), s.Mounts)
}

// knownAccess drops letters that mean nothing from the access of device rules, as runc does. Where none is
// left the rule stays, to be refused.
func knownAccess(r *specs.LinuxResources) {
	if r == nil {
		return
	}
	for i := range r.Devices {
		known := strings.Map(func(c rune) rune {
			if strings.ContainsRune("rwm", c) {
				return c
			}
			return -1
		}, r.Devices[i].Access)
		if known != "" {
			r.Devices[i].Access = known
		}
	}
}

// stripRoot takes the root's own path off targets that begin with it: configurations that were written for
// runc name targets as the host sees them.
func stripRoot(root string, mounts []specs.Mount) {
	for i := range mounts {
		if rest, ok := strings.CutPrefix(filepath.Clean(mounts[i].Destination), root+"/"); ok {
			mounts[i].Destination = "/" + rest
		}
	}
}

// versionNumber gives the n-th number of a semantic version: 0 is major.
func versionNumber(v string, n int) (int, bool) {
	if i := strings.IndexAny(v, "-+"); i >= 0 {
		v = v[:i]
	}
	parts := strings.Split(v, ".")
	if len(parts) != 3 {
		return 0, false
	}
	num, err := strconv.ParseUint(parts[n], 10, 31)
	return int(num), err == nil
}

// atLeast reports whether a configuration was written for that version of the specification or a later one.
func atLeast(v string, major, minor, patch int) bool {
	for n, want := range [...]int{major, minor, patch} {
		got, ok := versionNumber(v, n)
		if !ok || got != want {
			return ok && got > want
		}
	}
	return true
}

// warnOfCapabilities tells of names that this kernel does not know, and of those that cannot become ambient:
// they are not given, and that is no
// error (the specification says so since version 1.1).
func (t *tool) warnOfCapabilities(p *specs.Process) {
	c := p.Capabilities
	if c == nil {
		return
	}
	var all []string
	for _, set := range [...][]string{c.Bounding, c.Effective, c.Permitted, c.Inheritable, c.Ambient} {
		_, unknown := capability.Mask(set)
		for _, name := range unknown {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	if len(all) > 0 {
		slices.Sort(all)
		t.log.Warn(fmt.Sprintf("ignoring unknown or unavailable capabilities: %v", all))
	}
	for _, name := range c.Ambient { // the kernel raises only what could be inherited and is permitted
		if known, _ := capability.Mask([]string{name}); known != 0 && !(slices.Contains(c.Inheritable, name) && slices.Contains(c.Permitted, name)) {
			t.log.Warn(fmt.Sprintf("can't raise ambient capability %s: %v", name, unix.EPERM))
		}
	}
}

// rootPath is the container's root directory, absolute.
func rootPath(s *specs.Spec, bundle string) string {
	if filepath.IsAbs(s.Root.Path) {
		return filepath.Clean(s.Root.Path)
	}
	return filepath.Join(bundle, s.Root.Path)
}

// checkRootfs refuses a root that is no directory or is a link: what a link points to could be
// exchanged between this look and the mount.
func checkRootfs(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fault.New(fault.NotFound, "invalid rootfs: stat %s: %v", path, err)
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return fault.New(fault.Invalid, "invalid rootfs: not an absolute path, or a symlink")
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fault.New(fault.Invalid, "invalid rootfs: %s is not a directory", path)
	}
	return nil
}

// namespaceOf gives the configuration's entry for a kind of namespace, or nil.
func namespaceOf(s *specs.Spec, kind specs.LinuxNamespaceType) *specs.LinuxNamespace {
	for i := range s.Linux.Namespaces {
		if s.Linux.Namespaces[i].Type == kind {
			return &s.Linux.Namespaces[i]
		}
	}
	return nil
}

// ownNamespace reports whether the container gets a namespace of its own, rather than another's or ours.
func ownNamespace(s *specs.Spec, kind specs.LinuxNamespaceType) bool {
	n := namespaceOf(s, kind)
	return n != nil && n.Path == ""
}

// What may be mounted over in /proc: files that describe the machine, which lxcfs and its like
// provide for the container. Anything else there is the kernel's word on the container itself, and
// hiding or faking it has been the way out of many (runc keeps the same list).
var procFiles = [...]string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg",
	"/proc/slabinfo", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
}

func checkMount(m *specs.Mount) error {
	dest := filepath.Clean("/" + m.Destination)
	if dest == "/proc" {
		return checkProcMount(m)
	}
	if !strings.HasPrefix(dest, "/proc/") || slices.Contains(procFiles[:], dest) {
		return nil
	}
	return fault.New(fault.Invalid, "%q cannot be mounted because it is inside /proc", m.Destination)
}

// checkProcMount lets only the real thing become /proc: a new one, or (for host pid namespaces) a bind
// of another one.
func checkProcMount(m *specs.Mount) error {
	if m.Type == "proc" {
		return nil
	}
	var st unix.Statfs_t
	if unix.Statfs(m.Source, &st) == nil && st.Type == unix.PROC_SUPER_MAGIC {
		return nil
	}
	return fault.New(fault.Invalid, "%q cannot be mounted because it is not of type proc", m.Destination)
}

// stateJSON is the container's state as hooks and seccomp agents are told.
func stateJSON(rec *record, s status, pid int) []byte {
	b := append(make([]byte, 0, 512), `{"ociVersion":`...)
	b = appendJSON(b, specs.Version)
	b = append(b, `,"id":`...)
	b = appendJSON(b, rec.ID)
	b = append(b, `,"status":`...)
	b = appendJSON(b, string(s))
	if pid > 0 {
		b = fmt.Appendf(b, `,"pid":%d`, pid)
	}
	b = append(b, `,"bundle":`...)
	b = appendJSON(b, rec.Bundle)
	if len(rec.Annotations) > 0 {
		b = append(b, `,"annotations":`...)
		b = appendTextMap(b, rec.Annotations)
	}
	return append(b, '}')
}

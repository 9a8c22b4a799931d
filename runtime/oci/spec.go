package oci

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/cgroup"
	"berth/runtime/spec"
)

// spec writes a config.json to start from: what `runc spec` writes, in what it confines and in what it leaves
// open, so that scripts which change some of it get the container that they expect.
func (t *tool) spec(f *flagSet) (int, error) {
	path := filepath.Join(f.text("bundle"), configFile)
	switch _, err := os.Lstat(path); {
	case err == nil:
		return 1, fault.New(fault.Conflict, "File %s exists. Remove it first", configFile)
	case !errors.Is(err, fs.ErrNotExist):
		return 1, err
	}
	s := startingPoint()
	if f.bool("rootless") {
		makeRootless(s, unix.Geteuid(), unix.Getegid())
	}
	text, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return 1, err
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return 1, err
	}
	_, err = out.Write(append(text, '\n'))
	return 0, errors.Join(err, out.Close())
}

// startingPoint is Docker's container with fewer capabilities, a root that is read-only, and neither seccomp
// profile nor sysctls.
func startingPoint() *specs.Spec {
	caps := []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
	s := spec.Default(spec.DefaultOptions{Terminal: true, Hostname: "berth", HostCgroupNamespace: onV1(), Capabilities: caps, Unconfined: true})
	s.Root.Readonly = true
	s.Process.NoNewPrivileges = true
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024}}
	s.Process.OOMScoreAdj = nil
	s.Linux.Sysctl = nil
	return s
}

// onV1 reports whether the machine's limits are v1's: there containers get no cgroup namespace.
func onV1() bool {
	l, err := cgroup.Detect()
	return err == nil && l.Mode != cgroup.V2
}

// makeRootless changes a configuration to what a user without privileges may do: a user namespace in
// which he is root and nobody else exists, the host's network, no limits.
func makeRootless(s *specs.Spec, uid, gid int) {
	l := s.Linux
	l.Namespaces = slices.DeleteFunc(l.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.NetworkNamespace || n.Type == specs.UserNamespace
	})
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	l.UIDMappings = []specs.LinuxIDMapping{{HostID: uint32(uid), Size: 1}}
	l.GIDMappings = []specs.LinuxIDMapping{{HostID: uint32(gid), Size: 1}}
	l.Resources = nil
	var mounts []specs.Mount
	for _, m := range s.Mounts {
		switch m.Destination {
		case "/sys":
			// sysfs shows the network namespace, and mounting it takes that namespace's owner.
			m = specs.Mount{Destination: "/sys", Type: "none", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro", "rro"}}
		case "/sys/fs/cgroup":
			continue // comes with /sys
		}
		m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "gid=") || strings.HasPrefix(o, "uid=") })
		mounts = append(mounts, m)
	}
	s.Mounts = mounts
}

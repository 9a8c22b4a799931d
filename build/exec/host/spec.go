package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/kernel/probe"
)

// programs are where a host has its programs and libraries; of /etc only what names and certificates are looked up in, and what libraries
// are found by. What a host has not is left out.
var programs = []string{
	"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store",
	"/etc/alternatives", "/etc/ca-certificates", "/etc/crypto-policies", "/etc/gai.conf", "/etc/gnutls", "/etc/group", "/etc/host.conf", "/etc/hosts",
	"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/pki/ca-trust", "/etc/pki/tls/certs",
	"/etc/pki/tls/cert.pem", "/etc/protocols", "/etc/resolv.conf", "/etc/services", "/etc/ssl/cert.pem", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/static",
}

// Shows reports whether a program is where all boxes look, so that it needs no Programs.
func Shows(program string) bool {
	real, err := filepath.EvalSymlinks(program)
	below := func(p string) bool {
		return slices.ContainsFunc(programs, func(dir string) bool { return strings.HasPrefix(p, dir+"/") })
	}
	return err == nil && below(real) && below(program)
}

// tmpSize bounds what may be written into /tmp, which is memory.
const tmpSize = "size=64m"

// oomScore has the kernel end the program before the rest of the machine.
const oomScore = 500

// describe makes the specification of a command's box, without its root.
func (r *Runner) describe(c *Command) (*specs.Spec, error) {
	adj := oomScore
	s := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Readonly: true},
		Process: &specs.Process{
			Args: c.Args, Env: c.Env, Cwd: c.Dir, NoNewPrivileges: true, OOMScoreAdj: &adj, Capabilities: &specs.LinuxCapabilities{},
			Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 4096}},
		},
		Linux: &specs.Linux{},
	}
	umask := uint32(0o022) // whatever the engine's is: what is checked out must be the same everywhere
	s.Process.User = specs.User{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Umask: &umask}
	kinds := []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace}
	if !c.Network {
		kinds = append(kinds, specs.NetworkNamespace)
	}
	for _, k := range kinds {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: k})
	}
	err := r.mounts(s, c)
	return s, err
}

// mounts lists what the box shows, what lies above before what lies below.
func (r *Runner) mounts(s *specs.Spec, c *Command) error {
	readOnly := "ro"
	if r.cfg.Facts.Has(probe.MountSetattr) {
		readOnly = "rro" // what is mounted below, too
	}
	seen := map[string]bool{}
	bind := func(dest string, options ...string) error {
		if seen[dest] {
			return nil
		}
		seen[dest] = true
		if !filepath.IsAbs(dest) || filepath.Clean(dest) != dest || dest == "/" {
			return fault.New(fault.Internal, "%q is no place for a box", dest)
		}
		source, err := filepath.EvalSymlinks(dest)
		if err != nil {
			return err
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: dest, Type: "bind", Source: source, Options: append([]string{"rbind", "rprivate", "nosuid"}, options...)})
		return nil
	}
	// A secret file of the host's must not come along because something else that is shown leads there: links are followed for the places
	// named here alone, all of which are the host's administrator's.
	for _, p := range slices.Concat(programs, c.Programs) {
		if err := bind(p, readOnly, "nodev"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// The launcher makes the devices that every container has.
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "strictatime", "mode=755", "size=64k"}})
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "mode=1777", tmpSize}})
	for _, p := range c.Readable {
		if err := bind(p, readOnly, "nodev", "noexec"); err != nil {
			return err
		}
	}
	for _, p := range c.Writable {
		if err := bind(p, "nodev", "noexec"); err != nil {
			return err
		}
	}
	slices.SortStableFunc(s.Mounts, func(a, b specs.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	return nil
}

// root makes a directory for the root with a place for each mount; down removes it.
func (r *Runner) root(s *specs.Spec) (dir string, down func(), err error) {
	if err := os.MkdirAll(r.cfg.Root, 0o700); err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp(r.cfg.Root, "box-"); err != nil {
		return "", nil, err
	}
	made := []string{dir}
	// One by one and without what is in them: should one of the mounts ever be seen from here, nothing of it goes.
	down = func() {
		for _, p := range slices.Backward(made) {
			_ = os.Remove(p)
		}
	}
	for _, m := range s.Mounts {
		if err := place(dir, m, &made); err != nil {
			down()
			return "", nil, err
		}
	}
	return dir, down, nil
}

// place makes the place of a mount below root, unless another mount has it.
func place(root string, m specs.Mount, made *[]string) error {
	at := root
	parts := strings.Split(strings.TrimPrefix(m.Destination, "/"), "/")
	for i, name := range parts {
		at = filepath.Join(at, name)
		if _, err := os.Lstat(at); err == nil {
			continue
		}
		if i == len(parts)-1 && m.Type == "bind" {
			if fi, err := os.Stat(m.Source); err != nil {
				return err
			} else if !fi.IsDir() {
				if err := os.WriteFile(at, nil, 0o600); err != nil {
					return err
				}
				*made = append(*made, at)
				return nil
			}
		}
		if err := os.Mkdir(at, 0o755); err != nil {
			return err
		}
		*made = append(*made, at)
	}
	return nil
}

// Sweep removes the roots of boxes that an engine which was killed has left. Nothing is mounted there: mounts are the boxes' own.
func (r *Runner) Sweep() error {
	boxes, err := filepath.Glob(filepath.Join(r.cfg.Root, "box-*"))
	if err != nil {
		return err
	}
	for _, box := range boxes {
		var all []string
		err := filepath.WalkDir(box, func(p string, _ fs.DirEntry, err error) error {
			all = append(all, p)
			return err
		})
		if err != nil {
			return err
		}
		for _, p := range slices.Backward(all) {
			if err := os.Remove(p); err != nil {
				return err
			}
		}
	}
	return nil
}

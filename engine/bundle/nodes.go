package bundle

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Host looks at the machine's own device nodes.
type Host struct{}

// errNoDevice says that a path is there and is no device.
var errNoDevice = errors.New("not a device node")

// Expand gives the device at source, or all below it.
func (Host) Expand(source, target string) ([]specs.LinuxDevice, error) {
	source, err := filepath.EvalSymlinks(source)
	if err != nil {
		return nil, plain(err)
	}
	if st, err := os.Stat(source); err == nil && st.IsDir() {
		all, err := walk(source, target)
		if err == nil && len(all) == 0 {
			err = errNoDevice
		}
		return all, err
	}
	d, err := node(source)
	if err != nil {
		return nil, err
	}
	d.Path = target
	return []specs.LinuxDevice{d}, nil
}

// All gives every device below /dev, without what each container has of its own.
func (Host) All() ([]specs.LinuxDevice, error) { return walk("/dev", "/dev") }

// ownDirs are directories of /dev that are mounts, or hold another container's terminals.
var ownDirs = []string{"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"}

func walk(source, target string) (all []specs.LinuxDevice, err error) {
	err = filepath.WalkDir(source, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
				return nil // gone meanwhile, or not for us
			}
			return err
		}
		if e.IsDir() {
			if p != source && slices.Contains(ownDirs, e.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if e.Type()&fs.ModeDevice == 0 || e.Name() == "console" {
			return nil
		}
		d, err := node(p)
		if err != nil {
			return nil // gone meanwhile
		}
		d.Path = filepath.Join(target, strings.TrimPrefix(p, source))
		all = append(all, d)
		return nil
	})
	return all, err
}

// node reads one device node.
func node(p string) (specs.LinuxDevice, error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return specs.LinuxDevice{}, err
	}
	d := specs.LinuxDevice{Path: p, Major: int64(unix.Major(uint64(st.Rdev))), Minor: int64(unix.Minor(uint64(st.Rdev))), UID: &st.Uid, GID: &st.Gid}
	mode := os.FileMode(st.Mode & 0o7777)
	d.FileMode = &mode
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		d.Type = "c"
	case unix.S_IFBLK:
		d.Type = "b"
	case unix.S_IFIFO:
		d.Type, d.Major, d.Minor = "p", 0, 0
	default:
		return d, errNoDevice
	}
	return d, nil
}

// plain takes the path out of an error that is shown beside it.
func plain(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

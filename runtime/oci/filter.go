package oci

import (
	"bytes"
	"encoding/binary"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"berth/kernel/seccomp"
	"berth/runtime/oci/config"
)

// Most containers on a machine share a handful of seccomp profiles, and a profile is most of what a
// config.json holds. So filters are kept compiled below ROOT/.seccomp, in a file named by the hash of
// the profile's text:
//
//	"berth-oci seccomp 1 ‹inode mtime size of this binary›\n"   a new binary may compile differently
//	u32 length, the profile's text         compared whole: the hash only finds the file
//	u32 flags for seccomp(2)
//	u32 length, the filter's instructions
//
// A file that does not read so is ignored and replaced. Whoever can write into the directory decides what
// containers may do, so it is used only if that is nobody but us or root.

// filterDir is the cache's directory below the root.
const filterDir = ".seccomp"

// maxFilters is how many files the cache may have before it is emptied.
const maxFilters = 256

// filter gives the compiled seccomp profile of a configuration, or nil if it has none.
func (t *tool) filter(cfg *configuration) (*seccomp.Filter, error) {
	if cfg.RawSeccomp == nil {
		return nil, nil
	}
	name := hashText(cfg.RawSeccomp)
	head := filterHead(cfg.RawSeccomp)
	if head != nil {
		if f := t.cachedFilter(name, head); f != nil {
			return f, nil
		}
	}
	f, err := compileFilter(cfg.Config)
	if err != nil || f == nil {
		return nil, err
	}
	// With a listener the filter has more to it than instructions; and such profiles are rare.
	if head != nil && !f.Notify {
		t.keepFilter(name, append(head, encodeFilter(f)...))
	}
	return f, nil
}

func compileFilter(cfg *config.Config) (*seccomp.Filter, error) {
	p, err := cfg.Seccomp()
	if err != nil || p == nil {
		return nil, err
	}
	return seccomp.Compile(p)
}

// filterHead is how a cached filter for that profile must begin; nil when we cannot tell who we are.
func filterHead(profile []byte) []byte {
	var st unix.Stat_t
	if unix.Stat("/proc/self/exe", &st) != nil {
		return nil
	}
	b := make([]byte, 0, len(profile)+4096)
	b = append(b, "berth-oci seccomp 1 "...)
	for _, n := range [...]int64{int64(st.Ino), st.Mtim.Nano(), st.Size} {
		b = append(strconv.AppendInt(b, n, 10), ' ')
	}
	b = append(b, '\n')
	b = binary.LittleEndian.AppendUint32(b, uint32(len(profile)))
	return append(b, profile...)
}

func encodeFilter(f *seccomp.Filter) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(f.Flags))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Code)))
	return append(b, f.Code...)
}

// decodeFilter reads a cached filter, or gives nil when the file is of another profile or damaged.
func decodeFilter(data, head []byte) *seccomp.Filter {
	if len(data) < len(head)+8 || !bytes.Equal(data[:len(head)], head) {
		return nil
	}
	data = data[len(head):]
	f := &seccomp.Filter{Flags: uint(binary.LittleEndian.Uint32(data)), Code: data[8:]}
	if int(binary.LittleEndian.Uint32(data[4:])) != len(f.Code) || len(f.Code) == 0 || len(f.Code)%8 != 0 {
		return nil
	}
	return f
}

// cachedFilter finds a filter in the cache, or gives nil.
func (t *tool) cachedFilter(name string, head []byte) *seccomp.Filter {
	dir, err := openFilters(t.root + "/" + filterDir)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	data, err := readFile(inDir(dir, name))
	if err != nil {
		return nil
	}
	return decodeFilter(data, head)
}

// openFilters opens the cache's directory, which must be ours or root's and writable for nobody else: with
// --root below a directory like /tmp it may have been made by anybody.
func openFilters(path string) (int, error) {
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	err = unix.Fstat(dir, &st)
	if err == nil && (st.Uid != 0 && int(st.Uid) != unix.Geteuid() || st.Mode&0o022 != 0) {
		err = unix.EPERM
	}
	if err != nil {
		unix.Close(dir)
		return -1, err
	}
	return dir, nil
}

// inDir is the path of a file in an opened directory.
func inDir(dir int, name string) string { return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name }

// keepFilter writes a file of the cache. That it could not be written is nobody's concern.
func (t *tool) keepFilter(name string, data []byte) {
	path := t.root + "/" + filterDir
	if os.MkdirAll(t.root, 0o711) != nil {
		return
	}
	if err := unix.Mkdir(path, 0o700); err != nil && err != unix.EEXIST {
		return
	}
	dir, err := openFilters(path)
	if err != nil {
		return
	}
	defer unix.Close(dir)
	if old, err := os.ReadDir(inDir(dir, "")); err == nil && len(old) >= maxFilters {
		for _, e := range old {
			_ = unix.Unlinkat(dir, e.Name(), 0)
		}
	}
	temp := name + "." + strconv.Itoa(unix.Getpid())
	if writeFile(inDir(dir, temp), data, 0o600) != nil || unix.Renameat(dir, temp, dir, name) != nil {
		_ = unix.Unlinkat(dir, temp, 0)
	}
}

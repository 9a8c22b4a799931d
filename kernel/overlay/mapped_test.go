package overlay

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/idmap"
	"berth/kernel/probe"
)

// Two mappings show one copy of the layers, each with its own owners, and what is made through either is stored with
// the ids that it has inside.
func TestMapped(t *testing.T) {
	have := probe.Host()
	if os.Getuid() != 0 || CanMap(have) != "" {
		t.Skip("needs CAP_SYS_ADMIN and id-mapped overlay layers: " + CanMap(have))
	}
	for name, have := range map[string]probe.Features{
		"descriptors": have, "in place": have.Without(probe.OverlayFD), "classic": have.Without(probe.OverlayAppend),
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			lower := []string{filepath.Join(base, "top"), filepath.Join(base, "bottom")}
			for _, d := range lower {
				os.MkdirAll(d, 0o755)
			}
			os.WriteFile(filepath.Join(lower[1], "seven"), []byte("7"), 0o600)
			os.Chown(filepath.Join(lower[1], "seven"), 7, 8)
			os.MkdirAll(filepath.Join(lower[1], "dir/deep"), 0o755)
			for _, host := range []uint32{100000, 300000} {
				m := idmap.Map{{Inside: 0, Outside: host, Size: 65536}}
				ns, err := idmap.Namespace(idmap.Pair{Users: m, Groups: m})
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(ns)
				box := filepath.Join(base, fmt.Sprint(host))
				s := Stack{Lower: lower, Upper: filepath.Join(box, "upper"), Work: filepath.Join(box, "work"), Map: &Mapping{ns, host, host}}
				for _, d := range []string{s.Upper, s.Work, filepath.Join(box, "scratch")} {
					os.MkdirAll(d, 0o755)
				}
				fd, err := s.Mount(have, filepath.Join(box, "scratch"))
				if err != nil {
					t.Fatal(err)
				}
				root := fmt.Sprintf("/proc/self/fd/%d", fd)
				owned(t, root+"/seven", host+7, host+8)
				owned(t, root+"/.", host, host)
				if err := os.WriteFile(root+"/seven", []byte("changed"), 0); err != nil { // copied up
					t.Error(err)
				}
				if err := os.RemoveAll(root + "/dir"); err != nil {
					t.Error(err)
				}
				if err := os.Mkdir(root+"/dir", 0o700); err == nil {
					t.Error("the host's root, who has no id there, could make a directory")
				}
				err = idmap.As(host+33, host+34, func() error {
					return syscall.Mkdir(root+"/dir", 0o700)
				})
				if err != nil {
					t.Error(err)
				}
				if left, err := os.ReadDir(root + "/dir"); err != nil || len(left) != 0 {
					t.Errorf("a directory made anew shows %v, %v", left, err)
				}
				unix.Close(fd)
				owned(t, s.Upper+"/seven", 7, 8)
				owned(t, s.Upper+"/dir", 33, 34)
				owned(t, s.Upper, 0, 0)
				var v [1]byte
				if n, err := unix.Lgetxattr(s.Upper+"/dir", "trusted.overlay.opaque", v[:]); err != nil || n != 1 || v[0] != 'y' {
					t.Errorf("no opaque mark: %v", err)
				}
			}
			owned(t, lower[1]+"/seven", 7, 8)
		})
	}
}

func TestMappedNeedsKernel(t *testing.T) {
	_, err := Stack{Lower: []string{"/"}, Map: &Mapping{}}.Mount(probe.Host().Without(probe.OverlayIDMap), "")
	if !fault.Is(err, fault.NotImplemented) {
		t.Errorf("%v", err)
	}
}

func owned(t *testing.T, path string, uid, gid uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Error(err)
	} else if st.Uid != uid || st.Gid != gid {
		t.Errorf("%s belongs to %d:%d, want %d:%d", path, st.Uid, st.Gid, uid, gid)
	}
}

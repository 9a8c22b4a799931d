package launch

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/kernel/mount"
)

// Mounts that the caller has made serve as root and as binds, also where they are attached nowhere, and show afterwards what the
// container has done to them.
func TestGivenMounts(t *testing.T) {
	root := busyboxRoot(t)
	must(t, os.WriteFile(filepath.Join(root, "etc/secret"), []byte("hidden"), 0o600))
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		lower, upper, work := root, t.TempDir(), t.TempDir()
		fs, err := mount.OpenFS("overlay")
		must(t, err)
		for _, kv := range [][2]string{{"lowerdir", lower}, {"upperdir", upper}, {"workdir", work}} {
			must(t, fs.Set(kv[0], kv[1]))
		}
		o.RootFD, err = fs.Mount(0)
		must(t, err)
		defer unix.Close(o.RootFD)
		tmp, err := mount.Make(mount.Mount{Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m"}})
		must(t, err)
		defer unix.Close(tmp)
		s := plainSpec("", "sh", "-c", "echo made >/made; echo in tmp >/given/file; cat /given/file")
		o.Trees = map[int]int{len(s.Mounts): tmp}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/given", Type: "bind", Source: fmt.Sprintf("/proc/self/fd/%d", tmp), Options: []string{"bind"}})
		p, err := Compile(s, o)
		must(t, err)
		res, err := runProgram(t, l, p)
		must(t, err)
		if res.out != "in tmp\n" || res.status.ExitStatus() != 0 {
			t.Fatalf("%q, %d", res.out, res.status.ExitStatus())
		}
		for fd, name := range map[int]string{o.RootFD: "made", tmp: "file"} {
			at, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Errorf("%s is not to be seen afterwards: %v", name, err)
			}
			unix.Close(at)
		}
		if _, err := os.Stat(filepath.Join(upper, "made")); err != nil {
			t.Error(err)
		}
	})
}

package checkpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A script that does what the tests need of criu: note its arguments, name a process, write a log.
const fakeCriu = `#!/bin/sh
echo "$*" > "$0.args"
command=$1
while [ $# -gt 0 ]; do
	case $1 in
	--pidfile) echo 4711 > "$2" ;;
	--work-dir) work=$2 ;;
	esac
	shift
done
[ -e "$0.fail" ] || exit 0
echo "(00.1) Warn  (x.c:1): nothing" > "$work/$command.log"
echo "(00.2) Error (criu/vdso.c:381): vdso: Unexpected area bounds" >> "$work/$command.log"
exit 1
`

func fake(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "criu")
	if err := os.WriteFile(path, []byte(fakeCriu), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func arguments(t *testing.T, criu string) string {
	t.Helper()
	text, err := os.ReadFile(criu + ".args")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func TestDumpAndRestore(t *testing.T) {
	criu, images := fake(t), t.TempDir()
	d := Dump{
		Options: Options{Binary: criu, Images: images, Root: "/r", TCP: true, EmptyNetwork: true, ExternalFiles: []string{"/etc/hosts"}},
		PID:     os.Getpid(), Freezer: "/sys/fs/cgroup/freezer/x", LeaveRunning: true, StatusFD: -1, Parent: "../old",
	}
	d.PageServer = "host:9"
	if err := d.Run(); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("dump --images-dir %s --work-dir %s --log-file dump.log -v4 --root /r --manage-cgroups=soft --tcp-established --empty-ns net "+
		"--tree %d --leave-running --track-mem --freeze-cgroup /sys/fs/cgroup/freezer/x --prev-images-dir ../old --page-server --address host --port 9 --external mnt[/etc/hosts]:/etc/hosts",
		images, images, os.Getpid())
	if got := arguments(t, criu); got != want {
		t.Errorf("criu was called with\n%s\nwant\n%s", got, want)
	}
	was, err := Descriptors(images)
	if err != nil || len(was) != 3 {
		t.Fatalf("descriptors: %q, %v", was, err)
	}
	r := Restore{
		Options: Options{Binary: criu, Images: images, Work: t.TempDir(), Root: "/r", CgroupsMode: "full", ExternalFiles: []string{"/etc/hosts"}},
		PIDFile: filepath.Join(t.TempDir(), "pid"), HostPaths: map[string]string{"/etc/hosts": "/h"},
		CgroupRoots: map[string]string{"": "/c", "cpu": "/c"}, Descriptors: []string{"/dev/null", "pipe:[12]", "pipe:[13]"}, NetNSFD: 3,
	}
	pid, err := r.Run([3]*os.File{})
	if err != nil || pid != 4711 {
		t.Fatalf("restore: %d, %v", pid, err)
	}
	want = fmt.Sprintf("restore --images-dir %s --work-dir %s --log-file restore.log -v4 --root /r --manage-cgroups=full --restore-detached --restore-sibling "+
		"--pidfile %s --external mnt[/etc/hosts]:/h --cgroup-root /c --cgroup-root cpu:/c --inherit-fd fd[1]:pipe:[12] --inherit-fd fd[2]:pipe:[13] --inherit-fd fd[3]:extRootNetNS",
		images, r.Work, r.PIDFile)
	if got := arguments(t, criu); got != want {
		t.Errorf("criu was called with\n%s\nwant\n%s", got, want)
	}
}

func TestFailuresSayWhy(t *testing.T) {
	criu, images := fake(t), t.TempDir()
	if err := os.WriteFile(criu+".fail", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := Dump{Options: Options{Binary: criu, Images: images}, PID: os.Getpid(), StatusFD: -1}
	if err := d.Run(); err == nil || !strings.Contains(err.Error(), "vdso: Unexpected area bounds") || !strings.Contains(err.Error(), images+"/dump.log") {
		t.Errorf("got %v", err)
	}
	d.Binary = "/no/criu"
	if err := d.Run(); err == nil || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("got %v", err)
	}
	d.PageServer = "nohost"
	if err := d.Run(); err == nil || !strings.Contains(err.Error(), "ADDRESS:PORT") {
		t.Errorf("got %v", err)
	}
	if _, err := Descriptors(t.TempDir()); err == nil || !strings.Contains(err.Error(), "holds no checkpoint") {
		t.Errorf("got %v", err)
	}
}

package rootless

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/test/live"
	"berth/test/world"
)

// sailor is a user with a machine to sail on.
type sailor struct {
	t      *testing.T
	world  *world.World
	dir    string // his home, his XDG_RUNTIME_DIR, the programs
	cgroup string
	uid    int
	path   string // PATH

	mu  sync.Mutex
	log bytes.Buffer
}

// programs are built once; TestMain removes them.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "berth-rootless-bin-")
	if err != nil {
		return "", err
	}
	built = dir
	return dir, errors.Join(os.Chmod(dir, 0o755), live.Build(dir, "berth", "berthd", "berth-keeper", "berth-init"))
})

var built string

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// firstSub is the first of his subordinate ids, far from where distributions put them.
const firstSub = 1 << 29

// aboard makes a user, or skips the test with what this machine lacks.
func aboard(t *testing.T, needs ...string) *sailor {
	t.Helper()
	if why := live.Lacks(); why != "" {
		t.Skip(why)
	}
	for _, program := range append([]string{"newuidmap", "newgidmap", "nsenter", "unshare", "setpriv", "ip"}, needs...) {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s: %v", program, err)
		}
	}
	s := &sailor{t: t, uid: 20000 + os.Getpid()%10000, path: os.Getenv("PATH")}
	s.makeCgroup()
	var err error
	if s.dir, err = os.MkdirTemp("", "berth-rootless-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(s.dir) })
	if s.world, err = world.New(); err != nil {
		t.Skipf("needs network namespaces: %v", err)
	}
	t.Cleanup(func() { s.world.Close() })
	t.Cleanup(s.sink) // first
	if err := s.outfit(); err != nil {
		t.Skipf("needs device nodes: %v", err)
	}
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(bin, filepath.Join(s.dir, "bin")); err != nil {
		t.Fatal(err)
	}
	return s
}

// makeCgroup makes a cgroup of his.
func (s *sailor) makeCgroup() {
	s.t.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(root, &st) != nil || int64(st.Type) != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		s.cgroup = filepath.Join(root, fmt.Sprintf("berth-test-%d-%s", os.Getpid(), strings.ToLower(s.t.Name())))
		if err := os.Mkdir(s.cgroup, 0o755); err != nil {
			s.t.Skipf("needs a cgroup v2: %v", err)
		}
		s.t.Cleanup(func() { removeCgroup(s.cgroup) })
		for _, f := range []string{"", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"} {
			if err := os.Chown(filepath.Join(s.cgroup, f), s.uid, s.uid); err != nil {
				s.t.Fatal(err)
			}
		}
		return
	}
	s.t.Skip("needs cgroup v2: it is not mounted")
}

// outfit puts files where setup binds them from.
func (s *sailor) outfit() error {
	for _, d := range []string{"home", "run", "etc"} {
		if err := os.Mkdir(filepath.Join(s.dir, d), 0o755); err != nil {
			return err
		}
	}
	for _, d := range []string{"home", "run"} {
		if err := os.Chown(filepath.Join(s.dir, d), s.uid, s.uid); err != nil {
			return err
		}
	}
	lines := map[string]string{
		"passwd": fmt.Sprintf("sailor:x:%d:%d::%s/home:/bin/sh\n", s.uid, s.uid, s.dir), "group": fmt.Sprintf("sailor:x:%d:\n", s.uid),
		"subuid": fmt.Sprintf("sailor:%d:65536\n", firstSub), "subgid": fmt.Sprintf("sailor:%d:65536\n", firstSub),
	}
	for name, line := range lines {
		text, _ := os.ReadFile("/etc/" + name)
		if !strings.HasPrefix(name, "sub") {
			line = string(text) + line
		}
		if err := os.WriteFile(filepath.Join(s.dir, "etc", name), []byte(line), 0o644); err != nil {
			return err
		}
	}
	tun := filepath.Join(s.dir, "tun")
	if err := unix.Mknod(tun, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))); err != nil {
		return err
	}
	return errors.Join(os.Chmod(tun, 0o666), os.Chmod(s.dir, 0o755)) // whatever the umask says
}

// setup runs in a mount namespace of its own: a file that the machine does not have is one on a copy of /etc.
const setup = `set -e
mount --make-rprivate /
echo $$ >"$CGROUP/cgroup.procs" 2>/dev/null || echo $$ >"$CGROUP/engine/cgroup.procs"
if [ ! -e /etc/subuid ] || [ ! -e /etc/subgid ]; then
  mkdir "$DIR/etc.$$"; cp -a /etc/. "$DIR/etc.$$/"; touch "$DIR/etc.$$/subuid" "$DIR/etc.$$/subgid"; mount --bind "$DIR/etc.$$" /etc
fi
for f in passwd group subuid subgid; do mount --bind "$DIR/etc/$f" "/etc/$f"; done
if [ -e /dev/net/tun ]; then mount --bind "$DIR/tun" /dev/net/tun; fi
cd "$DIR/home"
exec setpriv --reuid="$ID" --regid="$ID" --clear-groups env -i HOME="$DIR/home" USER=sailor PATH="$DIR/bin:$WAY" XDG_RUNTIME_DIR="$DIR/run" "$@"`

// command is one that he types.
func (s *sailor) command(args ...string) *exec.Cmd {
	cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-c", setup, "sh"}, args...)...)
	cmd.Env = append(os.Environ(), "DIR="+s.dir, "CGROUP="+s.cgroup, fmt.Sprintf("ID=%d", s.uid), "WAY="+s.path)
	return cmd
}

// types runs one of his commands on the host and gives what it prints.
func (s *sailor) types(args ...string) (string, error) {
	cmd := s.command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := s.world.Start(cmd); err != nil {
		return "", err
	}
	stop := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	err := cmd.Wait()
	return out.String(), err
}

func (s *sailor) runDir() string { return filepath.Join(s.dir, "run/berth") }

// starts starts his engine and waits until it serves.
func (s *sailor) starts(args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := s.command(append([]string{"berthd", "--debug"}, args...)...)
	cmd.Stdout, cmd.Stderr = writer{s}, writer{s}
	cmd.WaitDelay = time.Second // the holder has its output, too
	if err := s.world.Start(cmd); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if _, err := s.try("version"); err == nil {
			return cmd
		}
		select {
		case err := <-ended:
			s.t.Fatalf("the engine ended: %v\n%s", err, s.said())
		default:
		}
	}
	s.t.Fatalf("the engine does not serve:\n%s", s.said())
	return nil
}

type writer struct{ s *sailor }

// Write keeps the engine's log.
func (w writer) Write(b []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.log.Write(b)
}

func (s *sailor) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// try runs berth against his engine.
func (s *sailor) try(args ...string) (string, error) { return s.feed(nil, args...) }

func (s *sailor) feed(stdin []byte, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.dir, "bin/berth"), args...)
	cmd.Env = append(os.Environ(), "BERTH_HOST=unix://"+s.runDir()+"/berth.sock", "DOCKER_CONFIG="+s.dir+"/docker", "DOCKER_HOST=", "DOCKER_CONTEXT=")
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// berth is try that must succeed.
func (s *sailor) berth(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("berth %s: %v\n%s\n%s", strings.Join(args, " "), err, out, tail(s.said()))
	}
	return out
}

// wants compares what berth prints.
func (s *sailor) wants(want string, args ...string) {
	s.t.Helper()
	if got := s.berth(args...); !strings.Contains(got, want) {
		s.t.Errorf("berth %s: %q, want %q", strings.Join(args, " "), got, want)
	}
}

// refuses wants an error with some words.
func (s *sailor) refuses(words string, args ...string) {
	s.t.Helper()
	if got, err := s.try(args...); err == nil || !strings.Contains(got, words) {
		s.t.Errorf("berth %s: %v, %q, want an error with %q", strings.Join(args, " "), err, got, words)
	}
}

// runs lists the processes in his cgroup by number and command line; zombies are none.
func (s *sailor) runs() map[string]string {
	all := map[string]string{}
	_ = filepath.WalkDir(s.cgroup, func(path string, _ os.DirEntry, err error) error {
		if err != nil || filepath.Base(path) != "cgroup.procs" {
			return nil
		}
		text, _ := os.ReadFile(path)
		for _, pid := range strings.Fields(string(text)) {
			if args, _ := os.ReadFile("/proc/" + pid + "/cmdline"); len(args) > 0 {
				all[pid] = strings.ReplaceAll(strings.TrimRight(string(args), "\x00"), "\x00", " ")
			}
		}
		return nil
	})
	return all
}

// eventually waits for something to become true.
func (s *sailor) eventually(what string, is func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if is() {
			return
		}
	}
	s.t.Fatalf("%s: not so after a minute; %v\n%s", what, s.runs(), tail(s.said()))
}

// sink ends everything of his.
func (s *sailor) sink() {
	for range 100 {
		killCgroup(s.cgroup)
		if len(s.runs()) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Errorf("these cannot be killed: %v", s.runs())
}

// killCgroup kills all processes in a cgroup and below: by cgroup.kill, one by one before Linux 5.14.
func killCgroup(dir string) {
	if os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) == nil {
		return
	}
	_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == "cgroup.procs" {
			text, _ := os.ReadFile(path)
			for _, pid := range strings.Fields(string(text)) {
				var n int
				if _, err := fmt.Sscan(pid, &n); err == nil {
					_ = unix.Kill(n, unix.SIGKILL)
				}
			}
		}
		return nil
	})
}

// removeCgroup removes a cgroup and those below.
func removeCgroup(dir string) {
	var dirs []string
	_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for i := range dirs {
		for range 50 {
			if err := os.Remove(dirs[len(dirs)-1-i]); err == nil || os.IsNotExist(err) {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func tail(s string) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

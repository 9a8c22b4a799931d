package rootless

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/kernel/netns"
	"berth/test/live"
	"berth/test/world"
)

// TestVoyage is the life of a user's engine, from the check of his machine to the end of everything.
func TestVoyage(t *testing.T) {
	t.Parallel()
	s := aboard(t, "pasta")
	out, err := s.types("berth", "system", "check", "--machine")
	if err != nil || !strings.Contains(out, "WITHOUT ROOT, HERE") || !strings.Contains(out, "65536 ids for sailor") {
		t.Fatalf("berth system check: %v\n%s", err, out)
	}
	s.starts()
	s.importBox()
	t.Run("containers", func(t *testing.T) { s.on(t).containers() })
	t.Run("builds", func(t *testing.T) { s.on(t).builds() })
	t.Run("refusals", func(t *testing.T) { s.on(t).refusals() })
	t.Run("network", func(t *testing.T) { s.on(t).network() })
	t.Run("restart", func(t *testing.T) { s.on(t).restarts() })
	t.Run("end", func(t *testing.T) { s.on(t).end() })
}

// builds makes an image, with steps as root and as another user, and runs it.
func (s *sailor) builds() {
	const dockerfile = `FROM box AS made
RUN id -u && echo built > /out && chown 1000:1000 /out && ping -c 1 -w 5 127.0.0.1
FROM box
COPY --from=made /out /out
USER 1000
RUN test "$(id -u)" = 1000 && cat /out
CMD ["cat", "/out"]
`
	for range 2 {
		if out, err := s.feed([]byte(dockerfile), "build", "--progress", "plain", "-t", "built", "-"); err != nil {
			s.t.Fatalf("build: %v\n%s", err, out)
		}
	}
	s.wants("built", "run", "--rm", "built")
	s.wants("1000 1000", "run", "--rm", "built", "stat", "-c", "%u %g", "/out")
}

// on lends the sailor to a subtest.
func (s *sailor) on(t *testing.T) *sailor {
	return &sailor{t: t, world: s.world, dir: s.dir, cgroup: s.cgroup, uid: s.uid, path: s.path}
}

func (s *sailor) importBox() {
	s.t.Helper()
	box, err := live.BoxTar()
	if err != nil {
		s.t.Fatal(err)
	}
	if out, err := s.feed(box, "import", "-", "box"); err != nil {
		s.t.Fatalf("import: %v\n%s", err, out)
	}
}

func (s *sailor) containers() {
	s.wants("uid=0(root) gid=0(root)", "run", "--rm", "box", "id")
	if m := strings.Fields(s.berth("run", "--rm", "box", "cat", "/proc/self/uid_map")); fmt.Sprint(m) != fmt.Sprintf("[0 %d 1 1 %d 65536]", s.uid, firstSub) {
		s.t.Errorf("uid_map: %v", m)
	}
	s.wants("uid=1000", "run", "--rm", "--user", "1000:1000", "box", "id")
	s.wants("/dev/pts/0", "run", "--rm", "-t", "box", "tty")
	s.wants("rootless", "info", "--format", "{{.SecurityOptions}}")

	s.berth("run", "-d", "--name", "life", "--init", "-v", "store:/store", "--health-cmd", "test -e /store/well", "--health-interval", "200ms", "--restart", "always", "box",
		"sh", "-c", "echo hello; echo 1 >>/store/lives; exec sleep 1000")
	s.eventually("its first words", func() bool { return s.berth("logs", "life") == "hello" })
	s.wants("uid=0", "exec", "life", "id")
	s.berth("exec", "life", "sh", "-c", "echo kept >/etc/kept; touch /store/well")
	s.eventually("healthy", func() bool {
		return s.berth("inspect", "-f", "{{.State.Health.Status}}", "life") == "healthy"
	})
	file := filepath.Join(s.dir, "home", "copied")
	s.berth("cp", "life:/etc/kept", file)
	if text, err := os.ReadFile(file); err != nil || string(text) != "kept\n" {
		s.t.Errorf("cp: %q, %v", text, err)
	}
	s.wants("/etc/kept", "diff", "life")
	s.berth("commit", "life", "kept")
	saved := filepath.Join(s.dir, "saved.tar")
	s.berth("save", "-o", saved, "kept")
	s.berth("rmi", "-f", "kept")
	s.berth("load", "-i", saved)
	s.wants("kept", "run", "--rm", "kept", "cat", "/etc/kept")
	s.berth("pause", "life")
	s.berth("unpause", "life")
	_, _ = s.try("exec", "life", "kill", "1") // its end, not ours: the policy applies. It may take kill along
	s.eventually("a second life", func() bool { return s.berth("run", "--rm", "-v", "store:/s", "box", "cat", "/s/lives") == "1\n1" })
	s.wants("sleep 1000", "top", "life")
	s.wants(s.dir, "run", "--rm", "--pid", "host", "box", "sh", "-c", "ps w | grep "+s.dir)
	s.berth("stop", "-t", "1", "life")
	s.berth("rm", "life")
	s.berth("volume", "rm", "store")
}

func (s *sailor) refusals() {
	s.refuses("ip_unprivileged_port_start=80", "run", "--rm", "-p", "80:80", "box", "true")
	s.refuses("/etc/subuid", "run", "--rm", "--user", "70000", "box", "true")
	s.refuses("/etc/subgid", "run", "--rm", "--group-add", "70000", "box", "true")
	s.refuses("--oom-score-adj -5", "run", "--rm", "--oom-score-adj", "-5", "box", "true")
	s.refuses("id-mapped", "run", "--rm", "--userns", "auto", "box", "true")

	has, _ := os.ReadFile(filepath.Join(s.cgroup, "cgroup.controllers"))
	for controller, limit := range map[string]struct{ args, file, want string }{
		"memory": {"--memory=64m", "memory.max", "67108864"}, "cpu": {"--cpus=0.5", "cpu.max", "50000 100000"}, "pids": {"--pids-limit=99", "pids.max", "99"},
	} {
		args := []string{"run", "--rm", limit.args, "box", "cat", "/sys/fs/cgroup/" + limit.file}
		if strings.Contains(" "+strings.TrimSpace(string(has))+" ", " "+controller+" ") {
			s.wants(limit.want, args...)
		} else {
			s.refuses(controller, args...)
		}
	}
}

// The client of the world: nobody else has this address.
const client = "203.0.113.9"

func (s *sailor) network() {
	s.berth("network", "create", "dock")
	s.berth("run", "-d", "--name", "web", "--stop-signal", "KILL", "--network", "dock", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "box", "sh", "-c",
		"mkdir /www; echo page: web >/www/index.html; exec httpd -f -v -p 80 -h /www")
	s.wants("page: web", "run", "--rm", "--network", "dock", "box", "fetch", "web")
	s.eventually("the port answers outside", func() bool { return s.page(s.world.Outside, client, net.JoinHostPort(world.Host4, "8080")) })
	s.wants(client, "logs", "web")
	s.eventually("the loopback's port answers", func() bool { return s.page(s.world.Host, "", "127.0.0.1:8081") })
	if s.pageWithin(2*time.Second, s.world.Outside, client, net.JoinHostPort(world.Host4, "8081")) {
		s.t.Error("a port of the loopback answers outside")
	}

	// A port of the host's that somebody else has is refused, as for root.
	var other net.Listener
	if err := netns.Do(s.world.Host, func() (err error) { other, err = net.Listen("tcp", "127.0.0.1:8088"); return err }); err != nil {
		s.t.Fatal(err)
	}
	defer other.Close()
	s.eventually("a taken port is refused", func() bool { // not as long as it may be one of the engine before
		out, err := s.try("run", "--rm", "-p", "8088:80", "box", "true")
		return err != nil && strings.Contains(out, "port is already allocated")
	})

	// Out: what listens in the outside sees the host's address.
	var l net.Listener
	if err := netns.Do(s.world.Outside, func() (err error) { l, err = net.Listen("tcp", net.JoinHostPort(world.Outside4, "7777")); return err }); err != nil {
		s.t.Fatal(err)
	}
	defer l.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = s.try("run", "--rm", "--network", "dock", "box", "sh", "-c", "echo ahoy | nc -w 30 "+world.Outside4+" 7777") // what arrives is the test
	}()
	defer func() { <-sent }()
	_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute))
	c, err := l.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	text, err := io.ReadAll(c)
	if from, _, _ := net.SplitHostPort(c.RemoteAddr().String()); from != world.Host4 || string(text) != "ahoy\n" {
		s.t.Errorf("%q came from %s (%v)", text, from, err)
	}
}

// page asks a web server from an address, with time for a busy machine.
func (s *sailor) page(from *os.File, source, address string) bool {
	return s.pageWithin(20*time.Second, from, source, address)
}

func (s *sailor) pageWithin(patience time.Duration, from *os.File, source, address string) bool {
	d := net.Dialer{Timeout: patience}
	if source != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
	}
	var c net.Conn
	if err := netns.Do(from, func() (err error) { c, err = d.Dial("tcp", address); return err }); err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return false
	}
	text, _ := io.ReadAll(c)
	return strings.Contains(string(text), "page: web")
}

// engines gives the processes of berthd, the outer one first.
func (s *sailor) engines() (pids []int) {
	for pid, args := range s.runs() {
		if name, _, _ := strings.Cut(args, " "); filepath.Base(name) != "berthd" {
			continue
		}
		n, _ := strconv.Atoi(pid) // the kernel's
		pids = append(pids, n)
	}
	if len(pids) == 2 && pids[0] > pids[1] {
		pids[0], pids[1] = pids[1], pids[0]
	}
	return pids
}

// restarts kills the engine in all ways: containers go on, and the next engine has them.
func (s *sailor) restarts() {
	id := s.berth("inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}}", "web")
	for i, way := range []struct {
		name   string
		which  int
		signal unix.Signal
	}{{"kill -9 outside", 0, unix.SIGKILL}, {"kill -9 inside", 1, unix.SIGKILL}, {"SIGTERM", 0, unix.SIGTERM}} {
		all := s.engines()
		if len(all) != 2 {
			s.t.Fatalf("%s: engines %v of %v", way.name, all, s.runs())
		}
		if err := unix.Kill(all[way.which], way.signal); err != nil {
			s.t.Fatal(err)
		}
		s.eventually("both engines end after "+way.name, func() bool { return len(s.engines()) == 0 })
		if !s.page(s.world.Outside, client, net.JoinHostPort(world.Host4, "8080")) {
			s.t.Errorf("after %s the container does not answer", way.name)
		}
		s.starts()
		if now := s.berth("inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}}", "web"); now != id {
			s.t.Errorf("after %s it is another container: %s, not %s", way.name, now, id)
		}
		s.wants(strconv.Itoa(i), "exec", "web", "echo", strconv.Itoa(i))
	}
	pasta := func() (pid int) {
		for p, args := range s.runs() {
			if name, _, _ := strings.Cut(args, " "); strings.HasPrefix(filepath.Base(name), "pasta") {
				pid, _ = strconv.Atoi(p) // the kernel's
			}
		}
		return pid
	}
	before := pasta()
	if before == 0 || unix.Kill(before, unix.SIGKILL) != nil {
		s.t.Fatalf("no pasta in %v", s.runs())
	}
	s.eventually("another pasta", func() bool { now := pasta(); return now != 0 && now != before })
	s.eventually("a port answers when another pasta carries for it", func() bool { return s.page(s.world.Outside, client, net.JoinHostPort(world.Host4, "8080")) })
	s.berth("run", "-d", "--name", "later", "--stop-signal", "KILL", "-p", "8082:80", "box", "sh", "-c", "mkdir /www; echo page: web >/www/index.html; exec httpd -f -p 80 -h /www")
	s.eventually("a port published later answers", func() bool { return s.page(s.world.Outside, client, net.JoinHostPort(world.Host4, "8082")) })
}

// end leaves nothing.
func (s *sailor) end() {
	s.berth("system", "shutdown")
	s.eventually("nothing runs any more", func() bool { return len(s.runs()) == 0 })
	s.eventually("no cgroup is left", func() bool {
		below, _ := filepath.Glob(s.cgroup + "/*/cgroup.procs")
		return len(below) == 0
	})
	if _, err := os.Stat(filepath.Join(s.runDir(), "rootless.json")); !os.IsNotExist(err) {
		s.t.Errorf("rootless.json is left: %v", err)
	}
	if left := s.world.Left(); len(left) != 0 {
		s.t.Errorf("left on the host: %q", left)
	}
}

// TestNobodyIsLeftBehind: an engine that is killed while it makes its namespaces takes their holder along.
func TestNobodyIsLeftBehind(t *testing.T) {
	t.Parallel()
	s := aboard(t)
	// A way out that never opens holds the engine between making the holder and writing it down.
	s.path = s.dir + "/home:" + s.path
	if err := os.WriteFile(filepath.Join(s.dir, "home", "pasta"), []byte("#!/bin/sh\n[ \"$1\" = --version ] && exit\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := s.command("berthd")
	if err := s.world.Start(cmd); err != nil {
		t.Fatal(err)
	}
	count := func(word string) (n int) {
		for _, args := range s.runs() {
			if strings.Contains(args, word) {
				n++
			}
		}
		return n
	}
	s.eventually("the way out is being opened", func() bool { return count("sleep 60") == 1 && count("/proc/self/exe") == 1 })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	s.eventually("the holder goes, too", func() bool { return len(s.engines()) == 0 && count("/proc/self/exe") == 0 && count("infinity") == 0 })
}

// TestSlirp: where only slirp4netns is installed containers reach the outside, and say that nobody reaches them.
func TestSlirp(t *testing.T) {
	t.Parallel()
	s := aboard(t, "slirp4netns")
	way := filepath.Join(s.dir, "way")
	if err := os.Mkdir(way, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range filepath.SplitList(s.path) { // everything but pasta
		all, _ := os.ReadDir(dir)
		for _, e := range all {
			if e.Name() != "pasta" {
				_ = os.Symlink(filepath.Join(dir, e.Name()), filepath.Join(way, e.Name())) // the first wins
			}
		}
	}
	s.path = way
	s.starts()
	if !strings.Contains(s.said(), "slirp4netns") {
		t.Errorf("the log does not say that ports cannot be reached:\n%s", s.said())
	}
	s.importBox()
	var l net.Listener
	if err := netns.Do(s.world.Outside, func() (err error) { l, err = net.Listen("tcp", net.JoinHostPort(world.Outside4, "7777")); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.WriteString(c, "ahoy\n")
			c.Close()
		}
	}()
	s.wants("ahoy", "run", "--rm", "box", "nc", "-w", "30", world.Outside4, "7777")
	s.end()
}

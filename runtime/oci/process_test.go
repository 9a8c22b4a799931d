package oci_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestExec(t *testing.T) {
	r := newRuntime(t)
	id := r.id()
	r.must("run", "--detach", "--bundle", r.bundle(shell("sleep 1000")), id)
	description := filepath.Join(t.TempDir(), "process.json")
	writeText(t, description, `{"args":["/bin/sh","-c","echo $A; id -u; pwd"],"env":["A=b","PATH=/bin"],"cwd":"/etc","user":{"uid":1000,"gid":1000}}`)
	for _, c := range []struct {
		args string // behind exec; ID stands for the id
		code int
		out  string
	}{
		{"ID echo -n x --env y", 0, "x --env y"},
		{"ID sh -c exit\u00a05", 5, ""},
		{"--cwd /tmp --env A=1 -e B=2 --user 1000:1000 ID sh -c pwd;echo\u00a0$A$B$HOME;id\u00a0-u;id\u00a0-g", 0, "/tmp\n12/home/user\n1000\n1000\n"},
		{"-g 7 -g 8 --user 5 ID id -G", 0, "0 7 8\n"},
		{"--process " + description + " ID", 0, "b\n1000\n/etc\n"},
		{"ID sh -c kill\u00a0-TERM\u00a0$$", 128 + 15, ""},
		{"ID grep -c /proc/self/cgroup /proc/self/cgroup", 1, "0\n"},
	} {
		args := strings.Fields(strings.ReplaceAll(c.args, "\u00a0", "\x00"))
		for i, a := range args {
			args[i] = strings.ReplaceAll(a, "\x00", " ")
			if a == "ID" {
				args[i] = id
			}
		}
		o := r.do(append([]string{"exec"}, args...)...)
		if o.code != c.code || o.out != c.out {
			t.Errorf("exec %s: exit %d, %q, %q; want %d, %q", c.args, o.code, o.out, o.err, c.code, c.out)
		}
	}
	for _, c := range []struct{ words, args string }{
		{"exec args cannot be empty", "ID"},
		{`exec: "nope": executable file not found in $PATH`, "ID nope"},
		{`exec: "/no/pe": stat /no/pe: no such file or directory`, "ID /no/pe"},
		{`exec: "/etc/passwd": permission denied`, "ID /etc/passwd"},
		{"bad uid", "--user x ID true"},
		{"additional-gids must be a positive number", "-g -1 ID true"},
		{"is not a sub cgroup path", "--cgroup ../x ID true"},
	} {
		o := r.do(append([]string{"exec"}, strings.Fields(strings.ReplaceAll(c.args, "ID", id))...)...)
		if o.code != 255 || !strings.Contains(strings.ReplaceAll(o.err, `\"`, `"`), c.words) || !strings.Contains(o.err, "exec failed: ") {
			t.Errorf("exec %s: exit %d, %q; want 255 and %q", c.args, o.code, o.err, c.words)
		}
	}
	// The process is in the container's cgroup and sees its view.
	pidFile := filepath.Join(t.TempDir(), "pid")
	r.must("exec", "--detach", "--pid-file", pidFile, id, "sleep", "1000")
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	if err := json.Unmarshal([]byte(r.must("ps", "--format", "json", id)), &pids); err != nil || len(pids) != 2 || !strings.Contains(fmt.Sprint(pids), string(text)) {
		t.Errorf("processes %v, %v; the detached one is %s", pids, err, text)
	}
}

// A program without a slash is looked for in the container's PATH, a script's interpreter where it says.
func TestAMissingInterpreterIsNotAMissingProgram(t *testing.T) {
	r := newRuntime(t)
	bundle := r.bundle(func(s *specs.Spec) { s.Process.Args = []string{"/script"} })
	must(t, os.WriteFile(bundle+"/rootfs/script", []byte("#!/no/pe\n"), 0o755))
	r.fails("exec /script: no such file or directory", "run", "--bundle", bundle, r.id())
}

func TestSignalsAreForwarded(t *testing.T) {
	r := newRuntime(t)
	// What this process was told to ignore (nohup) the runtime would have to leave ignored; what is caught starts anew in it.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGHUP)
	defer signal.Stop(signals)
	bundle := r.bundle(shell("trap 'echo hup' HUP; trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.01; done"))
	cmd := r.command("run", "--bundle", bundle, r.id())
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	expect := func(want string) {
		t.Helper()
		buf := make([]byte, len(want))
		if _, err := io.ReadFull(out, buf); err != nil || string(buf) != want {
			t.Fatalf("%q, %v; want %q", buf, err, want)
		}
	}
	expect("ready\n")
	must(t, cmd.Process.Signal(unix.SIGHUP))
	expect("hup\n")
	must(t, cmd.Process.Signal(unix.SIGTERM))
	expect("term\n")
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit %d", code)
	}
}

func TestAKilledContainerEndsAsShellsCount(t *testing.T) {
	r := newRuntime(t)
	id := r.id()
	cmd := r.command("run", "--bundle", r.bundle(shell("sleep 1000")), id)
	must(t, cmd.Start())
	eventually(t, "running", func() bool { return r.do("state", id).code == 0 })
	r.must("kill", id, "9")
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 137 {
		t.Errorf("exit %d", code)
	}
}

// In the foreground the caller's terminal and the container's are one.
func TestTerminalInTheForeground(t *testing.T) {
	r := newRuntime(t)
	master, slave, err := pty.Open()
	must(t, err)
	must(t, pty.Setsize(master, &pty.Winsize{Rows: 33, Cols: 77}))
	defer slave.Close()
	defer master.Close()
	id := r.id()
	bundle := r.bundle(both(shell("tty; stty size; head -n 1 | cut -c1-5; echo done >&2"), func(s *specs.Spec) { s.Process.Terminal = true }))
	cmd := r.command("run", "--bundle", bundle, id)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	must(t, cmd.Start())
	var seen strings.Builder
	buf := make([]byte, 4096)
	read := func(until string) {
		t.Helper()
		for !strings.Contains(seen.String(), until) {
			n, err := master.Read(buf)
			if err != nil {
				t.Fatalf("%v after %q", err, seen.String())
			}
			seen.Write(buf[:n])
		}
	}
	read("33 77")
	_, err = master.WriteString("typed words\r")
	must(t, err)
	read("done\r\n")
	must(t, cmd.Wait())
	if want := "/dev/pts/0\r\n33 77\r\ntyped words\r\ntyped\r\ndone\r\n"; seen.String() != want {
		t.Errorf("seen %q, want %q", seen.String(), want)
	}
}

// Detached, the terminal's master goes to whoever listens.
func TestConsoleSocket(t *testing.T) {
	r := newRuntime(t)
	bundle := r.bundle(both(shell("tty; sleep 1000"), func(s *specs.Spec) { s.Process.Terminal = true }))
	r.fails("cannot allocate tty if runc will detach without setting console socket", "create", "--bundle", bundle, r.id())
	r.fails("cannot use console socket if runc will not detach or allocate tty", "run", "--console-socket", "/x", "--bundle", bundle, r.id())
	id := r.id()
	for _, args := range [][]string{
		{"run", "--detach", "--bundle", bundle, id},
		{"exec", "--detach", "--tty", id, "/bin/sh", "-c", "tty; sleep 1000"},
	} {
		socket := filepath.Join(t.TempDir(), "a-path-that-is-longer-than-an-address-can-hold-"+strings.Repeat("x", 80), "sock")
		must(t, os.MkdirAll(filepath.Dir(socket), 0o700))
		listener := listen(t, socket)
		r.must(append([]string{args[0], "--console-socket", socket}, args[1:]...)...)
		name, fd := receive(t, listener)
		if name != "/dev/ptmx" {
			t.Errorf("the descriptor is called %q", name)
		}
		master := os.NewFile(uintptr(fd), "master")
		buf := make([]byte, 100)
		n, err := master.Read(buf)
		if err != nil || !strings.HasPrefix(string(buf[:n]), "/dev/pts/") {
			t.Errorf("%v: read %q, %v", args[0], buf[:n], err)
		}
		master.Close()
	}
}

// listen makes a unix socket, by way of its directory: the path may be long.
func listen(t *testing.T, path string) int {
	t.Helper()
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH, 0)
	must(t, err)
	defer unix.Close(dir)
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Bind(sock, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path))}))
	must(t, unix.Listen(sock, 1))
	t.Cleanup(func() { unix.Close(sock) })
	return sock
}

// receive takes one message with one descriptor.
func receive(t *testing.T, listener int) (string, int) {
	t.Helper()
	conn, _, err := unix.Accept(listener)
	must(t, err)
	defer unix.Close(conn)
	data, oob := make([]byte, 65536), make([]byte, 1024)
	n, oobn, _, _, err := unix.Recvmsg(conn, data, oob, unix.MSG_CMSG_CLOEXEC)
	must(t, err)
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	must(t, err)
	fds, err := unix.ParseUnixRights(&messages[0])
	must(t, err)
	return string(data[:n]), fds[0]
}

func TestPreservedDescriptors(t *testing.T) {
	r := newRuntime(t)
	read, write, err := os.Pipe()
	must(t, err)
	defer read.Close()
	cmd := r.command("run", "--preserve-fds", "1", "--bundle", r.bundle(shell("echo through >&3; test -e /proc/self/fd/4 || echo closed >&3")), r.id())
	cmd.ExtraFiles = []*os.File{write, read}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	write.Close()
	if text, err := io.ReadAll(read); err != nil || string(text) != "through\nclosed\n" {
		t.Errorf("%q, %v", text, err)
	}
	r.fails("unable to stat preserved-fd 0 (of 1)", "run", "--preserve-fds", "1", "--bundle", r.bundle(nil), r.id())
}

// An agent gets the listener and answers for the container's calls.
func TestSeccompListener(t *testing.T) {
	r := newRuntime(t)
	socket := filepath.Join(t.TempDir(), "agent")
	listener := listen(t, socket)
	id := r.id()
	bundle := r.bundle(both(shell("mkdir /tmp/x && echo made"), func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, ListenerPath: socket, ListenerMetadata: "meta",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}},
		}
	}))
	done := make(chan outcome, 1)
	go func() { done <- r.do("run", "--bundle", bundle, id) }()
	text, fd := receive(t, listener)
	defer unix.Close(fd)
	var told specs.ContainerProcessState
	if err := json.Unmarshal([]byte(text), &told); err != nil {
		t.Fatal(err)
	}
	if told.Metadata != "meta" || told.State.ID != id || told.Pid != told.State.Pid || len(told.Fds) != 1 || told.Fds[0] != specs.SeccompFdName || told.State.Bundle != bundle {
		t.Errorf("the agent is told %+v", told)
	}
	// The agent dies without an answer: the call fails with ENOSYS.
	unix.Close(fd)
	if o := <-done; o.code == 0 || strings.Contains(o.out, "made") {
		t.Errorf("%+v", o)
	}
}

// An ordinary user runs a container in a user namespace of his own.
func TestRootless(t *testing.T) {
	r := newRuntime(t)
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("needs setpriv: package util-linux")
	}
	const uid = 54321
	base := filepath.Join(os.TempDir(), fmt.Sprintf("berth-test-rootless-%d", os.Getpid()))
	must(t, os.Mkdir(base, 0o711))
	t.Cleanup(func() { os.RemoveAll(base) })
	bin, home := filepath.Join(base, "berth-oci"), filepath.Join(base, "home")
	copyFile(t, r.bin, bin)
	must(t, os.Mkdir(home, 0o700))
	bundle := r.bundle(nil)
	if out, err := exec.Command("cp", "-a", bundle, filepath.Join(home, "bundle")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, os.Remove(filepath.Join(home, "bundle/config.json")))
	if out, err := exec.Command("chown", "-R", fmt.Sprint(uid), home).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	run := func(args ...string) outcome {
		cmd := exec.Command(setpriv, append([]string{"--reuid", fmt.Sprint(uid), "--regid", fmt.Sprint(uid), "--clear-groups", "--inh-caps=-all", bin}, args...)...)
		cmd.Env = []string{"XDG_RUNTIME_DIR=" + home, "PATH=/bin"}
		cmd.Dir = filepath.Join(home, "bundle")
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		cmd.WaitDelay = 100 * time.Millisecond // a container that stays holds the pipes
		_ = cmd.Run()
		return outcome{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
	}
	if o := run("spec", "--rootless"); o.code != 0 {
		t.Fatalf("spec: %+v", o)
	}
	var s specs.Spec
	text, err := os.ReadFile(filepath.Join(home, "bundle/config.json"))
	must(t, err)
	must(t, json.Unmarshal(text, &s))
	s.Process.Terminal, s.Process.Args = false, []string{"sh", "-c", "id -u; cat /proc/self/uid_map; hostname"}
	r.write(filepath.Join(home, "bundle"), &s)
	o := run("run", "me")
	if o.code != 0 || strings.Join(strings.Fields(o.out), " ") != "0 0 0 1 berth" {
		t.Errorf("run: %+v", o)
	}
	if o := run("list", "-q"); o.code != 0 || o.out != "" {
		t.Errorf("list: %+v", o)
	}
	s.Process.Args = []string{"sleep", "1000"}
	r.write(filepath.Join(home, "bundle"), &s)
	if o := run("run", "--detach", "long"); o.code != 0 {
		t.Fatalf("run --detach: %+v", o)
	}
	defer run("delete", "--force", "long")
	if o := run("exec", "--env", "A=b", "long", "sh", "-c", "echo $A; id -u; head -c 5 /proc/1/cmdline; test -e /proc/2 && echo more; exit 7"); o.code != 7 || o.out != "b\n0\nsleepmore\n" {
		t.Errorf("exec: %+v", o)
	}
	// Another container in its user and pid namespaces.
	var first state
	must(t, json.Unmarshal([]byte(run("state", "long").out), &first))
	for i, n := range s.Linux.Namespaces {
		if n.Type == specs.UserNamespace || n.Type == specs.PIDNamespace {
			s.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", first.PID, n.Type)
		}
	}
	s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
	s.Process.Args = []string{"sh", "-c", "id -u; head -c 5 /proc/1/cmdline; readlink /proc/self/ns/user; exit 8"}
	r.write(filepath.Join(home, "bundle"), &s)
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", first.PID))
	must(t, err)
	if o := run("run", "second"); o.code != 8 || o.out != "0\nsleep"+ns+"\n" {
		t.Errorf("run in namespaces of another: %+v", o)
	}
}

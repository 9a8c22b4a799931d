package oci_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is a service manager's side of sd_notify(3).
func manager(t *testing.T) (*net.UnixConn, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth-test-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn, path
}

// heard reads messages up to the barrier, whose descriptor it closes.
func heard(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	var all strings.Builder
	for {
		data, oob := make([]byte, 4096), make([]byte, 256)
		n, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
		must(t, err)
		if string(data[:n]) != "BARRIER=1" {
			all.Write(data[:n])
			continue
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		must(t, err)
		fds, err := unix.ParseUnixRights(&messages[0])
		must(t, err)
		unix.Close(fds[0])
		return all.String()
	}
}

// say sends a message from where the container's program would.
func say(t *testing.T, pid int, text string) {
	t.Helper()
	path := fmt.Sprintf("/proc/%d/root/run/notify/notify.sock", pid)
	eventually(t, "the container's socket", func() bool { _, err := os.Stat(path); return err == nil })
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte(text))
	must(t, err)
}

// A container tells the service manager that it is ready, and nothing else.
func TestReadinessIsPassedOn(t *testing.T) {
	for _, how := range []string{"run --detach", "start", "run"} {
		t.Run(how, func(t *testing.T) {
			r := newRuntime(t)
			conn, path := manager(t)
			r.env = []string{"NOTIFY_SOCKET=" + path}
			bundle, id := r.bundle(shell("echo $NOTIFY_SOCKET > /tmp/told; sleep 1000")), r.id()
			done := make(chan outcome, 1)
			switch how {
			case "start":
				r.must("create", "--bundle", bundle, id)
				go func() { done <- r.do("start", id) }()
			default:
				go func() { done <- r.do(append(strings.Fields(how), "--bundle", bundle, id)...) }()
			}
			eventually(t, "running", func() bool { o := r.do("state", id); return o.code == 0 && strings.Contains(o.out, "running") })
			pid := r.state(id).PID
			eventually(t, "the program's start", func() bool {
				text, err := os.ReadFile(bundle + "/rootfs/tmp/told")
				return err == nil && len(text) > 0
			})
			say(t, pid, "STATUS=not yet\nFDSTORE=1\n")
			say(t, pid, "STATUS=almost\nREADY=1\n")
			if got, want := heard(t, conn), fmt.Sprintf("READY=1\nMAINPID=%d\n", pid); got != want {
				t.Errorf("the manager hears %q, want %q", got, want)
			}
			if how == "run" {
				r.must("kill", id, "KILL")
			}
			if o := <-done; o.code != 0 && how != "run" || o.err != "" {
				t.Errorf("%+v", o)
			}
			text, err := os.ReadFile(bundle + "/rootfs/tmp/told")
			if err != nil || string(text) != "/run/notify/notify.sock\n" {
				t.Errorf("the container is told %q, %v", text, err)
			}
		})
	}
}

// A container that ends before it is ready keeps nobody waiting.
func TestReadinessThatNeverComes(t *testing.T) {
	r := newRuntime(t)
	_, path := manager(t)
	r.env = []string{"NOTIFY_SOCKET=" + path}
	id := r.id()
	r.must("run", "--detach", "--bundle", r.bundle(shell("exit 3")), id)
	r.must("delete", id)
}

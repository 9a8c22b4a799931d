package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/engine/container"
)

// A client that leaves while its container is being stopped for a restart does not leave it stopped.
func TestRestartLeft(t *testing.T) {
	w := newWorld(t)
	id := w.run("", spec(`trap "echo told" TERM; echo ready; while :; do sleep 0.05; done`))
	w.await(id, "ready")
	ctx, cancel := context.WithCancel(t.Context())
	done, patience := make(chan error, 1), 1
	go func() { done <- w.Restart(ctx, id, StopOptions{Timeout: &patience}) }()
	w.await(id, "told")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s := w.state(id); !s.Running {
		t.Errorf("after the restart: %+v", s)
	}
}

// When the last byte of a container's output was read, its exit code is known.
func TestAttachEnds(t *testing.T) {
	w := newWorld(t)
	for _, line := range []string{"echo out; exit 3", "exit 3"} {
		for range 5 {
			id := w.create("", spec(line))
			a, err := w.Attach(t.Context(), id, AttachOptions{Stdout: true, Stderr: true, Stream: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Start(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, a.Conn); err != nil {
				t.Error(err)
			}
			if s := w.state(id); s.Running || s.ExitCode != 3 {
				t.Errorf("%q: after its output: %+v", line, s)
			}
			a.Conn.Close()
		}
	}
}

func TestExecUserUnknown(t *testing.T) {
	w := newWorld(t)
	id := w.run("", spec("sleep 1000"))
	for user, want := range map[string]string{
		"nosuch":   "unable to find user nosuch: no matching entries in passwd file",
		"nosuch:1": "unable to find user nosuch: no matching entries in passwd file",
		"1:nosuch": "unable to find group nosuch: no matching entries in group file",
		"12:34":    "", "app": "",
	} {
		_, err := w.ExecCreate(t.Context(), id, container.ExecSpec{Cmd: []string{"true"}, User: user})
		if want == "" && err != nil || want != "" && (!fault.Is(err, fault.Invalid) || err.Error() != want) {
			t.Errorf("%s: %v", user, err)
		}
	}
	x, err := w.ExecCreate(t.Context(), id, container.ExecSpec{Cmd: []string{"sleep", "1000"}, TTY: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.ExecStart(t.Context(), x, ExecStartOptions{Detach: true}); err != nil {
		t.Fatal(err)
	}
	if err := w.Kill(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if i, err := w.ExecInspect(t.Context(), x); err != nil || !i.Running {
			break
		}
	}
	w.until(id, "ended", func(s container.State) bool { return !s.Running }) // of the two either may be told first
	if err := w.ExecResize(t.Context(), x, 10, 10); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), id+" is not running") {
		t.Error(err)
	}
}

// What lies in an archive is called as it was asked for.
func TestCopyRoot(t *testing.T) {
	w := newWorld(t)
	id := w.create("", spec("true"))
	for asked, want := range map[string][]string{
		"/": {"/", "/etc/", "/etc/passwd"}, ".": {"./", "./etc/passwd"}, "./": {"./", "./etc/passwd"}, "/.": {"./", "./etc/passwd"}, "/./": {"./", "./etc/passwd"},
		"etc/": {"etc/", "etc/passwd"}, "/etc/.": {"./", "./passwd"}, "/etc/./": {"./", "./passwd"}, "/etc/passwd": {"passwd"},
	} {
		var b bytes.Buffer
		if err := w.CopyFrom(t.Context(), id, asked, func(PathStat) (io.Writer, error) { return &b, nil }); err != nil {
			t.Errorf("%s: %v", asked, err)
			continue
		}
		var names []string
		for r := tar.NewReader(&b); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, h.Name)
		}
		for _, n := range want {
			if !slices.Contains(names, n) {
				t.Errorf("%s: %s is not among %q", asked, n, names[:min(5, len(names))])
			}
		}
	}
}

// The working directory that an image does not have is there before the first start, and may lie behind a link.
func TestWorkingDirectoryMade(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ dir, want, refused string }{
		{"/new/deep", "/new/deep", ""}, {"/etc/sub/../more", "/etc/more", ""}, {"/etc", "/etc", ""},
		{"/etc/passwd", "", "Cannot mkdir: /etc/passwd is not a directory"}, {"/etc/passwd/x", "", "Cannot mkdir: /etc/passwd/x is not a directory"},
	} {
		s := spec("pwd")
		s.Process.WorkingDir = c.dir
		r, err := w.Create(t.Context(), "", s)
		if c.refused != "" {
			if !fault.Is(err, fault.Invalid) || err.Error() != c.refused {
				t.Errorf("%s: %v", c.dir, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.dir, err)
			continue
		}
		if st, err := w.StatPath(t.Context(), r.ID, c.want); err != nil || !st.Mode.IsDir() || st.Mode.Perm() != 0o755 {
			t.Errorf("%s: %+v %v", c.dir, st, err)
		}
		if err := w.Start(t.Context(), r.ID); err != nil || w.wait(r.ID) != 0 || w.logged(r.ID) != c.want+"\n" {
			t.Errorf("%s: %v, says %q", c.dir, err, w.logged(r.ID))
		}
	}
}

// A link is a further name of its target, until it is removed.
func TestLinkNames(t *testing.T) {
	w := newWorld(t)
	db := w.create("db1", spec("sleep 1000"))
	s := spec("true")
	s.Network.Links = []string{"/db1:/app1/mysql", "db1"}
	app := w.index.get(w.create("app1", spec("true")))
	r := *app.record() // links are for networks, which this engine has not got
	r.Spec = &s
	app.setRecord(&r)
	names := func() []string {
		list, err := w.List(t.Context(), ListOptions{All: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range list {
			if i.ID == db {
				return i.LinkNames
			}
		}
		return nil
	}
	if got := names(); !slices.Equal(got, []string{"app1/db1", "app1/mysql"}) {
		t.Errorf("%q", got)
	}
	for _, ref := range []string{"app1/mysql", "/app1/mysql", "/app1/db1", app.id + "/mysql"} {
		if i, err := w.Inspect(t.Context(), ref); err != nil || i.ID != db {
			t.Errorf("%s: %s %v", ref, i.ID, err)
		}
	}
	if err := w.Rename(t.Context(), "app1", "app2"); err != nil {
		t.Fatal(err)
	}
	if i, err := w.Inspect(t.Context(), "app2/mysql"); err != nil || i.ID != db {
		t.Errorf("after the rename: %s %v", i.ID, err)
	}
	for _, ref := range []string{"app1/mysql", "app2/nothing", "nobody/mysql", "app2/", "/", "db1/app2"} {
		if _, err := w.Inspect(t.Context(), ref); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if err := w.Remove(t.Context(), "app2/mysql", RemoveOptions{Link: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Inspect(t.Context(), "app2/mysql"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if err := w.Remove(t.Context(), "app2", RemoveOptions{Link: true}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if got := names(); !slices.Equal(got, []string{"app2/db1"}) {
		t.Errorf("%q", got)
	}
}

func TestLinkVariables(t *testing.T) {
	got := linkVariables("/app/my-db", "172.17.0.2", []string{"99/udp", "99/tcp", "7"}, []string{"A=b=c", "HOME=/x", "PATH=/y", "bare"})
	want := []string{
		"MY_DB_PORT=tcp://172.17.0.2:7",
		"MY_DB_PORT_7_TCP=tcp://172.17.0.2:7", "MY_DB_PORT_7_TCP_ADDR=172.17.0.2", "MY_DB_PORT_7_TCP_PORT=7", "MY_DB_PORT_7_TCP_PROTO=tcp",
		"MY_DB_PORT_99_TCP=tcp://172.17.0.2:99", "MY_DB_PORT_99_TCP_ADDR=172.17.0.2", "MY_DB_PORT_99_TCP_PORT=99", "MY_DB_PORT_99_TCP_PROTO=tcp",
		"MY_DB_PORT_99_UDP=udp://172.17.0.2:99", "MY_DB_PORT_99_UDP_ADDR=172.17.0.2", "MY_DB_PORT_99_UDP_PORT=99", "MY_DB_PORT_99_UDP_PROTO=udp",
		"MY_DB_NAME=/app/my-db", "MY_DB_ENV_A=b=c",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// An exec that was not started in a run is not for the next one.
func TestExecOfAnEarlierRun(t *testing.T) {
	w := newWorld(t)
	id := w.run("", spec("sleep 1000"))
	x, err := w.ExecCreate(t.Context(), id, container.ExecSpec{Cmd: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	// Refused while the container is paused it may be started later.
	y, err := w.ExecCreate(t.Context(), id, container.ExecSpec{Cmd: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ExecStart(t.Context(), y, ExecStartOptions{Detach: true}); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "paused") {
		t.Error(err)
	}
	if err := w.Unpause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ExecStart(t.Context(), y, ExecStartOptions{Detach: true}); err != nil {
		t.Error(err)
	}
	if err := w.Kill(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ExecStart(t.Context(), x, ExecStartOptions{Detach: true}); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	w.eventually("no exec in inspect", func() bool { // y's end may be told after the container's
		i, err := w.Inspect(t.Context(), id)
		return err == nil && i.ExecIDs == nil
	})
}

// What is copied to a mount of a container that never ran lies in what is mounted there, wherever that is.
func TestCopyToMountsOfCreated(t *testing.T) {
	w := newWorld(t)
	dir, file := t.TempDir(), t.TempDir()+"/file"
	if err := os.WriteFile(file, []byte("there"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := spec("cat /data/deep/x /etc/y")
	s.Mounts = []container.Mount{{Type: "bind", Source: dir, Target: "/data/deep"}, {Type: "bind", Source: file, Target: "/etc/y"}}
	id := w.create("", s)
	if st, err := w.StatPath(t.Context(), id, "/data/deep"); err != nil || !st.Mode.IsDir() {
		t.Errorf("%+v %v", st, err)
	}
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	if err := errors.Join(tw.WriteHeader(&tar.Header{Name: "x", Mode: 0o600, Uid: 7, Gid: 8, Size: 2}), func() error { _, err := tw.Write([]byte("hi")); return err }(), tw.Close()); err != nil {
		t.Fatal(err)
	}
	// Without a user of its own, "cp -a" leaves the owners of the archive.
	if err := w.CopyTo(t.Context(), id, "/data/deep", &b, CopyOptions{Owned: true}); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir+"/x", &st); err != nil || st.Uid != 7 || st.Gid != 8 {
		t.Errorf("%v, owner %d:%d", err, st.Uid, st.Gid)
	}
	if err := w.Start(t.Context(), id); err != nil || w.wait(id) != 0 || w.logged(id) != "hithere" {
		t.Errorf("%v %q", err, w.logged(id))
	}
}

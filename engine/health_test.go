package engine

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/event"
	"berth/engine/container"
)

// checked is a container with a check that is made often.
func checked(line string, test ...string) container.Spec {
	s := spec(line)
	s.Healthcheck = &container.Healthcheck{Test: test, Interval: 50 * time.Millisecond, Timeout: 5 * time.Second, Retries: 2}
	return s
}

// until waits for a container's state to be as wanted.
func (w *world) until(id, what string, is func(container.State) bool) container.State {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		s := w.state(id)
		if is(s) {
			return s
		}
		if time.Now().After(end) {
			w.t.Fatalf("never %s: %+v %+v", what, s, s.Health)
		}
	}
}

func (w *world) untilHealth(id string, h container.HealthStatus) container.State {
	w.t.Helper()
	return w.until(id, string(h), func(s container.State) bool { return s.HealthStatus() == h })
}

// actions collects a container's events, up to when it is asked for them.
func (w *world) actions(id string) func() []string {
	sub := w.bus.Subscribe(w.t.Context(), time.Time{}, time.Time{}, func(e event.Event) bool { return e.ID == id })
	return func() (all []string) {
		sub.Close() // what was published before is given all the same
		for {
			e, ok := sub.Next(w.t.Context())
			if !ok {
				return all
			}
			all = append(all, e.Action)
		}
	}
}

func TestHealthCommand(t *testing.T) {
	w := newWorld(t)
	hold := filepath.Join(t.TempDir(), "hold") // while it is there a probe does not end
	holds := func() {
		if err := os.WriteFile(hold, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	holds()
	const test = "echo $FROM; while test -e /host/hold; do sleep 0.01; done; test -e /ok"
	c := checked("sleep 1000", "CMD-SHELL", test)
	c.Healthcheck.Timeout = time.Hour
	c.Mounts = []container.Mount{{Type: "bind", Source: filepath.Dir(hold), Target: "/host"}}
	id := w.create("", c)
	if h := w.state(id).Health; h != nil {
		t.Errorf("created: %+v", h)
	}
	told := w.actions(id)
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if s := w.state(id); s.HealthStatus() != container.Starting || len(s.Health.Log) != 0 {
		t.Errorf("started: %+v", s.Health)
	}
	os.Remove(hold)
	s := w.untilHealth(id, container.Unhealthy)
	if l := s.Health.Log[0]; s.Health.FailingStreak < 2 || l.ExitCode != 1 || l.Output != "image\n" || !l.End.After(l.Start) {
		t.Errorf("%+v", s.Health)
	}
	w.touch(id, "/ok")
	if s = w.untilHealth(id, container.Healthy); s.Health.FailingStreak != 0 {
		t.Errorf("%+v", s.Health)
	}
	if err := w.Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	paused := w.state(id).Health
	if paused.Status != container.Unhealthy || paused.FailingStreak != 0 {
		t.Errorf("paused: %+v", paused)
	}
	time.Sleep(150 * time.Millisecond)
	if h := w.state(id).Health; h.Log[len(h.Log)-1] != paused.Log[len(paused.Log)-1] {
		t.Error("probed while paused")
	}
	if err := w.Unpause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.untilHealth(id, container.Healthy)
	zero := 0
	if err := w.Stop(t.Context(), id, StopOptions{Timeout: &zero}); err != nil {
		t.Fatal(err)
	}
	if h := w.state(id).Health; h.Status != container.Unhealthy || len(h.Log) < 4 {
		t.Errorf("stopped: %+v", h)
	}
	w.eventually("it is probed no more", func() bool { return w.health.Len() == 0 }) // the end is told to others a moment later
	all := told()
	text := strings.Join(all, "\n")
	for _, want := range []string{"exec_create: /bin/sh -c " + test + "\nexec_start: /bin/sh -c " + test + "\nexec_die", "exec_die\nhealth_status: unhealthy", "health_status: healthy"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if n := slices.Index(all, "pause"); n < 0 || slices.Index(all[n:], "unpause") < 0 { // the pause may have come upon the launch of a probe
		t.Errorf("no pause before an unpause in\n%s", text)
	}
	if before, _, _ := strings.Cut(text, "health_status: unhealthy"); strings.Count(before, "exec_die") != 2 {
		t.Errorf("not unhealthy at the second failure:\n%s", text)
	}
	if n := strings.Count(text, "health_status:"); n < 3 { // the probe that the stop killed may be one more
		t.Errorf("%d changes told in\n%s", n, text)
	}
	holds()
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if h := w.state(id).Health; h.Status != container.Starting || h.FailingStreak != 0 || len(h.Log) < 4 {
		t.Errorf("started again: %+v", h)
	}
}

// touch makes a file in a container.
func (w *world) touch(id, path string) {
	w.t.Helper()
	x, err := w.ExecCreate(w.t.Context(), id, container.ExecSpec{Cmd: []string{"touch", path}})
	if err == nil {
		_, err = w.ExecStart(w.t.Context(), x, ExecStartOptions{Detach: true})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestHealthOutcomes(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name, code, out string
		test            []string
	}{
		{"output", "0", strings.Repeat("x", 4096) + "...", []string{"CMD-SHELL", "head -c 100000 /dev/zero | tr '\\0' x"}},
		{"both streams", "3", "out\nerr\n", []string{"CMD-SHELL", "echo out; echo err >&2; exit 3"}},
		{"no such program", "-1", `OCI runtime exec failed: exec failed: unable to start container process: exec: "nonexist": executable file not found in $PATH: unknown`, []string{"CMD", "nonexist"}},
		{"timeout", "-1", "Health check exceeded timeout (200ms)", []string{"CMD-SHELL", "sleep 777 & sleep 777"}},
		{"timeout of one that says something", "-1", "Health check exceeded timeout (5s): one\ntwo\n", []string{"CMD-SHELL", "echo one; echo two >&2; sleep 777"}},
		{"a child that keeps the output open", "0", "begun\n", []string{"CMD-SHELL", "echo begun; sleep 888 & exit 0"}},
		{"nobody listens", "1", "tcp 127.0.0.1:9: connect: connection refused", []string{"CMD", "tcp:9"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := checked("sleep 1000", c.test...)
			switch {
			case c.name == "timeout":
				s.Healthcheck.Timeout = 200 * time.Millisecond
			case strings.HasPrefix(c.name, "timeout of"):
				s.Healthcheck.Timeout = 5 * time.Second // in which it has to begin, on any machine
			default:
				s.Healthcheck.Timeout = time.Minute
			}
			id := w.run("", s)
			h := w.until(id, "probed", func(s container.State) bool { return len(s.Health.Log) > 0 }).Health
			if r := h.Log[0]; fmt.Sprint(r.ExitCode) != c.code || r.Output != c.out {
				t.Errorf("%d %.200q", r.ExitCode, r.Output)
			}
			if c.name == "timeout" {
				time.Sleep(50 * time.Millisecond)
				top, err := w.Top(t.Context(), id, "-ef")
				n := 0
				for _, p := range top.Processes {
					if strings.Contains(fmt.Sprint(p), "sleep 777") { // also a shell on its way to be one, whose line has it twice
						n++
					}
				}
				if err != nil || n > 3 { // of the one that runs now
					t.Errorf("probes pile up: %v %v", top.Processes, err)
				}
			}
			if err := w.Remove(t.Context(), id, RemoveOptions{Force: true}); err != nil {
				t.Error(err)
			}
		})
	}
	for _, test := range [][]string{{"NONE"}, {"WAT", "x"}} {
		id := w.run("", checked("sleep 1000", test...))
		if h := w.state(id).Health; h != nil {
			t.Errorf("%q: %+v", test, h)
		}
	}
	bad := checked("true", "CMD", "http:x")
	if _, err := w.Create(t.Context(), "", bad); err == nil {
		t.Error("http:x was taken")
	}
}

// TestHealthInNetwork asks a server that only listens inside of the container.
func TestHealthInNetwork(t *testing.T) {
	w := newWorld(t)
	serve := `echo all is well >/tmp/healthz; exec /bin/busybox httpd -f -p 127.0.0.1:8080 -h /tmp`
	id := w.run("", checked(serve, "CMD", "http:8080/healthz"))
	s := w.untilHealth(id, container.Healthy)
	if r := s.Health.Log[len(s.Health.Log)-1]; r.ExitCode != 0 || !strings.HasPrefix(r.Output, "HTTP/1.") || !strings.HasSuffix(r.Output, " 200 OK\nall is well\n") {
		t.Errorf("%+v", r)
	}
	if ids := w.snapshotOf(id).ExecIDs; len(ids) != 0 {
		t.Errorf("execs %v", ids)
	}
}

func (w *world) snapshotOf(id string) *container.Info { return w.index.get(id).snapshot() }

// TestHealthOfStopped is a server that is stopped with SIGSTOP: the kernel accepts for it, and nothing answers.
func TestHealthOfStopped(t *testing.T) {
	w := newWorld(t)
	s := checked(`/bin/busybox httpd -f -p 127.0.0.1:80 -h /etc & while ! test -e /stop; do sleep 0.02; done; kill -STOP $!; sleep 1000`, "CMD", "http:80/text")
	s.Healthcheck.Timeout = 100 * time.Millisecond
	id := w.run("", s)
	w.untilHealth(id, container.Healthy)
	w.touch(id, "/stop")
	h := w.untilHealth(id, container.Unhealthy).Health
	r := h.Log[len(h.Log)-1]
	if took := r.End.Sub(r.Start); took > 20*time.Second || r.ExitCode != -1 || r.Output != "Health check exceeded timeout (100ms)" {
		t.Errorf("%+v took %v", r, took)
	}
}

func TestHealthSurvivesEngine(t *testing.T) {
	w := newWorld(t)
	id := w.run("", checked("sleep 1000", "CMD-SHELL", "sleep 0.01; exit 4"))
	was := w.untilHealth(id, container.Unhealthy)
	long := w.run("", func() container.Spec {
		s := checked("sleep 1000", "CMD-SHELL", "sleep 555")
		s.Healthcheck.Timeout = time.Hour
		return s
	}())
	sleeps := func() int {
		top, err := w.Top(t.Context(), long, "-ef")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(fmt.Sprint(top.Processes), "sleep 555")
	}
	for end := time.Now().Add(time.Minute); sleeps() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no probe")
		}
	}
	w.reopen()
	if s := w.state(id); s.HealthStatus() != container.Unhealthy || s.Health.FailingStreak < was.Health.FailingStreak || len(s.Health.Log) == 0 || s.Health.Log[0].ExitCode != 4 {
		t.Errorf("%+v, was %+v", s.Health, was.Health)
	}
	streak := w.state(id).Health.FailingStreak
	w.until(id, "probed again", func(s container.State) bool { return s.Health.FailingStreak > streak })
	w.eventually("one probe, not two side by side", func() bool { return sleeps() == 1 })
}

// TestHealthWithoutKeeper has the keeper stopped: probes fail at once and say why, and nothing is restarted for it.
func TestHealthWithoutKeeper(t *testing.T) {
	w := newWorld(t)
	s := checked("sleep 1000", "CMD", "true")
	s.Restart = container.Restart{Name: "on-unhealthy"}
	id := w.run("", s)
	w.untilHealth(id, container.Healthy)
	info, err := w.client.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(info.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(info.PID, unix.SIGCONT)
	h := w.untilHealth(id, container.Unhealthy).Health
	if r := h.Log[len(h.Log)-1]; r.ExitCode != -1 || !strings.Contains(r.Output, "keeper") {
		t.Errorf("%+v", r)
	}
	if w.index.get(id).standing().Unwell {
		t.Error("it is being restarted")
	}
	if err := unix.Kill(info.PID, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.untilHealth(id, container.Healthy)
	if n := w.snapshotOf(id).RestartCount; n != 0 {
		t.Errorf("%d restarts", n)
	}
}

// TestHealthOfFrozen has somebody else freeze the container while a probe runs: it cannot be killed, and gets no second one beside it.
func TestHealthOfFrozen(t *testing.T) {
	w := newWorld(t)
	s := checked("sleep 1000", "CMD", "sleep", "0.2")
	s.Healthcheck.Interval, s.Healthcheck.Timeout = time.Millisecond, 500*time.Millisecond
	id := w.run("", s)
	w.untilHealth(id, container.Healthy)
	cg := w.index.get(id).cgroup()
	defer cg.Thaw()
	w.eventually("frozen in a probe", func() bool { // not in the launch of one, which nobody could answer
		if err := cg.Freeze(); err != nil {
			t.Fatal(err)
		}
		procs, err := cg.Procs()
		if err != nil {
			t.Fatal(err)
		}
		for _, pid := range procs {
			if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(name) != "sleep\n" {
				procs = nil
			}
		}
		if len(procs) == 2 {
			return true
		}
		if err := cg.Thaw(); err != nil {
			t.Fatal(err)
		}
		return false
	})
	h := w.untilHealth(id, container.Unhealthy).Health
	var said string
	for _, r := range h.Log {
		said += r.Output + "\n"
	}
	if !strings.Contains(said, "Health check exceeded timeout (500ms)\nthe last health check does not end: ") && !strings.Contains(said, "does not end: process") {
		t.Errorf("%s", said)
	}
	if procs, err := cg.Procs(); err != nil || len(procs) > 2 {
		t.Errorf("processes %v %v", procs, err)
	}
	if err := cg.Thaw(); err != nil {
		t.Fatal(err)
	}
	w.untilHealth(id, container.Healthy)
}

func TestProbeID(t *testing.T) {
	a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
	x := probeID(a)
	if len(x) != 64 || !isProbe(a, x) || isProbe(b, x) || isProbe(a, a) || isProbe(a, "") || isProbe(a, x[1:]) {
		t.Errorf("%q", x)
	}
}

func TestOnUnhealthy(t *testing.T) {
	w := newWorld(t)
	// The probe fails when the signal that follows from it is listened to; /dev/shm is new in each run.
	s := checked("echo began; trap 'echo asked; exit 0' TERM; touch /dev/shm/listens; while true; do sleep 0.05; done", "CMD-SHELL", "while ! test -e /dev/shm/listens; do sleep 0.01; done; false")
	s.Healthcheck.Timeout = time.Hour
	s.Restart = container.Restart{Name: "on-unhealthy", MaxRetries: 2}
	id := w.create("", s)
	told := w.actions(id)
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.until(id, "restarted twice and left alone", func(s container.State) bool {
		return w.snapshotOf(id).RestartCount == 2 && s.Status == container.Running && s.Health.FailingStreak > 4
	})
	w.eventually("it says so", func() bool {
		out := w.logged(id)
		return strings.Count(out, "began") == 3 && strings.Count(out, "asked") == 2
	})
	if text := strings.Join(told(), "\n"); !strings.Contains(text, "health_status: unhealthy\nkill\n") {
		t.Errorf("%s", text)
	}
	if _, err := w.Update(t.Context(), id, container.Resources{}, &container.Restart{Name: "on-unhealthy"}); err != nil {
		t.Fatal(err)
	}
	w.until(id, "restarted again", func(container.State) bool { return w.snapshotOf(id).RestartCount >= 3 })
	if err := w.Stop(t.Context(), id, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if s := w.state(id); s.Status != container.Exited {
		t.Errorf("stopped by a person: %+v", s)
	}
}

// TestOnUnhealthyOfHung is the demand itself: a command that hangs in its start is started again, and is well then.
func TestOnUnhealthyOfHung(t *testing.T) {
	w := newWorld(t)
	s := checked("if test -e /again; then touch /well; fi; touch /again /dev/shm/begun; sleep 1000", "CMD-SHELL", "while ! test -e /dev/shm/begun; do sleep 0.01; done; test -e /well")
	s.Healthcheck.Timeout = time.Hour
	s.Restart, s.StopSignal = container.Restart{Name: "on-unhealthy"}, "KILL"
	id := w.run("", s)
	w.untilHealth(id, container.Healthy)
	if n := w.snapshotOf(id).RestartCount; n != 1 {
		t.Errorf("%d restarts", n)
	}
	if at := w.index.get(id).standing(); at.Relapses != 0 || at.Unwell {
		t.Errorf("%+v", at)
	}
	s = spec("exit 3")
	s.Restart = container.Restart{Name: "on-unhealthy", MaxRetries: 1}
	r, err := w.Create(t.Context(), "", s)
	if err != nil || len(r.Warnings) != 1 {
		t.Fatal(r, err)
	}
	if err := w.Start(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	w.until(r.ID, "given up", func(s container.State) bool { return s.Status == container.Exited })
	if n := w.snapshotOf(r.ID).RestartCount; n != 1 {
		t.Errorf("a failure was restarted %d times", n)
	}
}

// TestUnhealthyIsEndedByNextEngine is an engine that dies while it stops what is unhealthy.
func TestUnhealthyIsEndedByNextEngine(t *testing.T) {
	w := newWorld(t)
	s := checked("trap '' TERM; sleep 1000", "CMD-SHELL", "false")
	s.Restart = container.Restart{Name: "on-unhealthy", MaxRetries: 1}
	patience := 3 // seconds, in which the engine has to die, on any machine
	s.StopTimeout = &patience
	id := w.run("", s)
	w.until(id, "being ended", func(container.State) bool { return w.index.get(id).standing().Unwell })
	w.reopen()
	w.until(id, "restarted", func(s container.State) bool {
		return w.snapshotOf(id).RestartCount == 1 && s.Status == container.Running
	})
}

// TestProbesAtOnce has many containers come due at once.
func TestProbesAtOnce(t *testing.T) {
	w := newWorld(t)
	var ids []string
	for range 20 {
		s := checked("sleep 1000", "CMD", "true")
		s.Healthcheck.Interval = 300 * time.Millisecond
		ids = append(ids, w.run("", s))
	}
	for _, id := range ids {
		w.untilHealth(id, container.Healthy)
	}
	w.execs.mu.Lock()
	n := len(w.execs.byID)
	w.execs.mu.Unlock()
	if n > 20 {
		t.Errorf("%d execs are remembered", n)
	}
}

// A container without any network is not asked over the host's, whatever network it names beside that.
func TestProbesStayInside(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to := netip.MustParseAddrPort(l.Addr().String())
	for disabled, want := range map[bool]bool{true: false, false: true} {
		i := &container.Info{Spec: &container.Spec{Network: container.Network{Mode: "host", Disabled: disabled}}} // without a process: there is no namespace of its own
		conn, err := (&Engine{}).dialerOf(nil, i)(t.Context(), to)
		if err == nil {
			conn.Close()
		}
		if (err == nil) != want {
			t.Errorf("network disabled: %v: %v", disabled, err)
		}
	}
}

package engine

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/engine/container"
	"berth/engine/store"
)

// When the machine goes down each container is ended by its own stop signal, and has its own time for it. Its policy decides whether it
// comes back, as if nobody had stopped it.
func TestMachineGoesDown(t *testing.T) {
	w := newWorld(t)
	of := func(policy, signal, line string) container.Spec {
		s := spec(line)
		s.Restart.Name, s.StopSignal = policy, signal
		return s
	}
	// A loop, not one long sleep: the shell runs its trap between two commands.
	const untilEnded = "; echo ready; while true; do sleep 0.05; done"
	patient := of("unless-stopped", "SIGUSR1", `trap 'sleep 1.5; echo saved >/root/state; exit 7' USR1; trap 'exit 8' TERM`+untilEnded)
	deaf := of("", "", `trap '' TERM`+untilEnded)
	deaf.StopTimeout = new(int)
	ids := map[string]string{}
	for name, s := range map[string]container.Spec{
		"patient": patient, "deaf": deaf,
		"failing": of("on-failure", "SIGUSR1", `trap 'exit 9' USR1`+untilEnded),
		"well":    of("on-failure", "SIGUSR1", `trap 'exit 0' USR1`+untilEnded),
		"paused":  of("always", "SIGUSR1", `trap 'exit 6' USR1`+untilEnded),
		"halted":  of("unless-stopped", "SIGUSR1", `trap 'exit 5' USR1`+untilEnded),
		"waiting": of("on-failure", "", `echo ready; exit 4`),
	} {
		id := w.run(name, s)
		ids[name] = id
		w.eventually(name+" is ready", func() bool { return strings.Contains(w.logged(id), "ready") })
	}
	if err := w.Stop(t.Context(), ids["halted"], StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Pause(t.Context(), ids["paused"]); err != nil {
		t.Fatal(err)
	}
	waiting := w.index.get(ids["waiting"])
	before := 0
	if err := waiting.change(func(at *store.Standing) error { before, at.RestartWait = at.RestartCount, time.Minute; return nil }); err != nil {
		t.Fatal(err)
	}
	w.eventually("waiting waits a minute for its restart", func() bool {
		at := waiting.standing()
		return at.State.Restarting && at.RestartCount > before // what began before is over
	})
	if err := w.Shutdown(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(t.Context(), ids["halted"]); err == nil {
		t.Error("something was started while the machine goes down")
	}
	upper := func(name, file string) string {
		b, _ := os.ReadFile(filepath.Join(w.images.root, ids[name], "upper", file))
		return string(b)
	}
	if got := upper("patient", "root/state"); got != "saved\n" {
		t.Errorf("what a container saves in its own time: %q", got)
	}
	for _, c := range []struct {
		name  string
		state string // status, code, whether a person stopped it
	}{
		{"patient", "exited 7 false"}, {"deaf", "exited 137 false"}, {"failing", "exited 9 false"}, {"well", "exited 0 false"},
		{"paused", "exited 6 false"}, {"halted", "exited 5 true"}, {"waiting", "restarting 4 false"},
	} {
		s := w.state(ids[c.name])
		if got := string(s.Status) + " " + strconv.Itoa(s.ExitCode) + " " + strconv.FormatBool(s.ManuallyStopped); got != c.state {
			t.Errorf("%s: %s, want %s", c.name, got, c.state)
		}
	}
	if x, _ := w.Explain(t.Context(), ids["deaf"]); x.Ended != "the machine was restarted or went down while it ran" {
		t.Errorf("why it ended: %q", x.Ended)
	}

	w.reopen()
	for _, name := range []string{"patient", "failing", "paused"} {
		w.eventually(name+" comes back", func() bool { return w.state(ids[name]).Status == container.Running })
	}
	for name, status := range map[string]container.Status{"deaf": container.Exited, "well": container.Exited, "halted": container.Exited, "waiting": container.Restarting} {
		if s := w.state(ids[name]); s.Status != status {
			t.Errorf("%s: %s, want %s", name, s.Status, status)
		}
	}
}

// A shutdown of the engine alone stops them the same way, and nobody is taken for stopped by a person.
func TestShutdown(t *testing.T) {
	w := newWorld(t)
	s := spec(`trap 'exit 7' USR1; echo ready; while true; do sleep 0.05; done`)
	s.StopSignal, s.Restart.Name = "SIGUSR1", "unless-stopped"
	id := w.run("", s)
	w.eventually("ready", func() bool { return strings.Contains(w.logged(id), "ready") })
	if err := w.Shutdown(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if s := w.state(id); s.Status != container.Exited || s.ExitCode != 7 || s.ManuallyStopped {
		t.Errorf("%+v", s)
	}
	if x, _ := w.Explain(t.Context(), id); x.Ended != "its first process exited with code 7" {
		t.Errorf("why it ended: %q", x.Ended)
	}
	w.reopen()
	w.eventually("it comes back", func() bool { return w.state(id).Status == container.Running })
}

package main

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"time"

	"berth/test/live"
)

// logLines is what a container of the logs bench writes: lines of 100 bytes, through cat, so that the container itself costs little.
const (
	logMB    = 64
	logCmd   = "i=0; while [ $i -lt 64 ]; do cat /tmp/mb; i=$((i+1)); done"
	logSetup = `l=$(head -c 99 /dev/zero | tr '\0' x); i=0; while [ $i -lt 10000 ]; do echo $l; i=$((i+1)); done >/tmp/mb; `
)

// logDrivers are measured, with options under which nothing but the writing counts.
var logDrivers = []struct {
	name    string
	driver  string
	options map[string]string
}{
	{"none", "none", nil},
	{"json-file", "json-file", map[string]string{"max-size": "20m", "max-file": "3"}},
	{"local, not compressed", "local", map[string]string{"max-size": "20m", "max-file": "3", "compress": "false"}},
	{"local, compressed", "local", map[string]string{"max-size": "20m", "max-file": "3"}},
}

// benchLogs measures a container that writes lines as fast as it can: from its first line to its noted end, and the processor time of
// keeper and engine.
func benchLogs(t *table, o options) error {
	return withEngine(o, func(e *live.Engine) error {
		base := 0.0
		for _, d := range logDrivers {
			wall, cpu, err := writeLogs(e, d.driver, d.options)
			if err != nil {
				return err
			}
			t.row(d.name+": a container's lines", logMB/wall, 0, "MB/s")
			t.row("… processor time of keeper and engine for a MB", cpu*1000/logMB, 0, "ms")
			if d.driver == "json-file" {
				base = wall
			}
		}
		if o.docker == "" {
			t.note("no dockerd is running: -docker HOST names one")
			return nil
		}
		for _, driver := range []string{"json-file", "local"} {
			wall, err := dockerLogs(e, o.docker, driver)
			if err != nil {
				t.note("the dockerd at " + o.docker + " is left out: " + err.Error())
				return nil
			}
			t.row("docker, "+driver+": a container's lines", logMB/wall, 0, "MB/s")
			if driver == "json-file" && wall > 0 {
				t.row("json-file: time beside docker's", base/wall, 1, "×")
			}
		}
		return nil
	})
}

// writeLogs gives seconds of wall time and of processor time.
func writeLogs(e *live.Engine, driver string, options map[string]string) (wall, cpu float64, err error) {
	id, err := started(e, map[string]any{
		"Image": "box", "Cmd": []string{"sh", "-c", logSetup + "while [ ! -e /go ]; do sleep 0.02; done; " + logCmd},
		"HostConfig": map[string]any{"NetworkMode": "none", "LogConfig": map[string]any{"Type": driver, "Config": options}},
	})
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = remove(e, id) }()
	if err := ready(e, id); err != nil {
		return 0, 0, err
	}
	pids := []int{e.PID(), e.KeeperPID()}
	var before, after time.Duration
	for _, pid := range pids {
		n, err := ticksOf(pid, 2)
		if err != nil {
			return 0, 0, err
		}
		before += n
	}
	began := time.Now()
	if err := execIn(e, id, "touch", "/go"); err != nil {
		return 0, 0, err
	}
	if err := e.Call(http.MethodPost, api+"/containers/"+id+"/wait", nil, nil); err != nil {
		return 0, 0, err
	}
	wall = time.Since(began).Seconds()
	for _, pid := range pids {
		n, err := ticksOf(pid, 2)
		if err != nil {
			return 0, 0, err
		}
		after += n
	}
	return wall, (after - before).Seconds(), nil
}

// ready waits until the container has made its megabyte.
func ready(e *live.Engine, id string) error {
	for range 500 {
		if execIn(e, id, "sh", "-c", "test $(wc -l </tmp/mb) = 10000") == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("the container of the logs bench is not ready")
}

// execIn runs a command in a container to its end.
func execIn(e *live.Engine, id string, cmd ...string) error {
	var x struct{ ID string }
	if err := e.Call(http.MethodPost, api+"/containers/"+id+"/exec", map[string]any{"Cmd": cmd, "AttachStdout": true}, &x); err != nil {
		return err
	}
	if err := e.Call(http.MethodPost, api+"/exec/"+x.ID+"/start", map[string]any{"Detach": true}, nil); err != nil {
		return err
	}
	for range 500 {
		var st struct {
			Running  bool
			ExitCode *int
		}
		if err := e.Call(http.MethodGet, api+"/exec/"+x.ID+"/json", nil, &st); err != nil {
			return err
		}
		if !st.Running && st.ExitCode != nil {
			if *st.ExitCode != 0 {
				return fmt.Errorf("%s: exit code %d", strings.Join(cmd, " "), *st.ExitCode)
			}
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return fmt.Errorf("%s does not end", strings.Join(cmd, " "))
}

// dockerLogs does the same with a dockerd, by its command line; what that takes to start a container is taken off.
func dockerLogs(e *live.Engine, host, driver string) (float64, error) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		return 0, err
	}
	if err := importBoxTo(docker, host); err != nil {
		return 0, err
	}
	run := func(line string) (float64, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		began := time.Now()
		out, err := exec.CommandContext(ctx, docker, "-H", host, "run", "-d", "--network", "none", "--log-driver", driver, "--log-opt", "max-size=20m", "--log-opt", "max-file=3", "box", "sh", "-c", line).Output()
		if err != nil {
			return 0, err
		}
		id := strings.TrimSpace(string(out))
		defer exec.Command(docker, "-H", host, "rm", "-f", id).Run()
		err = exec.CommandContext(ctx, docker, "-H", host, "wait", id).Run()
		return time.Since(began).Seconds(), err
	}
	idle, err := run(logSetup)
	if err != nil {
		return 0, err
	}
	all, err := run(logSetup + logCmd)
	return all - idle, err
}

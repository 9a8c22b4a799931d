package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"berth/test/live"
)

// api is the version spoken; none of the requests needs a newer one.
const api = "/v1.41"

// engineWith starts an engine with the image box.
func engineWith(o options) (*live.Engine, error) {
	e, err := live.Start(o.bin)
	if err != nil {
		return nil, err
	}
	if err := e.ImportBox(); err != nil {
		_ = e.Stop() // the first error is the one to tell
		return nil, err
	}
	return e, nil
}

// withEngine runs f with an engine of its own and stops it.
func withEngine(o options, f func(*live.Engine) error) error {
	e, err := engineWith(o)
	if err != nil {
		return err
	}
	err = f(e)
	if stop := e.Stop(); err == nil {
		err = stop
	}
	return err
}

type created struct{ ID string }

// create makes a container of the box without a network.
func create(e *live.Engine, cmd ...string) (string, error) {
	var c created
	err := e.Call(http.MethodPost, api+"/containers/create", map[string]any{
		"Image": "box", "Cmd": cmd, "HostConfig": map[string]any{"NetworkMode": "none"},
	}, &c)
	return c.ID, err
}

// oneLife takes a container from create to removed.
func oneLife(e *live.Engine) error {
	return oneLifeOf(e, map[string]any{"Image": "box", "Cmd": []string{"true"}, "HostConfig": map[string]any{"NetworkMode": "none"}})
}

func oneLifeOf(e *live.Engine, spec map[string]any) error {
	var c created
	if err := e.Call(http.MethodPost, api+"/containers/create", spec, &c); err != nil {
		return err
	}
	id := c.ID
	if err := e.Call(http.MethodPost, api+"/containers/"+id+"/start", nil, nil); err != nil {
		return err
	}
	var ended struct{ StatusCode int }
	if err := e.Call(http.MethodPost, api+"/containers/"+id+"/wait", nil, &ended); err != nil {
		return err
	}
	if ended.StatusCode != 0 {
		return fmt.Errorf("true ended with %d", ended.StatusCode)
	}
	return e.Call(http.MethodDelete, api+"/containers/"+id, nil, nil)
}

// benchStart measures a container's life in the engine. Client processor time is not in it; berthd's,
// the keeper's and the containers' is.
func benchStart(t *table, o options) error {
	return withEngine(o, func(e *live.Engine) error {
		for range 10 {
			if err := oneLife(e); err != nil {
				return err
			}
		}
		cpu, wall, err := repeat(e, o.n*3, oneLife)
		if err != nil {
			return err
		}
		t.row("engine + keeper + container, processor time", cpu, 12, "ms")
		t.row("wall time, median", median(wall), 10, "ms")
		t.row("wall time, 90th percentile", percentile(wall, 0.9), 0, "ms")
		return nil
	})
}

// repeat does f n times and gives the stack's processor time for each, and the wall times.
func repeat(e *live.Engine, n int, f func(*live.Engine) error) (cpu float64, wall []float64, err error) {
	before, err := stackTime(e)
	if err != nil {
		return 0, nil, err
	}
	for range n {
		began := time.Now()
		if err := f(e); err != nil {
			return 0, nil, err
		}
		wall = append(wall, milliseconds(time.Since(began)))
	}
	after, err := stackTime(e)
	if err != nil {
		return 0, nil, err
	}
	return milliseconds(after-before) / float64(n), wall, nil
}

// stackTime is the processor time of berthd and keeper, with all they have waited for.
func stackTime(e *live.Engine) (time.Duration, error) {
	engine, err := processTime(e.PID())
	if err != nil {
		return 0, err
	}
	keeper := e.KeeperPID()
	if keeper == 0 {
		return engine, nil
	}
	k, err := processTime(keeper)
	return engine + k, err
}

// processTime is the processor time of a process and of all it has waited for.
func processTime(pid int) (time.Duration, error) { return ticksOf(pid, 4) }

// ownTime is the processor time of a process alone.
func ownTime(pid int) (time.Duration, error) { return ticksOf(pid, 2) }

// ticksOf adds the first n of utime, stime, cutime and cstime of /proc/PID/stat, fields 14 to 17, in ticks of 10 ms.
func ticksOf(pid, n int) (time.Duration, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(data), ") ") // the name may hold anything
	fields := strings.Fields(rest)
	if !ok || len(fields) < 15 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, data)
	}
	var ticks int64
	for _, f := range fields[11 : 11+n] {
		v, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += v
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// benchExec measures exec create and start, attached, until its output ends.
func benchExec(t *table, o options) error {
	return withEngine(o, func(e *live.Engine) error {
		id, err := create(e, "sleep", "1000")
		if err != nil {
			return err
		}
		if err := e.Call(http.MethodPost, api+"/containers/"+id+"/start", nil, nil); err != nil {
			return err
		}
		one := func(e *live.Engine) error { return execTrue(e, id) }
		if err := one(e); err != nil {
			return err
		}
		cpu, wall, err := repeat(e, o.n*3, one)
		if err != nil {
			return err
		}
		t.row("exec true, wall time, median", median(wall), 4, "ms")
		t.row("exec true, engine + keeper + process, processor time", cpu, 0, "ms")
		return nil
	})
}

func execTrue(e *live.Engine, id string) error {
	var x created
	if err := e.Call(http.MethodPost, api+"/containers/"+id+"/exec", map[string]any{"Cmd": []string{"true"}, "AttachStdout": true}, &x); err != nil {
		return err
	}
	conn, err := net.Dial("unix", e.Socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	body := `{"Detach":false,"Tty":false}`
	fmt.Fprintf(conn, "POST %s/exec/%s/start HTTP/1.1\r\nHost: berth\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", api, x.ID, len(body), body)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("exec start: %s", resp.Status)
	}
	_, err = io.Copy(io.Discard, r)
	return err
}

// startMany starts n idle containers and gives their ids and how long each took.
func startMany(e *live.Engine, n int) (ids []string, wall []float64, err error) {
	for range n {
		id, err := create(e, "sleep", "100000")
		if err != nil {
			return ids, wall, err
		}
		began := time.Now()
		if err := e.Call(http.MethodPost, api+"/containers/"+id+"/start", nil, nil); err != nil {
			return ids, wall, err
		}
		wall = append(wall, milliseconds(time.Since(began)))
		ids = append(ids, id)
	}
	return ids, wall, nil
}

// benchMemory measures what engine and keeper hold, idle, and what each idle container adds to them.
func benchMemory(t *table, o options) error {
	return withEngine(o, func(e *live.Engine) error {
		id, _, err := startMany(e, 1) // both have worked, as in life
		if err != nil {
			return err
		}
		if err := e.Call(http.MethodDelete, api+"/containers/"+id[0]+"?force=1", nil, nil); err != nil {
			return err
		}
		time.Sleep(2 * time.Second)
		engine, keeper, err := stackPSS(e)
		if err != nil {
			return err
		}
		t.row("berthd idle, PSS", engine, 0, "MB")
		t.row("keeper idle, PSS", keeper, 0, "MB")
		t.row("both", engine+keeper, 45, "MB")
		const many = 300
		if _, _, err := startMany(e, many); err != nil {
			return err
		}
		time.Sleep(3 * time.Second)
		engineBusy, keeperBusy, err := stackPSS(e)
		if err != nil {
			return err
		}
		t.row(fmt.Sprintf("berthd for each of %d idle containers", many), (engineBusy-engine)/many, 0, "MB")
		t.row("keeper for each", (keeperBusy-keeper)/many, 0, "MB")
		t.row("both, beside the container's own process", (engineBusy+keeperBusy-engine-keeper)/many, 0.1, "MB")
		return nil
	})
}

// stackPSS is the proportional set size of berthd and of the keeper in MB.
func stackPSS(e *live.Engine) (engine, keeper float64, err error) {
	if engine, err = pss(e.PID()); err != nil {
		return 0, 0, err
	}
	keeper, err = pss(e.KeeperPID())
	return engine, keeper, err
}

func pss(pid int) (float64, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			kb, err := strconv.ParseFloat(f[1], 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/smaps_rollup has no Pss", pid)
}

type listed struct {
	ID    string
	State string
}

func list(e *live.Engine) ([]listed, error) {
	var l []listed
	return l, e.Call(http.MethodGet, api+"/containers/json?all=1", nil, &l)
}

// benchRestart kills the engine over running containers and measures until the API answers again.
func benchRestart(t *table, o options) error {
	return withEngine(o, func(e *live.Engine) error {
		const many = 100
		ids, _, err := startMany(e, many)
		if err != nil {
			return err
		}
		var wall []float64
		for range 5 {
			e.Kill()
			began := time.Now()
			if err := e.Run(); err != nil {
				return err
			}
			wall = append(wall, milliseconds(time.Since(began))/1000)
			l, err := list(e)
			if err != nil {
				return err
			}
			alive := 0
			for _, c := range l {
				if c.State == "running" {
					alive++
				}
			}
			if alive != len(ids) {
				return fmt.Errorf("%d of %d containers are told to run after the restart", alive, len(ids))
			}
		}
		t.row(fmt.Sprintf("until the API answers, %d containers alive, none lost", many), median(wall), 0.3, "s")
		return nil
	})
}

// benchMany has a thousand containers.
func benchMany(t *table, o options) error {
	return withEngine(o, func(e *live.Engine) error {
		const many, part = 1000, 100
		for range 20 { // the first starts of an engine's life are slower
			if err := oneLife(e); err != nil {
				return err
			}
		}
		var ids []string
		var wall, low, cpu []float64 // of the first part, all between, and the last
		began := time.Now()
		for _, n := range []int{part, many - 2*part, part} {
			before, err := stackTime(e)
			if err != nil {
				return err
			}
			some, took, err := startMany(e, n)
			if err != nil {
				return fmt.Errorf("after %d: %w", len(ids)+len(some), err)
			}
			after, err := stackTime(e)
			if err != nil {
				return err
			}
			ids, cpu = append(ids, some...), append(cpu, milliseconds(after-before))
			wall, low = append(wall, median(took)), append(low, percentile(took, 0.1))
		}
		t.row("created and started one after the other", float64(many)/time.Since(began).Seconds(), 0, "a second")
		t.row(fmt.Sprintf("start latency of the last %d ÷ the first %d, medians", part, part), wall[2]/wall[0], 1.2, "×")
		t.row("the same, 10th percentiles", low[2]/low[0], 0, "×")
		t.row("the same of engine and keeper's processor time, with create", cpu[2]/cpu[0], 0, "×")
		var ps []float64
		for range 20 {
			began := time.Now()
			l, err := list(e)
			if err != nil {
				return err
			}
			ps = append(ps, milliseconds(time.Since(began)))
			if len(l) != many {
				return fmt.Errorf("%d of %d are listed", len(l), many)
			}
		}
		t.row("list of all over the API, decoded", median(ps), 15, "ms")
		began = time.Now()
		for _, id := range ids {
			if err := e.Call(http.MethodDelete, api+"/containers/"+id+"?force=1", nil, nil); err != nil {
				return err
			}
		}
		t.row("removed by force", float64(many)/time.Since(began).Seconds(), 0, "a second")
		return nil
	})
}

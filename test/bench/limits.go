package main

import (
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"time"

	"berth/kernel/netns"
	"berth/test/live"
)

// benchLimits measures whether limits hold: how far what a container gets is from what it was given. The figures are relative errors;
// their budget is the one of the issue.
func benchLimits(t *table, o options) error {
	return withEngine(o, func(e *live.Engine) error {
		if err := cpuLimits(t, e); err != nil {
			return err
		}
		return rateLimits(t, e)
	})
}

// spin is a container that wants a whole processor.
func spin(e *live.Engine, host map[string]any) (string, error) {
	host["NetworkMode"] = "none"
	return started(e, map[string]any{"Image": "box", "Cmd": []string{"sh", "-c", "while :; do :; done"}, "HostConfig": host})
}

func started(e *live.Engine, spec map[string]any) (string, error) {
	var c created
	if err := e.Call(http.MethodPost, "/v1.44/containers/create", spec, &c); err != nil { // annotations are as old as that
		return "", err
	}
	return c.ID, e.Call(http.MethodPost, api+"/containers/"+c.ID+"/start", nil, nil)
}

// cpuTime is what a container has used, in seconds.
func cpuTime(e *live.Engine, id string) (float64, error) {
	var s struct {
		CPU struct {
			Usage struct {
				Total float64 `json:"total_usage"`
			} `json:"cpu_usage"`
		} `json:"cpu_stats"`
	}
	err := e.Call(http.MethodGet, api+"/containers/"+id+"/stats?stream=0&one-shot=1", nil, &s)
	return s.CPU.Usage.Total / 1e9, err
}

// used gives the processor time of containers over a while, and the while.
func used(e *live.Engine, d time.Duration, ids ...string) (took []float64, wall float64, err error) {
	before := make([]float64, len(ids))
	for i, id := range ids {
		if before[i], err = cpuTime(e, id); err != nil {
			return nil, 0, err
		}
	}
	began := time.Now()
	time.Sleep(d)
	for i, id := range ids {
		now, err := cpuTime(e, id)
		if err != nil {
			return nil, 0, err
		}
		took = append(took, now-before[i])
	}
	return took, time.Since(began).Seconds(), nil
}

func remove(e *live.Engine, ids ...string) error {
	for _, id := range ids {
		if err := e.Call(http.MethodDelete, api+"/containers/"+id+"?force=1", nil, nil); err != nil {
			return err
		}
	}
	return nil
}

func cpuLimits(t *table, e *live.Engine) error {
	half, err := spin(e, map[string]any{"NanoCpus": 5e8})
	if err != nil {
		return err
	}
	took, wall, err := used(e, 4*time.Second, half)
	if err != nil {
		return err
	}
	t.row("--cpus 0.5: processors used", took[0]/wall, 0, "")
	t.row("… error", math.Abs(took[0]/wall-0.5)/0.5, 0.15, "")
	if err := remove(e, half); err != nil {
		return err
	}
	var pair []string
	for _, shares := range []int{3072, 1024} {
		id, err := spin(e, map[string]any{"CpuShares": shares, "CpusetCpus": "0"})
		if err != nil {
			return err
		}
		pair = append(pair, id)
	}
	if took, _, err = used(e, 6*time.Second, pair...); err != nil {
		return err
	}
	t.row("--cpu-shares 3072 and 1024 on one processor: ratio", took[0]/took[1], 0, "")
	t.row("… error", math.Abs(took[0]/took[1]-3)/3, 0.15, "")
	return remove(e, pair...)
}

// rateLimits measures a container with --network-rate 10mbit, both ways.
func rateLimits(t *table, e *live.Engine) error {
	id, err := started(e, map[string]any{
		"Image": "box", "Cmd": []string{"sleep", "1000"},
		"HostConfig": map[string]any{"NetworkMode": "bridge", "Annotations": map[string]string{"berth.network.rate": "10mbit"}},
	})
	if err != nil {
		return err
	}
	var i struct{ State struct{ Pid int } }
	if err := e.Call(http.MethodGet, api+"/containers/"+id+"/json", nil, &i); err != nil {
		return err
	}
	ns, err := netns.OfProcess(i.State.Pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	var l net.Listener
	if derr := netns.Do(e.World.Outside, func() error { l, err = net.Listen("tcp4", ":5201"); return nil }); derr != nil || err != nil {
		return fmt.Errorf("%v %v", derr, err)
	}
	defer l.Close()
	for _, way := range []string{"out", "in"} {
		c, err := e.World.Dial(ns, "tcp", "198.51.100.1:5201")
		if err != nil {
			return err
		}
		s, err := l.Accept()
		if err != nil {
			return err
		}
		from, to := c, s
		if way == "in" {
			from, to = s, c
		}
		rate := through(from, to)
		c.Close()
		s.Close()
		t.row("--network-rate 10mbit, "+way+": Mbit/s", rate*8/1e6, 0, "")
		t.row("… error", math.Abs(rate*8/1e6-10)/10, 0.15, "")
	}
	return remove(e, id)
}

// through gives the bytes a second that arrive, after the buffers on the way have filled.
func through(from, to net.Conn) float64 {
	go func() {
		buf := make([]byte, 64<<10)
		for {
			if _, err := from.Write(buf); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 64<<10)
	var got int
	end := time.Now().Add(time.Second)
	for time.Now().Before(end) {
		_, _ = io.ReadAtLeast(to, buf, 1)
	}
	began := time.Now()
	for end = began.Add(4 * time.Second); time.Now().Before(end); {
		n, err := to.Read(buf)
		if err != nil {
			break
		}
		got += n
	}
	return float64(got) / time.Since(began).Seconds()
}

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"berth/test/live"
)

// benchCLI measures `run --rm` as a person types it: client, engine, keeper, container. With a dockerd
// beside, alternately with it (wall time: its many processes' processor time is not to be had from here).
func benchCLI(t *table, o options) error {
	return withEngine(o, func(e *live.Engine) error {
		berth := filepath.Join(o.bin, "berth")
		runs := map[string][]string{"berth run --rm": {berth, "-H", e.Host}}
		order := []string{"berth run --rm"}
		docker, err := exec.LookPath("docker")
		if err != nil {
			t.note("docker's command line is not installed: left out")
		} else {
			runs["docker run --rm on Berth"] = []string{docker, "-H", e.Host}
			order = append(order, "docker run --rm on Berth")
		}
		peer := ""
		if o.docker == "" {
			t.note("no dockerd is running: -docker HOST names one")
		} else if docker != "" {
			if err := importBoxTo(berth, o.docker); err != nil {
				t.note("the dockerd at " + o.docker + " is left out: " + err.Error())
			} else {
				peer = "docker run --rm on dockerd"
				runs[peer] = []string{docker, "-H", o.docker}
				order = append(order, peer)
			}
		}
		results := map[string]series{}
		before, err := stackTime(e)
		if err != nil {
			return err
		}
		for i := range o.n {
			for k := range order {
				name := order[(i+k)%len(order)]
				s, err := runCLI(runs[name])
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				results[name] = append(results[name], s)
			}
		}
		after, err := stackTime(e)
		if err != nil {
			return err
		}
		ours := o.n * (len(order) - btoi(peer != ""))
		t.row("engine + keeper + container for each run, processor time", milliseconds(after-before)/float64(ours), 0, "ms")
		for _, name := range order {
			t.row(name+", wall time", median(results[name].wall()), 0, "ms")
			t.row(name+", the client's processor time", median(results[name].cpu()), 0, "ms")
		}
		if peer != "" {
			for _, name := range order[:len(order)-1] {
				t.row(name+" ÷ "+peer+", wall time", median(ratios(results[name].wall(), results[peer].wall())), 0.2, "×")
			}
		}
		return nil
	})
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func runCLI(command []string) (sample, error) {
	cmd := exec.Command(command[0], slices.Concat(command[1:], []string{"run", "--rm", "--network", "none", "box", "true"})...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG=/nonexistent")
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return sample{}, fmt.Errorf("%w: %s", err, out.String())
	}
	wall := time.Since(began)
	usage, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return sample{cpu: time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), wall: wall}, nil
}

func importBoxTo(berth, host string) error {
	box, err := live.BoxTar()
	if err != nil {
		return err
	}
	cmd := exec.Command(berth, "-H", host, "import", "--change", `CMD ["sh"]`, "-", "box")
	cmd.Stdin = bytes.NewReader(box)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

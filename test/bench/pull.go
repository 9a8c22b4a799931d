package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// benchPull pulls images from a local registry: the floor, the engine and Docker, in turn.
func benchPull(t *table, o options) error {
	return withFreight(t, o, func(w *freight) error {
		var berth, docker, least series
		if err := forget(w.berth.pid); err != nil {
			return err
		}
		err := w.each(t, true, func(c *cargo) error {
			s, err := w.floor(w.berth.registry+"/"+sampleRepo+":"+c.tag(), c.tag())
			if err != nil {
				return fmt.Errorf("floor: %w", err)
			}
			least = append(least, s)
			unix.Sync()
			if s, err = w.berth.timed(func() error { return w.berth.pull(c.tag()) }); err != nil {
				return err
			}
			berth = append(berth, s)
			if w.docker == nil {
				return nil
			}
			unix.Sync()
			w.clean = append(w.clean, func() { w.docker.remove(w.docker.registry + "/" + sampleRepo + ":" + c.tag()) })
			s, err = w.docker.timed(func() error { return w.docker.pull(c.tag()) })
			docker = append(docker, s)
			return err
		})
		if err != nil {
			return err
		}
		most, err := peak(w.berth.pid)
		if err != nil {
			return err
		}
		t.row("pull, wall time, median", median(berth.wall())/1000, 0, "s")
		t.row("the floor: fetch, hash, decompress, hash, unpack, sync", median(least.wall())/1000, 0, "s")
		t.row("pull, processor time of berthd", median(berth.cpu())/1000, 0, "s")
		t.row("the floor's", median(least.cpu())/1000, 0, "s")
		t.row("pull ÷ floor, wall time", median(ratios(berth.wall(), least.wall())), 1.1, "×")
		t.row("pull ÷ floor, processor time", median(ratios(berth.cpu(), least.cpu())), 0, "×")
		if w.docker != nil {
			t.row("docker pull, wall time", median(docker.wall())/1000, 0, "s")
			t.row("pull ÷ docker pull, wall time", median(ratios(berth.wall(), docker.wall())), 0.7, "×")
		}
		t.row("berthd's peak memory", most, 100, "MB")
		return nil
	})
}

// floor runs this program as the floor, in the engine's network and on its file system.
func (w *freight) floor(name, round string) (sample, error) {
	dir := filepath.Join(w.engine.Dir, "floor"+round) // it goes with the engine's directory
	if err := os.Mkdir(dir, 0o700); err != nil {
		return sample{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return sample{}, err
	}
	cmd := exec.Command(self, "-floor", name, "-floor-dir", dir)
	cmd.Stderr = os.Stderr
	began := time.Now()
	if err := w.engine.World.Start(cmd); err != nil {
		return sample{}, err
	}
	if err := cmd.Wait(); err != nil {
		return sample{}, err
	}
	return sample{wall: time.Since(began), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, nil
}

// benchLoad loads images from files, as docker save wrote them.
func benchLoad(t *table, o options) error {
	return withFreight(t, o, func(w *freight) error {
		var berth, docker series
		if err := forget(w.berth.pid); err != nil {
			return err
		}
		err := w.each(t, false, func(c *cargo) error {
			s, err := w.berth.timed(func() error { return w.berth.load(c.archive()) })
			berth = append(berth, s)
			if err != nil || w.docker == nil {
				return err
			}
			unix.Sync()
			w.clean = append(w.clean, func() { w.docker.remove(c.loadedName()) })
			s, err = w.docker.timed(func() error { return w.docker.load(c.archive()) })
			docker = append(docker, s)
			return err
		})
		if err != nil {
			return err
		}
		most, err := peak(w.berth.pid)
		if err != nil {
			return err
		}
		t.row("load, wall time, median", median(berth.wall())/1000, 0, "s")
		t.row("load, processor time of berthd", median(berth.cpu())/1000, 0, "s")
		if w.docker != nil {
			t.row("docker load, wall time", median(docker.wall())/1000, 0, "s")
			t.row("load ÷ docker load, wall time", median(ratios(berth.wall(), docker.wall())), 0.6, "×")
		}
		t.row("berthd's peak memory", most, 100, "MB")
		return nil
	})
}

// benchPush pushes to a local registry: images that were loaded, whose layers are compressed on the way, and then the same to another
// repository of the same registry, which has the layers.
func benchPush(t *table, o options) error {
	return withFreight(t, o, func(w *freight) error {
		var berth, docker, copied series
		if err := forget(w.berth.pid); err != nil {
			return err
		}
		push := func(m *mover, c *cargo, repo string) (sample, error) {
			if err := m.tag(c.loadedName(), m.registry+"/"+repo, c.tag()); err != nil {
				return sample{}, err
			}
			w.clean = append(w.clean, func() { m.remove(m.registry+"/"+repo+":"+c.tag(), c.loadedName()) })
			unix.Sync()
			return m.timed(func() error { return m.push(repo, c.tag()) })
		}
		err := w.each(t, false, func(c *cargo) error {
			if err := w.berth.load(c.archive()); err != nil {
				return err
			}
			s, err := push(w.berth, c, "berth/pushed")
			if err != nil {
				return err
			}
			berth = append(berth, s)
			if s, err = push(w.berth, c, "berth/copied"); err != nil {
				return err
			}
			copied = append(copied, s)
			if w.docker == nil {
				return nil
			}
			if err := w.docker.load(c.archive()); err != nil {
				return err
			}
			s, err = push(w.docker, c, "berth/pushed")
			docker = append(docker, s)
			return err
		})
		if err != nil {
			return err
		}
		most, err := peak(w.berth.pid)
		if err != nil {
			return err
		}
		t.row("push of a loaded image, wall time, median", median(berth.wall())/1000, 0, "s")
		t.row("push of a loaded image, processor time of berthd", median(berth.cpu())/1000, 0, "s")
		if w.docker != nil {
			t.row("docker push, wall time", median(docker.wall())/1000, 0, "s")
			t.row("push ÷ docker push, wall time", median(ratios(berth.wall(), docker.wall())), 0.6, "×")
		}
		t.row("push of the same to another repository of the registry", median(copied.wall())/1000, 0, "s")
		t.row("berthd's peak memory, loading included", most, 100, "MB")
		return nil
	})
}

func (c *mover) tag(name, repo, tag string) error {
	return c.call(http.MethodPost, api+"/images/"+name+"/tag?repo="+repo+"&tag="+tag, nil)
}

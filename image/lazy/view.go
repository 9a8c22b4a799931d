package lazy

import (
	"context"
	"fmt"
	"os"
	"strings"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/kernel/fuse"
	"berth/kernel/mount"
)

// view is one FUSE mount that shows a layer.
type view struct {
	name   string // in the keeper: fuse/SHORT/N
	conn   *os.File
	server *fuse.Server
}

// show mounts a new view at path.
func (c *content) show(path string) error {
	conn, err := fuse.Mount(path, "berth-"+c.short, c.tree.has)
	if err != nil {
		return err
	}
	c.mu.Lock()
	v := &view{name: fmt.Sprintf("%s%s/%d", parkPrefix, c.short, c.next), conn: conn}
	c.next++
	c.mu.Unlock()
	if c.m.cfg.Keeper != nil {
		ctx, cancel := context.WithTimeout(context.Background(), parkPatience)
		defer cancel()
		if err := c.m.cfg.Keeper.Park(ctx, v.name, conn); err != nil {
			conn.Close()
			return fault.In(err, "park the view of a lazy layer")
		}
	}
	err = failpoint.Hit("lazy/after-park")
	if err == nil {
		err = c.serve(v, false)
	}
	if err != nil {
		conn.Close()
		c.unparkName(v.name)
	}
	return err
}

// serve starts serving a view, one that was served before when resend is set, and forgets it when its last user is gone.
func (c *content) serve(v *view, resend bool) error {
	s, err := fuse.Serve(v.conn, c, c.log)
	if err == nil && resend {
		if err = s.Resend(); err != nil {
			s.Stop()
		}
	}
	if err != nil {
		return err
	}
	v.server = s
	c.mu.Lock()
	c.views[v.name] = v
	c.mu.Unlock()
	c.stopped.Add(1)
	go func() {
		defer c.stopped.Done()
		select {
		case <-s.Done():
			c.viewGone(v)
		case <-c.over:
		}
	}()
	return nil
}

// viewGone forgets a view that nobody uses any more.
func (c *content) viewGone(v *view) {
	c.mu.Lock()
	delete(c.views, v.name)
	c.mu.Unlock()
	v.server.Stop()
	v.conn.Close()
	c.unparkName(v.name)
	go c.leave()
}

// leave forgets a layer that is whole and has no views: it is an ordinary one.
func (c *content) leave() {
	c.m.adding.Lock()
	defer c.m.adding.Unlock()
	c.mu.Lock()
	idle := c.whole.Load() && len(c.views) == 0 && !c.gone
	c.mu.Unlock()
	if idle && c.m.content(c.record.DiffID) == c {
		c.m.forget(c)
		c.end(true)
	}
}

func (c *content) viewCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.views)
}

// hide takes the layer's view from the mount table.
func (c *content) hide() {
	d := c.record.DiffID
	if info, err := c.m.cfg.Layers.Stat(d); err != nil || !info.Lazy {
		return
	}
	c.m.cfg.Layers.Shown(d, false)
	if err := mount.Unmount(c.m.cfg.Layers.FSPath(d)); err != nil {
		c.log.Warn("unmount lazy layer", "error", err)
	}
}

// unpark has the keeper forget the layer's views.
func (c *content) unpark() {
	c.mu.Lock()
	var names []string
	for n := range c.views {
		names = append(names, n)
	}
	c.mu.Unlock()
	for _, n := range names {
		c.unparkName(n)
	}
}

func (c *content) unparkName(name string) {
	if c.m.cfg.Keeper == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), parkPatience)
	defer cancel()
	if err := c.m.cfg.Keeper.Unpark(ctx, name); err != nil {
		c.log.Warn("a view stays parked in the keeper", "view", name, "error", err)
	}
}

// end stops serving and filling. With remove the views end too, for whoever may still use them, and what is kept of the layer
// is deleted; else the next process goes on.
func (c *content) end(remove bool) {
	c.mu.Lock()
	again := c.gone
	c.gone = true
	views := make([]*view, 0, len(c.views))
	for _, v := range c.views {
		views = append(views, v)
	}
	c.tell()
	stop := c.stop
	c.mu.Unlock()
	if again {
		return
	}
	close(c.over)
	if stop != nil {
		stop()
	}
	c.stopped.Wait()
	for _, v := range views {
		v.server.Stop()
		v.conn.Close()
		if remove {
			c.unparkName(v.name)
		}
	}
	if c.cache != nil {
		c.cache.close()
	}
	c.m.memory.forget(c)
	if remove {
		if err := os.RemoveAll(c.dir); err != nil {
			c.log.Warn("delete lazy layer's cache", "error", err)
		}
	}
}

// parkedViews groups the keeper's names by layer.
func parkedViews(names []string) map[string][]string {
	views := map[string][]string{}
	for _, n := range names {
		rest, ours := strings.CutPrefix(n, parkPrefix)
		if short, _, ok := strings.Cut(rest, "/"); ours && ok {
			views[short] = append(views[short], n)
		}
	}
	return views
}

// numberOf is the number at the end of a view's name.
func numberOf(name string) int {
	n := 0
	for _, c := range name[strings.LastIndexByte(name, '/')+1:] {
		if c < '0' || c > '9' || n > 1<<30 {
			return 0
		}
		n = 10*n + int(c-'0')
	}
	return n
}

package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"berth/base/fault"
	"berth/kernel/mount"
)

// sourcePatience is how long the file system below a bind's source may take to tell what is there.
const sourcePatience = 10 * time.Second

// A path on a file system whose server does not answer (NFS, FUSE) holds up whoever looks at it, and the kernel lets go of him only when
// the server answers. So who looks is a goroutine of its own, one for each path: the one that hangs is asked about by everybody after.

// asked are paths that somebody looks at.
type asked struct {
	mu   sync.Mutex
	open map[string]chan struct{} // closed when the file system has answered
}

// stat is os.Stat with a bound. fault.Unavailable: the file system does not answer.
func (a *asked) stat(ctx context.Context, path string) (fs.FileInfo, error) {
	a.mu.Lock()
	if a.open == nil {
		a.open = map[string]chan struct{}{}
	}
	pending := a.open[path]
	mine := pending == nil
	if mine {
		pending = make(chan struct{})
		a.open[path] = pending
	}
	a.mu.Unlock()
	var info fs.FileInfo
	var err error
	if mine {
		go func() {
			i, serr := os.Stat(path)
			a.mu.Lock()
			info, err = i, serr
			delete(a.open, path)
			a.mu.Unlock()
			close(pending)
		}()
	}
	t := time.NewTimer(sourcePatience)
	defer t.Stop()
	select {
	case <-pending:
	case <-t.C:
		return nil, fault.New(fault.Unavailable, "%s does not answer: %s", path, belowText(path))
	case <-ctx.Done():
		return nil, fault.Wrap(fault.KindOf(ctx.Err()), ctx.Err(), "waiting for %s, which does not answer: %s", path, belowText(path))
	}
	if !mine {
		return os.Stat(path) // it answers now
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return info, err
}

// belowText tells which mount a path is on, as far as the mount table says without asking the file system.
func belowText(path string) string {
	var best mount.Info
	all, err := mount.Self(func(i *mount.Info) bool {
		return i.Point == "/" || path == i.Point || strings.HasPrefix(path, i.Point+"/")
	})
	if err != nil {
		return "its mount cannot be told"
	}
	for _, i := range all {
		if len(i.Point) >= len(best.Point) {
			best = i
		}
	}
	return "it is on " + best.Source + " (" + best.Type + "), mounted at " + best.Point
}

// makeSource makes the directory of a bind that has none yet, as Docker does for -v.
func (e *Engine) makeSource(ctx context.Context, path string, mayMake bool) error {
	_, err := e.asked.stat(ctx, path)
	switch {
	case fault.Is(err, fault.Unavailable), fault.Is(err, fault.Deadline):
		return fault.In(err, "error while looking at mount source path '%s'", path)
	case !errors.Is(err, fs.ErrNotExist):
		return nil
	case !mayMake:
		return fault.New(fault.Invalid, "invalid mount config for type \"bind\": bind source path does not exist: %s", path)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fault.Wrap(fault.Invalid, err, "error while creating mount source path '%s'", path)
	}
	return nil
}

package engine

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/engine/container"
	"berth/engine/logs"
	"berth/engine/logs/ship"
	"berth/engine/logs/sink"
	"berth/engine/logs/sink/logplugin"
)

// Containers' output goes to collectors from their spools. A spool outlives its container where it was not shipped to its end:
//
//	DATA-ROOT/containers/ID/container-cached.log     the spool of a container
//	DATA-ROOT/logs/ID/spool, note.json               that of a removed one, shipped for leftPatience more

// leftPatience is how long a collector may be away before what removed containers left is thrown away.
const leftPatience = time.Hour

// shipments are all that is being shipped.
type shipments struct {
	mu   sync.Mutex // held over starting and stopping, which does not wait for collectors
	byID map[string]*shipment
	left sync.WaitGroup  // of removed containers
	gone map[string]bool // removed containers whose spools are being shipped
}

type shipment struct {
	*ship.Shipper
	ended <-chan struct{} // of the run that it ships
}

// shipLog has a container's spool shipped, if it has one, until the end of the run that is the present or the last one.
func (e *Engine) shipLog(c *entry) {
	r := c.record()
	cfg, err := e.logSettings(r)
	if err != nil || !cfg.Ships {
		return
	}
	s := &e.ships
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := c.endedChan()
	if old := s.byID[c.id]; old != nil {
		if old.ended == ended {
			return
		}
		old.Stop()
		delete(s.byID, c.id)
	}
	if status := c.snapshot().State.Status; e.closing() || c.isGone() || status == container.Removing || status == container.Dead {
		return // leaveLog has looked after it, or will
	}
	sc := ship.Config{
		ID: c.id, Spool: e.logPath(r), Sink: e.sink(cfg.Driver, logInfo(r)), Ended: ended, Watcher: &e.watch, Log: e.log, NonBlock: cfg.NonBlock, Buffer: cfg.Buffer,
	}
	if !cfg.NonBlock {
		sc.Older = func(ctx context.Context, inode uint64) error { return e.shippedOlder(ctx, c.id, inode) }
	}
	x, err := ship.Start(sc)
	if err != nil { // a full disk, for instance; the container would stop in the end for want of a reader
		e.log.Error("a container's output cannot be shipped for now", "container", c.id, "error", err)
		time.AfterFunc(shipRetry, func() { e.shipLog(c) })
		return
	}
	if s.byID == nil {
		s.byID = map[string]*shipment{}
	}
	s.byID[c.id] = &shipment{x, ended}
}

// shipRetry is when shipping that could not begin is tried again.
const shipRetry = 10 * time.Second

// sink is the way to a collector.
func (e *Engine) sink(driver string, info *sink.Info) sink.Sink {
	return &sink.Later{Make: func() (sink.Sink, error) {
		if e.cfg.LogPlugins == nil || logs.Known(driver) {
			return logs.NewSink(driver, info, e.cfg.JournalSocket)
		}
		find := func(ctx context.Context) (logplugin.Caller, error) {
			return e.cfg.LogPlugins.Get(ctx, driver, logplugin.Subsystem)
		}
		return logplugin.New(find, info, filepath.Join(e.cfg.ExecRoot, "logging", info.ContainerID)), nil
	}}
}

// shippedOlder tells the keeper what may be rotated away.
func (e *Engine) shippedOlder(ctx context.Context, id string, inode uint64) error {
	within, cancel := context.WithTimeout(ctx, keeperPatience)
	defer cancel()
	err := e.keeper.ShippedLog(within, id, inode)
	if fault.Is(err, fault.NotImplemented) { // an older keeper, which waits for nobody
		return nil
	}
	if err != nil && ctx.Err() == nil {
		e.log.Debug("the keeper was not told what was shipped", "container", id, "error", err)
	}
	return err
}

// status gives how the shipping of a container goes.
func (s *shipments) status(id, spool string) ship.Status {
	s.mu.Lock()
	x := s.byID[id]
	s.mu.Unlock()
	if x != nil {
		return x.Status()
	}
	_, sent, dropped, _ := ship.ReadMark(spool)
	return ship.Status{Sent: sent, Dropped: dropped}
}

// leftNote is what is needed to go on shipping the spool of a removed container.
type leftNote struct {
	Version int        `json:"version"` // 1
	Driver  string     `json:"driver"`
	Info    *sink.Info `json:"info"`
	Removed time.Time  `json:"removed"`
}

func (e *Engine) leftDir(id string) string { return filepath.Join(e.cfg.DataRoot, "logs", id) }

// leaveLog takes what was not shipped yet out of a container that is being removed, and has it shipped from there. Nothing waits for a
// collector, and nothing is lost with a container that ends at once, as one of run --rm does.
func (e *Engine) leaveLog(c *entry) {
	r := c.record()
	if cfg, err := e.logSettings(r); err != nil || !cfg.Ships {
		return
	}
	e.ships.mu.Lock()
	x := e.ships.byID[c.id]
	delete(e.ships.byID, c.id)
	e.ships.mu.Unlock()
	if x != nil {
		x.Stop()
	}
	if ship.Behind(e.logPath(r)) == 0 && !e.hasLeft(c.id) {
		return
	}
	if err := e.moveSpool(r); err != nil {
		e.log.Error("output of a removed container was not shipped and is lost", "container", c.id, "error", err)
		return
	}
	e.shipLeft(c.id)
}

// hasLeft reports whether a removal that was cut off has moved a spool already, or a part of it.
func (e *Engine) hasLeft(id string) bool {
	_, err := os.Lstat(filepath.Join(e.leftDir(id), "note.json"))
	return err == nil
}

// moveSpool moves the files of a spool, after the note: without it what was moved would be thrown away. Cut off, it is repeated by the removal,
// which goes on after the engine's next start; until then nothing of it is shipped.
func (e *Engine) moveSpool(r *container.Record) error {
	dir, spool := e.leftDir(r.ID), e.logPath(r)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(leftNote{Version: 1, Driver: r.Spec.Log.Driver, Info: logInfo(r), Removed: time.Now().UTC()})
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(dir, "note.json"), b, 0o600); err != nil {
		return err
	}
	names, err := os.ReadDir(filepath.Dir(spool))
	if err != nil {
		return err
	}
	for _, f := range names {
		suffix, ok := strings.CutPrefix(f.Name(), filepath.Base(spool))
		if !ok || strings.HasSuffix(suffix, ".gz") { // compressed is what was shipped
			continue
		}
		if err := os.Rename(filepath.Join(filepath.Dir(spool), f.Name()), filepath.Join(dir, "spool"+suffix)); err != nil {
			return err
		}
	}
	return nil
}

// shipLeft ships what a removed container left, and then removes that.
func (e *Engine) shipLeft(id string) {
	if !e.ships.claim(id) {
		return
	}
	dir := e.leftDir(id)
	var note leftNote
	b, err := os.ReadFile(filepath.Join(dir, "note.json"))
	if err == nil {
		err = json.Unmarshal(b, &note)
	}
	if err == nil && (note.Version != 1 || note.Info == nil) {
		err = fault.New(fault.Internal, "its note has version %d", note.Version)
	}
	if err != nil {
		e.log.Warn("output of a removed container is not shipped", "container", id, "error", err)
		os.RemoveAll(dir)
		return
	}
	ended := make(chan struct{})
	close(ended)
	x, err := ship.Start(ship.Config{ID: id, Spool: filepath.Join(dir, "spool"), Sink: e.sink(note.Driver, note.Info), Ended: ended, Watcher: &e.watch, Log: e.log})
	if err != nil {
		e.log.Warn("output of a removed container is not shipped before the engine's next start", "container", id, "error", err)
		return
	}
	e.ships.left.Go(func() {
		defer e.ships.unclaim(id)
		defer x.Stop()
		t := time.NewTimer(time.Until(note.Removed.Add(leftPatience)))
		defer t.Stop()
		select {
		case <-e.done:
			return // the next engine goes on
		case <-x.Done():
		case <-t.C:
			x.Stop()
			e.log.Warn("output of a removed container was not taken by its collector and is thrown away", "container", id, "bytes", x.Status().Behind)
		}
		os.RemoveAll(dir)
	})
}

// claim takes a removed container's spool, which is shipped once: by the removal, or by the engine that finds it.
func (s *shipments) claim(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone[id] {
		return false
	}
	if s.gone == nil {
		s.gone = map[string]bool{}
	}
	s.gone[id] = true
	return true
}

func (s *shipments) unclaim(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.gone, id)
}

// openLogs goes on with what the last engine shipped and compressed.
func (e *Engine) openLogs() {
	e.keeper.OnRotated(e.packLater)
	for _, c := range e.index.all() {
		r := c.record()
		cfg, err := e.logSettings(r)
		if err != nil {
			continue
		}
		if cfg.Compress {
			logs.Sweep(e.logPath(r))
			if logs.Unpacked(e.logPath(r)) {
				e.packLater(c.id)
			}
		}
		if !cfg.Ships {
			continue
		}
		if _, err := os.Lstat(e.logPath(r)); err == nil || c.snapshot().State.Status.Alive() {
			e.shipLog(c)
		}
	}
	e.work.Go(e.packLogs) // after the sweep, which knows nothing of copies under way
	left, _ := os.ReadDir(filepath.Join(e.cfg.DataRoot, "logs"))
	for _, d := range left {
		if e.index.get(d.Name()) == nil { // else its removal was cut off, goes on and does it
			e.shipLeft(d.Name())
		}
	}
}

// closeLogs ends all shipping; e.done is closed.
func (e *Engine) closeLogs() {
	e.ships.mu.Lock()
	var stops sync.WaitGroup
	for _, x := range e.ships.byID {
		stops.Go(x.Stop) // at once: the farewell of each may take seconds
	}
	stops.Wait()
	e.ships.byID = nil
	e.ships.mu.Unlock()
	e.ships.left.Wait()
}

// logChanged is called when a container has started, and when its output has ended.
func (e *Engine) logChanged(c *entry, alive bool) {
	if e.closing() {
		return
	}
	cfg, err := e.logSettings(c.record())
	if err != nil {
		return
	}
	if cfg.Compress && !alive {
		e.packLater(c.id)
	}
	if cfg.Ships {
		e.work.Go(func() { e.shipLog(c) })
	}
}

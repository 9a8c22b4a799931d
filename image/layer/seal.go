package layer

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/image/archive"
	"berth/image/archive/compress"
	"berth/image/archive/split"
	"berth/kernel/tree"
)

// A sealed diff was not unpacked from a tar but written as an overlay's upper directory. Seal makes the tar's digest
// and what rebuilds it in one pass and renames the directory into d: nothing is copied. It does not wait for the disk.
// Until the diff is durable its description stands under another name, which the next Open takes for a diff that is not whole:
//
//	ROOT/d/SHORT/pending.json   layer.json to be, see hardener
//
// Such a diff is as good as any in this process. Durable waits, and Commit does for what it finds here already.

// EmptyDiff is the diff that changes nothing: the tar without an entry.
const EmptyDiff digest.Digest = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

// Seal makes a draft a diff and gives it with a hold for the caller. below is the tree that the draft lay on, nil for none; nothing
// may be mounted on the draft any more. A draft that changed nothing gives EmptyDiff. On an error the draft is half sealed and good for
// Drop alone.
func (s *Store) Seal(ctx context.Context, d *Draft, below *tree.Dir) (Info, error) {
	info, err := s.seal(ctx, d, below)
	return info, fault.In(err, "seal layer")
}

func (s *Store) seal(ctx context.Context, d *Draft, below *tree.Dir) (Info, error) {
	if d.dir == "" {
		return Info{}, fault.New(fault.Internal, "the draft has ended")
	}
	untouched, err := d.untouched()
	if err != nil {
		return Info{}, err
	}
	if untouched && s.Retain(EmptyDiff) == nil {
		d.Drop()
		return s.Stat(EmptyDiff)
	}
	// Whatever overlayfs left there goes first: it may have other names of the upper directory's whiteouts.
	for _, name := range []string{d.Work(), d.Stubs()} {
		if err := removeAll(filepath.Split(name)); err != nil {
			return Info{}, err
		}
	}
	info, err := s.record(ctx, d, below)
	if err != nil {
		return Info{}, err
	}
	if err := writeJSON(filepath.Join(d.dir, "pending.json"), &info); err != nil {
		return Info{}, err
	}
	s.flush.staged(info.Size)
	if err := s.admitSealed(d, info); err != nil {
		return Info{}, err
	}
	if err := failpoint.Hit("layer/after-seal"); err != nil {
		s.Release(info.DiffID)
		return Info{}, err
	}
	return info, nil
}

// record makes the tar, of which the digest and what rebuilds it are kept.
func (s *Store) record(ctx context.Context, d *Draft, below *tree.Dir) (Info, error) {
	upper, err := tree.OpenDir(d.Upper())
	if err != nil {
		return Info{}, err
	}
	defer upper.Close()
	f, err := os.OpenFile(filepath.Join(d.dir, "split.zst"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	rec, err := split.NewWriter(f)
	if err != nil {
		return Info{}, err
	}
	v := compress.NewDigester(digest.SHA256)
	defer v.Close()
	done, err := archive.Seal(ctx, upper, below, v, archive.SealOptions{
		Whiteouts: s.whiteouts(), Record: rec, RootMode: d.root.Mode, RootUID: d.root.UID, RootGID: d.root.GID, Began: d.began,
	})
	if cerr := rec.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return Info{}, err
	}
	info := Info{Version: formatVersion, DiffID: v.Digest(), Size: done.Size, TarSize: done.TarSize, Marks: done.Marks}
	if done.Root {
		a, err := upper.Stat("")
		if err != nil {
			return Info{}, err
		}
		info.Root = &Attributes{Mode: a.Mode & tree.PermMask, UID: a.UID, GID: a.GID}
	}
	return info, f.Close()
}

// admitSealed gives a sealed draft its name, or drops it where the store has its diff.
func (s *Store) admitSealed(d *Draft, info Info) error {
	if err := failpoint.Hit("layer/before-seal"); err != nil {
		return err
	}
	short := shortName(info.DiffID)
	s.naming.Lock()
	defer s.naming.Unlock()
	if s.Retain(info.DiffID) == nil {
		return s.renew(d, info)
	}
	if err := s.clearName(info.DiffID, short); err != nil {
		return err
	}
	if err := os.Rename(d.dir, s.path("d", short)); err != nil {
		return err
	}
	d.dir = ""
	s.mu.Lock()
	s.diffs[info.DiffID] = &diff{info: info, short: short, holds: 1, soft: true, since: d.since}
	s.mu.Unlock()
	s.hard.later()
	return nil
}

// renew drops a sealed draft whose diff the store has, unless that one was perhaps lost on its way to the disk: then the draft takes its
// place. What is mounted on the old one stays readable until the store is opened the next time. naming is held, and the diff.
func (s *Store) renew(d *Draft, info Info) error {
	s.mu.Lock()
	l := s.diffs[info.DiffID]
	lost := l.soft && s.disk.since(l.since) != nil
	s.mu.Unlock()
	if !lost {
		d.Drop()
		return nil
	}
	if err := tree.Exchange(d.dir, s.path("d", l.short)); err != nil {
		d.Drop() // the one that is here is readable as long as nobody needs it from the disk
		return nil
	}
	if err := os.Rename(d.dir, s.path("v", newName())); err != nil {
		s.log.Warn("a lost layer that was sealed again is not put aside", "layer", info.DiffID, "err", err)
	}
	d.dir = ""
	s.mu.Lock()
	again := *s.diffs[info.DiffID] // another one for a pass that is under way, which saw the old one
	again.info, again.since = info, d.since
	s.diffs[info.DiffID] = &again
	clear(s.chains)
	s.mu.Unlock()
	s.hard.later()
	return nil
}

// untouched reports whether nothing was written to a draft, so that there is nothing to record.
func (d *Draft) untouched() (bool, error) {
	upper, err := tree.OpenDir(d.Upper())
	if err != nil {
		return false, err
	}
	defer upper.Close()
	names, err := upper.Names()
	if err != nil || len(names) > 0 {
		return false, err
	}
	st, err := upper.Stat("")
	return err == nil && Attributes{Mode: st.Mode & tree.PermMask, UID: st.UID, GID: st.GID} == d.root, err
}

// Durable waits until the diffs, which the caller holds, would survive a power cut. Diffs that are not here are no concern of it.
func (s *Store) Durable(ctx context.Context, chain ...digest.Digest) error {
	return fault.In(s.hard.wait(ctx, func() bool { return !s.anySoft(chain) }), "make layers durable")
}

func (s *Store) anySoft(chain []digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(chain, func(d digest.Digest) bool {
		l := s.diffs[d]
		return l != nil && l.soft
	})
}

// harden makes all sealed diffs durable: one sync of the file system for all their files, then their descriptions get their names,
// then the directories they stand in are synced. A diff of which something was perhaps lost on the way is never named.
func (s *Store) harden() error {
	soft := map[digest.Digest]*diff{}
	s.mu.Lock()
	for d, l := range s.diffs {
		if l.soft {
			soft[d] = l
		}
	}
	s.mu.Unlock()
	if len(soft) == 0 {
		return nil
	}
	if err := failpoint.Hit("layer/before-harden"); err != nil {
		return err
	}
	if err := s.disk.sync(s.disk.now()); err != nil {
		return err
	}
	var lost error
	var named []*diff
	for d, l := range soft {
		if err := s.disk.since(l.since); err != nil {
			lost = fault.In(err, "layer %s", d)
			continue
		}
		here, err := s.name(d, l)
		if err != nil {
			return err
		}
		if here {
			named = append(named, l)
		}
	}
	if err := failpoint.Hit("layer/after-harden"); err != nil {
		return err
	}
	if err := s.syncNames(named); err != nil {
		return err
	}
	s.mu.Lock()
	for _, l := range named {
		l.soft = false
	}
	s.mu.Unlock()
	return lost
}

// name gives a sealed diff, all of whose files are durable, its description. false: it is gone, and what has its name may have been
// sealed a moment ago.
func (s *Store) name(d digest.Digest, l *diff) (bool, error) {
	s.naming.Lock()
	defer s.naming.Unlock()
	s.mu.Lock()
	here := s.diffs[d] == l
	s.mu.Unlock()
	if !here {
		return false, nil
	}
	dir := s.path("d", l.short)
	err := os.Rename(filepath.Join(dir, "pending.json"), filepath.Join(dir, "layer.json"))
	if os.IsNotExist(err) { // replaced meanwhile, or an earlier attempt came this far
		_, err = os.Stat(filepath.Join(dir, "layer.json"))
	}
	return err == nil, err
}

func (s *Store) syncNames(named []*diff) error {
	const few = 2 // directories that are synced sooner than the whole file system
	if len(named) > few {
		return s.disk.sync(s.disk.now())
	}
	for _, l := range named {
		if err := atomicfile.SyncDir(s.path("d", l.short)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

// hardener makes sealed diffs durable in the background, many at once: soon after a seal, at once when somebody waits.
type hardener struct {
	run func() error

	mu      sync.Mutex
	timer   *time.Timer
	current *hardening // under way
	next    *hardening // starts when current ends
	closed  bool
	done    sync.WaitGroup
}

type hardening struct {
	over chan struct{}
	err  error
}

// hardenAfter is how long a sealed diff waits for others before the disk is bothered.
const hardenAfter = 500 * time.Millisecond

// later has what was sealed made durable soon.
func (h *hardener) later() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer == nil && !h.closed {
		h.timer = time.AfterFunc(hardenAfter, func() { h.start() })
	}
}

// start begins a pass that sees everything sealed before the call, or joins one that will.
func (h *hardener) start() *hardening {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	switch {
	case h.closed:
		return nil
	case h.next != nil:
		return h.next
	case h.current != nil:
		h.next = &hardening{over: make(chan struct{})}
		return h.next
	}
	h.current = &hardening{over: make(chan struct{})}
	h.done.Add(1)
	go h.work(h.current)
	return h.current
}

// work runs passes for as long as one is asked for.
func (h *hardener) work(now *hardening) {
	defer h.done.Done()
	for now != nil {
		now.err = h.run()
		close(now.over)
		h.mu.Lock()
		h.current, h.next = h.next, nil
		now = h.current
		h.mu.Unlock()
	}
}

// wait runs passes until ready.
func (h *hardener) wait(ctx context.Context, ready func() bool) error {
	if ready() {
		return nil
	}
	pass := h.start()
	if pass == nil {
		return fault.New(fault.Unavailable, "the layer store is closed")
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-pass.over:
	}
	switch {
	case ready():
		return nil // whatever became of others
	case pass.err == nil:
		return fault.New(fault.Internal, "layers are still not durable")
	}
	return pass.err
}

// close waits for the pass under way and makes a last one.
func (h *hardener) close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	h.mu.Unlock()
	h.done.Wait()
	return h.run()
}

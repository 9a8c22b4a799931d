package layer

import (
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/kernel/overlay"
	"berth/kernel/tree"
)

// Draft is an upper and a work directory that are to become a diff. It must end in Seal or Drop, and does not outlive the process.
//
//	ROOT/tmp/NAME/fs, work    upper and work directory
type Draft struct {
	s     *Store
	dir   string // "": ended
	root  Attributes
	since mark
	began time.Time // see KeepTimes
}

// Draft makes a draft whose root looks as given: as that of the tree that it will lie on.
func (s *Store) Draft(root Attributes) (*Draft, error) {
	d := &Draft{s: s, dir: s.path("tmp", newName()), root: root, since: s.disk.now()}
	if err := d.make(); err != nil {
		d.Drop()
		return nil, fault.In(err, "make layer")
	}
	return d, nil
}

func (d *Draft) make() error {
	fs, err := makeDir(d.dir, "fs")
	if err != nil {
		return err
	}
	defer fs.Close()
	if err := os.Mkdir(d.Work(), 0o700); err != nil {
		return err
	}
	if d.root == plainDir {
		return nil
	}
	if err := fs.Chown("", int(d.root.UID), int(d.root.GID)); err != nil {
		return err
	}
	return fs.Chmod("", d.root.Mode)
}

// Upper is the directory that becomes the diff's tree.
func (d *Draft) Upper() string { return filepath.Join(d.dir, "fs") }

// Work is overlayfs's work directory for it.
func (d *Draft) Work() string { return filepath.Join(d.dir, "work") }

// Stubs is a place for a lower directory that belongs to the draft's mount alone: it does not exist yet, and goes with the draft.
func (d *Draft) Stubs() string { return filepath.Join(d.dir, "stubs") }

// KeepTimes says, before anything is written, that times which are set on directories of the base are part of what changes, as those of
// files are; see archive.SealOptions.
func (d *Draft) KeepTimes() { d.began = time.Now() }

// Drop deletes the draft. Nothing may be mounted on it any more. After Seal, and a second time, it does nothing.
func (d *Draft) Drop() {
	if d.dir == "" {
		return
	}
	if err := d.s.trash.take(d.dir); err != nil {
		d.s.log.Warn("delete draft of a layer; tried again at the next start", "err", err)
	}
	d.dir = ""
}

// Stack is what there is to mount for a chain, and what it shows.
type Stack struct {
	Lower []string   // directories, the topmost first; none for an empty chain
	Root  Attributes // what the root directory is to look like
	Marks bool       // the lowest has deletions of what is not there: alone it is no tree
}

// Stack gives what to mount for a chain whose diffs the caller holds. It differs from Lower in that directories that
// no diff describes look as they should; see implied.go.
func (s *Store) Stack(chain []digest.Digest) (Stack, error) {
	if len(chain) > MaxDepth {
		return Stack{}, fault.New(fault.Invalid, "max depth exceeded")
	}
	s.mu.Lock()
	err := s.shown(chain)
	var shown []*diff
	if err == nil {
		shown, err = s.stacked(chain)
	}
	s.mu.Unlock()
	if err != nil {
		return Stack{}, err
	}
	st := Stack{Root: plainDir}
	implied, rootKnown := false, false
	for _, l := range shown {
		st.Lower = append(st.Lower, s.path("d", l.short, "fs"))
		st.Marks = l.info.Marks
		implied = implied || len(l.info.Implied) > 0
		if l.info.Root != nil && !rootKnown {
			st.Root, rootKnown = *l.info.Root, true
		}
	}
	if !implied {
		return st, nil
	}
	facts, err := s.facts(chain)
	if err != nil {
		return Stack{}, err
	}
	if facts.fixes == "" {
		return st, nil
	}
	st.Lower = append([]string{s.path("s", facts.fixes, "fs")}, st.Lower...)
	return st, nil
}

// Mount gives what a draft on these directories, the topmost first, mounts as.
func (d *Draft) Mount(lower []string) Mount {
	return Mount{Lower: lower, Upper: d.Upper(), Work: d.Work(), UserXattr: d.s.cfg.UserXattr}
}

// Attach mounts directories, nowhere, and gives the root; closing it unmounts. A mount without an upper directory is read-only, and
// needs two lower ones. What is written is not on the disk with the unmounting: who keeps a draft sees to it (Durable).
func (s *Store) Attach(m Mount) (*tree.Dir, error) {
	return s.attach(overlay.Stack{Lower: m.Lower, Upper: m.Upper, Work: m.Work, UserXattr: s.cfg.UserXattr, Volatile: m.Upper != ""})
}

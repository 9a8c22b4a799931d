package local

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/mem"

	"berth/base/fault"
	"berth/build/snapshot"
	"berth/kernel/tree"
)

// Request says which files of which directory are wanted.
type Request struct {
	Name    string   // what the client offers it as
	Hint    string   // sets directories of one name apart
	Include []string // patterns; nil: everything
	Exclude []string
	Follow  []string // paths that are wanted whatever links lead to them
	Always  bool     // every file is fetched anew, however unchanged it looks

	Meta      bool     // only the list of the files, as a file of the tree, and the contents of those that MetaSaved names
	MetaSaved []string // patterns
}

// pass is one pass over a client's files, which makes a tree like them.
type pass struct {
	w      *wire
	req    Request
	root   *tree.Dir
	told   func(current int64, done bool)
	before func() error // called once, before the first change to the tree

	old     *index // what is in the tree
	at      int    // the first record of it that is not dealt with
	gone    []byte // the directory of old that was removed last, with a slash; its records are without files
	donors  []*donor
	dirs    dirs // of the tree
	order   order
	records uint32 // that came: their numbers are what files are asked for by

	b       *builder        // the new index; nil while it is the same as old
	fresh   map[string]bool // regular files that were made, for the sake of their other names
	asked   []*file
	pending map[uint32]*file // of those asked for, by number: those whose end has not come
	links   []int            // records of other names of files, made at the end
	touched map[string]bool  // directories whose times are not what they should be
	lacking map[int]bool     // records without files
	meta    *metaList        // with Request.Meta
	writers *writers
	bytes   int64
	spoke   time.Time
}

// run does it, and gives the index of what the tree holds now: also after an error, unless that is nil, which means that nobody
// knows what it holds.
func (s *pass) run(ctx context.Context) (*index, error) {
	s.fresh, s.pending, s.touched, s.lacking = map[string]bool{}, map[uint32]*file{}, map[string]bool{}, map[int]bool{}
	s.dirs.root = s.root
	defer s.dirs.close()
	s.writers = newWriters(s.root, func(error) { s.w.cancel() })
	err := s.receive(ctx)
	if werr := s.writers.wait(); werr != nil {
		err = werr // what made us stop reading
	}
	if err != nil {
		s.w.abort(err)
		if diskError(err) {
			return nil, err
		}
		x, serr := s.salvage()
		if serr != nil {
			return nil, err
		}
		return x, err
	}
	x, err := s.settle()
	if err != nil {
		s.w.abort(err)
		return nil, err
	}
	if err := s.w.finish(); err != nil {
		return x, err
	}
	return x, nil
}

// receive handles packets until everything that was asked for has come.
func (s *pass) receive(ctx context.Context) error {
	for all := false; !all || len(s.pending) > 0; {
		p, buf, err := s.w.recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fault.New(fault.Unavailable, "the client ended the transfer early")
			}
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return err
		}
		s.progress(p.size, false)
		switch p.kind {
		case packetStat:
			if all {
				err = fault.New(fault.Invalid, "the client sent files after the last one")
			} else if p.stat != nil {
				err = s.stat(p.stat)
			} else {
				all = true
				err = s.rest()
			}
		case packetData:
			err = s.data(p, buf)
			buf = nil // the writer's now
		case packetErr:
			err = fault.New(fault.Invalid, "error from sender: %s", p.data)
		case packetFin:
			err = fault.New(fault.Invalid, "the client ended the transfer early")
		}
		if buf != nil {
			buf.Free()
		}
		if err != nil {
			return err
		}
	}
	s.progress(0, true)
	return nil
}

const progressPause = 100 * time.Millisecond

func (s *pass) progress(n int, done bool) {
	s.bytes += int64(n)
	if s.told == nil {
		return
	}
	if now := time.Now(); done || now.Sub(s.spoke) >= progressPause {
		s.spoke = now
		s.told(s.bytes, done)
	}
}

// stat handles the next file of the client's list.
func (s *pass) stat(raw []byte) error {
	id := s.records
	s.records++
	if s.meta != nil {
		return s.meta.take(id, raw)
	}
	return s.file(id, raw)
}

// rest handles the end of the list.
func (s *pass) rest() error {
	if s.meta != nil {
		if err := s.meta.replay(s); err != nil {
			return err
		}
	}
	return s.removeBefore(nil)
}

// file brings one file of the tree up to date. id is what the client calls it.
func (s *pass) file(id uint32, raw []byte) error {
	st, err := parseStat(raw)
	if err != nil {
		return err
	}
	if err := s.order.check(&st); err != nil {
		return err
	}
	if err := s.removeBefore(st.path); err != nil {
		return err
	}
	if s.at < s.old.Len() {
		was, sum := s.old.record(s.at)
		if cmp := snapshot.ComparePaths(pathOf(was), st.path); cmp == 0 {
			if s.unchanged(&st, was) {
				s.at++
				return s.keep(raw, sum)
			}
			wst, _ := parseStat(was)
			if err := s.change(); err != nil {
				return err
			}
			s.at++
			if wst.mode.IsDir() && st.mode.IsDir() {
				_, err := s.add(&st, nil)
				s.touched[string(st.path)] = true
				return err
			}
			if err := s.remove(&wst); err != nil {
				return err
			}
		}
	}
	if err := s.change(); err != nil {
		return err
	}
	return s.create(id, &st)
}

// unchanged reports whether a file is what the tree has of that name.
func (s *pass) unchanged(st *stat, was []byte) bool {
	if s.req.Always && st.regular() || !same(st.raw, was) {
		return false
	}
	return !st.hardlink() || len(s.fresh) == 0 || !s.fresh[string(st.link)]
}

// keep notes a file that stays as it is.
func (s *pass) keep(raw, sum []byte) error {
	if s.b == nil {
		return nil
	}
	_, err := s.b.add(raw, sum)
	return err
}

// change is called before the tree is changed: from now on there is a new index.
func (s *pass) change() error {
	if s.b != nil {
		return nil
	}
	if err := s.before(); err != nil {
		return err
	}
	end := len(s.old.list)
	if s.at < s.old.Len() {
		end = int(s.old.offsets[s.at])
	}
	s.b = &builder{list: append(make([]byte, 0, len(s.old.list)+4096), s.old.list[:end]...), offsets: append(make([]uint32, 0, len(s.old.offsets)+64), s.old.offsets[:s.at]...)}
	return nil
}

// removeBefore removes what the tree has and the client passed over: everything before path, or with nil everything that is left.
func (s *pass) removeBefore(path []byte) error {
	for ; s.at < s.old.Len(); s.at++ {
		was, _ := s.old.record(s.at)
		if path != nil && snapshot.ComparePaths(pathOf(was), path) >= 0 {
			return nil
		}
		if err := s.change(); err != nil {
			return err
		}
		st, _ := parseStat(was)
		if err := s.remove(&st); err != nil {
			return err
		}
	}
	return nil
}

// remove removes a file or a directory with all that is in it.
func (s *pass) remove(st *stat) error {
	if len(s.gone) > 0 && bytes.HasPrefix(st.path, s.gone) {
		return nil // went with its directory
	}
	dir, base := split(st.path)
	d, err := s.dirs.get(dir)
	if err != nil {
		return err
	}
	if st.mode.IsDir() {
		s.dirs.forget()
		if d, err = s.dirs.get(dir); err != nil {
			return err
		}
		s.gone = append(append(s.gone[:0], st.path...), '/')
	}
	s.touched[string(dir)] = true
	return d.RemoveAll(base)
}

func (s *pass) add(st *stat, sum []byte) (int, error) { return s.b.add(st.raw, sum) }

// create makes a file that is not in the tree, or asks for it.
func (s *pass) create(id uint32, st *stat) error {
	dir, base := split(st.path)
	s.touched[string(dir)] = true
	sum, linked := s.borrow(st)
	i, err := s.add(st, sum)
	if err != nil {
		return err
	}
	switch {
	case st.hardlink():
		s.links = append(s.links, i)
		s.fresh[string(st.path)] = true
		return nil
	case st.regular():
		s.fresh[string(st.path)] = true
		if linked {
			return nil
		}
		f := newFile(i, st)
		s.asked = append(s.asked, f)
		s.pending[id] = f
		s.w.post(reqPacket(id))
		return nil
	}
	d, err := s.dirs.get(dir)
	if err != nil {
		return err
	}
	if st.mode.IsDir() {
		s.touched[string(st.path)] = true
		return d.Mkdir(base, 0o700)
	}
	return makeSpecial(d, base, st)
}

// borrow makes a regular file another name of the same file in a sibling, if one has it.
func (s *pass) borrow(st *stat) (sum []byte, ok bool) {
	if len(s.donors) == 0 || !st.regular() || st.hardlink() || s.req.Always {
		return nil, false
	}
	for _, from := range s.donors {
		sum, ok := from.find(st)
		if !ok {
			continue
		}
		dir, base := split(st.path)
		theirs, err := from.dirs.get(dir)
		if err != nil {
			continue
		}
		mine, err := s.dirs.get(dir)
		if err != nil {
			return nil, false // whoever needs it next finds out why
		}
		if mine.Link(theirs, base, base) == nil {
			return sum, true
		}
	}
	return nil, false
}

// data hands a piece of a file to its writer.
func (s *pass) data(p packet, buf mem.Buffer) error {
	f := s.pending[p.id]
	if f == nil {
		buf.Free()
		return fault.New(fault.Invalid, "invalid file request %d", p.id)
	}
	if len(p.data) == 0 {
		delete(s.pending, p.id)
	}
	return s.writers.write(f, p.data, buf)
}

// settle finishes the tree when every file is there.
func (s *pass) settle() (*index, error) {
	if s.b == nil {
		return s.old, nil
	}
	for _, f := range s.asked {
		if f.done {
			copy(s.b.sum(f.record), f.digest[:])
		} else {
			s.lacking[f.record] = true
		}
	}
	if err := s.link(); err != nil {
		return nil, err
	}
	x := s.b.finish(s.lacking)
	return x, s.attributes(x)
}

// salvage finds out what the tree holds after an error: what has come, and what had not been compared yet. A client that is interrupted
// does not send everything again next time.
func (s *pass) salvage() (*index, error) {
	for ; s.b != nil && s.at < s.old.Len(); s.at++ {
		raw, sum := s.old.record(s.at)
		st, _ := parseStat(raw)
		if len(s.gone) > 0 && bytes.HasPrefix(st.path, s.gone) {
			continue
		}
		if st.hardlink() { // it may be another name of what has been replaced
			if err := s.remove(&st); err != nil {
				return nil, err
			}
			continue
		}
		if err := s.keep(raw, sum); err != nil {
			return nil, err
		}
	}
	return s.settle()
}

// link makes the other names of files.
func (s *pass) link() error {
	if len(s.links) == 0 {
		return nil
	}
	targets := dirs{root: s.root}
	defer targets.close()
	so := index{list: s.b.list, offsets: s.b.offsets}
	for _, i := range s.links {
		raw, sum := so.record(i)
		st, _ := parseStat(raw)
		target := so.Find(string(st.link))
		if target >= i {
			return badLink(&st)
		}
		traw, tsum := so.record(target)
		if !bytes.Equal(pathOf(traw), st.link) || tsum == nil {
			return badLink(&st)
		}
		if s.lacking[target] {
			s.lacking[i] = true
			continue
		}
		dir, base := split(st.path)
		tdir, tbase := split(st.link)
		from, err := targets.get(tdir)
		if err != nil {
			return err
		}
		to, err := s.dirs.get(dir)
		if err != nil {
			return err
		}
		if err := to.Link(from, tbase, base); err != nil {
			return err
		}
		copy(sum, tsum)
	}
	return nil
}

func badLink(st *stat) error {
	return fault.New(fault.Invalid, "invalid link %s to unknown path: %q", st.path, st.link)
}

// attributes gives directories their attributes, which is last because everything that is done in them changes their times.
func (s *pass) attributes(x *index) error {
	list := slices.Sorted(maps.Keys(s.touched))
	for _, path := range slices.Backward(list) {
		i := x.Find(path)
		if path == "" || i == x.Len() {
			continue
		}
		raw, _ := x.record(i)
		st, _ := parseStat(raw)
		if string(st.path) != path || !st.mode.IsDir() {
			continue // it was in the way, and is gone
		}
		d, err := s.dirs.get(st.path)
		if err != nil {
			return err
		}
		if err := setAttributes(d, "", &st); err != nil {
			return err
		}
	}
	return nil
}

// diskError reports whether an error is about our own disk, after which nobody knows what is on it.
func diskError(err error) bool {
	var pe *fs.PathError
	return errors.As(err, &pe)
}

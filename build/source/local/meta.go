package local

import (
	"bytes"
	"encoding/binary"

	"github.com/moby/patternmatcher"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/mem"

	"berth/base/fault"
	"berth/build/snapshot"
)

// metaName is the file that the list of a context's files is written to, where the contents are not wanted: each stat behind its length
// as 4 bytes, little endian, as fsutil has it.
const metaName = ".fsutil-metadata"

// maxMeta bounds the list.
const maxMeta = 1 << 30

// metaList collects the stats of a context whose contents are not wanted, but for some.
type metaList struct {
	saved   *patternmatcher.PatternMatcher // of these the contents are
	order   order
	frames  []byte
	wanted  []metaStat // what the tree is to hold
	parents []metaStat // directories on the way to the last file that are not wanted by themselves, the outermost first
}

type metaStat struct {
	id  uint32
	raw []byte
}

func newMetaList(patterns []string) (*metaList, error) {
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "patterns of files whose contents are wanted")
	}
	return &metaList{saved: m}, nil
}

// take notes the next file of the client's list.
func (m *metaList) take(id uint32, raw []byte) error {
	st, err := parseStat(raw)
	if err != nil {
		return err
	}
	if err := m.order.check(&st); err != nil {
		return err
	}
	if string(st.path) == metaName {
		return nil // it would be ours
	}
	if len(m.frames)+len(raw) > maxMeta {
		return fault.New(fault.Invalid, "the context has too many files")
	}
	m.frames = append(binary.LittleEndian.AppendUint32(m.frames, uint32(len(raw))), raw...)
	own := metaStat{id, bytes.Clone(raw)}
	for n := len(m.parents); n > 0 && !bytes.HasPrefix(st.path, append(bytes.Clone(pathOf(m.parents[n-1].raw)), '/')); n-- {
		m.parents = m.parents[:n-1]
	}
	if ok, err := m.saved.MatchesOrParentMatches(string(st.path)); err != nil || !ok {
		if st.mode.IsDir() {
			m.parents = append(m.parents, own)
		}
		return nil
	}
	m.wanted = append(append(m.wanted, m.parents...), own)
	m.parents = m.parents[:0]
	return nil
}

// replay gives the pass what the tree is to hold, the list in its place.
func (m *metaList) replay(s *pass) error {
	list := types.Stat{Path: metaName, Mode: 0o644, Size: int64(len(m.frames))}
	raw, err := list.MarshalVT()
	if err != nil {
		return err
	}
	done := false
	for _, w := range m.wanted {
		if !done && snapshot.ComparePaths([]byte(metaName), pathOf(w.raw)) < 0 {
			done = true
			if err := s.list(raw, m.frames); err != nil {
				return err
			}
		}
		if err := s.file(w.id, w.raw); err != nil {
			return err
		}
	}
	if done {
		return nil
	}
	return s.list(raw, m.frames)
}

// list writes the list: a file that no client sends, anew each time.
func (s *pass) list(raw, content []byte) error {
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
	if err := s.change(); err != nil {
		return err
	}
	if s.at < s.old.Len() {
		if was, _ := s.old.record(s.at); bytes.Equal(pathOf(was), st.path) {
			wst, _ := parseStat(was)
			s.at++
			if err := s.remove(&wst); err != nil {
				return err
			}
		}
	}
	i, err := s.add(&st, nil)
	if err != nil {
		return err
	}
	f := newFile(i, &st)
	s.asked = append(s.asked, f)
	for _, piece := range [][]byte{content, nil} {
		if piece != nil && len(piece) == 0 {
			continue
		}
		if err := s.writers.write(f, piece, mem.SliceBuffer(piece)); err != nil {
			return err
		}
	}
	return nil
}

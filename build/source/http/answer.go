package http

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// answer is what a server said the last time, without what it may have said about others. It is kept as JSON in
// ROOT/answers/HEX.json (docs/formats-build.md).
type answer struct {
	Version  int           `json:"version"`
	ETag     string        `json:"etag"`
	Digest   digest.Digest `json:"digest"`
	Name     string        `json:"name"`
	Modified *time.Time    `json:"modified,omitempty"`
}

const (
	answerVersion = 1
	answersMax    = 2000 // kept; beyond it the oldest half goes
	answerSize    = 16 << 10
)

func (s *Source) answerPath(a *address) string {
	return filepath.Join(s.cfg.Root, "answers", a.answerKey().Encoded()+".json")
}

// recall gives the answer that is kept for an address, or nil.
func (s *Source) recall(a *address) *answer {
	fi, err := os.Stat(s.answerPath(a))
	if err != nil || fi.Size() > answerSize {
		return nil
	}
	b, err := os.ReadFile(s.answerPath(a))
	if err != nil {
		return nil
	}
	var ans answer
	if json.Unmarshal(b, &ans) != nil || ans.Version != answerVersion || ans.ETag == "" || ans.Digest.Validate() != nil {
		return nil
	}
	return &ans
}

// keep keeps an answer. It needs not survive a power cut, and losing it is no error: a torn file is not JSON.
func (s *Source) keep(a *address, ans answer) {
	if ans.ETag == "" {
		return
	}
	ans.Version = answerVersion
	b, err := json.Marshal(ans)
	if err != nil || len(b) > answerSize {
		return
	}
	p := s.answerPath(a)
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		s.log.Warn("build: an answer of a server cannot be kept", "err", err)
		return
	}
	tmp := p + ".new"
	s.mu.Lock()
	defer s.mu.Unlock()
	err = os.WriteFile(tmp, b, 0o600)
	if err == nil {
		err = os.Rename(tmp, p)
	}
	if err != nil {
		s.log.Warn("build: an answer of a server cannot be kept", "err", err)
	}
	s.forget(filepath.Dir(p))
}

// forget removes the oldest answers where there are too many. Called with s.mu.
func (s *Source) forget(dir string) {
	list, err := os.ReadDir(dir)
	if err != nil || len(list) <= answersMax {
		return
	}
	type aged struct {
		name string
		at   time.Time
	}
	var all []aged
	for _, e := range list {
		if fi, err := e.Info(); err == nil && fi.Mode()&fs.ModeType == 0 {
			all = append(all, aged{e.Name(), fi.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b aged) int { return a.at.Compare(b.at) })
	for _, a := range all[:len(all)/2] {
		_ = os.Remove(filepath.Join(dir, a.name))
	}
}

// sameTag compares entity tags weakly (RFC 9110, 8.8.3.2): the same file under another compression is the same file.
func sameTag(a, b string) bool {
	a, b = strings.TrimPrefix(a, "W/"), strings.TrimPrefix(b, "W/")
	return a != "" && a == b
}

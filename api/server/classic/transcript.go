package classic

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

// Transcript tells a build in the classic way. It is for one goroutine.
type Transcript struct {
	lines []line
	print func(text string)

	at    int  // the line that is being told
	begun bool // its "Step" has been printed

	steps map[digest.Digest]*step
	order []*step // in which they were first heard of
}

// step is a vertex with what it said before its turn.
type step struct {
	digest          digest.Digest
	stage           string // "" : it is no instruction's
	index, total    int
	started, done   bool
	cached, onBuild bool
	failed          string
	held            []byte
	announced       bool
}

// New makes a transcript of a build of a Dockerfile; print takes pieces of text, with their line feeds. Of a Dockerfile that is not
// known, or not understood, it tells the steps as they come.
func New(dockerfile []byte, target string, print func(text string)) *Transcript {
	return &Transcript{lines: outline(dockerfile, target), print: print, steps: map[digest.Digest]*step{}}
}

// name of a vertex, as Dockerfiles' have: "[build 2/3] RUN make". Platforms stand before the stage.
var vertexName = regexp.MustCompile(`^\[(?:(.*\S) )? *(\d+)/(\d+)\] (ONBUILD )?`)

// Hear takes what happened and prints what it is time for.
func (t *Transcript) Hear(s *client.SolveStatus) {
	for _, v := range s.Vertexes {
		st := t.steps[v.Digest]
		if st == nil {
			st = &step{digest: v.Digest}
			if m := vertexName.FindStringSubmatch(v.Name); m != nil {
				st.stage, st.onBuild = m[1], m[4] != ""
				st.index, _ = strconv.Atoi(m[2])
				st.total, _ = strconv.Atoi(m[3])
			}
			t.steps[v.Digest] = st
			t.order = append(t.order, st)
		}
		st.started = st.started || v.Started != nil
		st.done, st.cached, st.failed = v.Completed != nil, v.Cached, v.Error
	}
	for _, l := range s.Logs {
		if st := t.steps[l.Vertex]; st != nil && st.index > 0 {
			st.held = append(st.held, l.Data...)
		}
	}
	t.advance()
}

// advance tells lines as far as their vertices have come.
func (t *Transcript) advance() {
	for t.at < len(t.lines) {
		l := &t.lines[t.at]
		if !t.begun {
			if l.index > 0 && t.stepOf(l) == nil && !t.passed(l) {
				return // not even heard of yet
			}
			t.print(fmt.Sprintf("Step %d/%d : %s\n", t.at+1, len(t.lines), l.text))
			t.begun = true
		}
		if st := t.stepOf(l); st != nil && !t.tell(st, l) {
			return
		}
		t.at, t.begun = t.at+1, false
	}
}

// stepOf finds the vertex of a line. Triggers of the base (ONBUILD) come between FROM and the stage's own instructions: the vertices'
// own count says how many there are.
func (t *Transcript) stepOf(l *line) *step {
	if l.index == 0 {
		return nil
	}
	own := 0
	for _, other := range t.lines {
		if other.stage == l.stage && other.index > 0 {
			own++
		}
	}
	for _, st := range t.order {
		if st.index == 0 || st.onBuild || !(st.stage == l.name || strings.HasSuffix(st.stage, " "+l.name) || l.name == "") {
			continue
		}
		want := l.index
		if first := t.firstIndex(l.stage); l.index > first || first == 0 {
			want += st.total - own
		}
		if st.index == want {
			return st
		}
	}
	return nil
}

// passed reports whether a line that has no vertex of its own is over: equal steps of two stages are one vertex, which has the name of the
// first. What comes later in the stage has begun.
func (t *Transcript) passed(l *line) bool {
	later := false
	for i := range t.lines {
		other := &t.lines[i]
		switch {
		case other == l:
			later = true
		case later && other.stage == l.stage:
			if st := t.stepOf(other); st != nil && st.started {
				return true
			}
		}
	}
	return false
}

// firstIndex is 1 where a stage's FROM has a vertex, else 0.
func (t *Transcript) firstIndex(stage int) int {
	for _, l := range t.lines {
		if l.stage == stage {
			return l.index
		}
	}
	return 0
}

// tell prints what a step has said, and reports whether it is over.
func (t *Transcript) tell(st *step, l *line) bool {
	short := st.digest.Encoded()
	short = short[:min(12, len(short))]
	if l.run != nil && st.started && !st.cached && !st.announced {
		t.print(" ---> Running in " + short + "\n")
		st.announced = true
	}
	if len(st.held) > 0 {
		t.print(string(st.held))
		st.held = nil
	}
	if !st.done || st.failed != "" {
		return false
	}
	if st.cached && !l.from { // a base is what it is
		t.print(" ---> Using cache\n")
	}
	t.print(" ---> " + short + "\n")
	return true
}

// Failed tells which command failed, as the classic builder worded it; "" where it was none.
func (t *Transcript) Failed(exitCode int) string {
	for i := range t.lines {
		l := &t.lines[i]
		if l.run == nil {
			continue
		}
		if st := t.stepOf(l); st != nil && st.failed != "" {
			return fmt.Sprintf("The command '%s' returned a non-zero code: %d", strings.Join(l.run, " "), exitCode)
		}
	}
	return ""
}

// Finish tells what is still untold when the build is over: the rest of the lines where it succeeded, and the output of what failed.
func (t *Transcript) Finish(ok bool) {
	t.advance()
	if ok {
		for ; t.at < len(t.lines); t.at, t.begun = t.at+1, false {
			if !t.begun {
				t.print(fmt.Sprintf("Step %d/%d : %s\n", t.at+1, len(t.lines), t.lines[t.at].text))
			}
		}
		return
	}
	for _, st := range t.order {
		if st.failed != "" && len(st.held) > 0 {
			t.print(string(st.held))
			st.held = nil
		}
	}
}

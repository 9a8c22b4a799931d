package classic

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

// Transcript tells a build in the classic way. It is for one goroutine; Learn may be called by others.
type Transcript struct {
	target string
	args   map[string]bool // that the request gives

	mu    sync.Mutex
	texts [][]byte // that may be the Dockerfile; guarded by mu

	lines    []line
	declared map[string]bool // arguments that the Dockerfile declares
	total    int             // lines that are the Dockerfile's own
	print    func(text string)

	at    int  // the line that is being told
	told  int  // how many of the Dockerfile's own are told, or being told
	begun bool // its "Step" has been printed

	steps map[digest.Digest]*step
	order []*step     // in which they were first heard of
	grown map[int]int // how many triggers of a stage are among the lines
}

// step is a vertex with what it said before its turn.
type step struct {
	digest          digest.Digest
	stage           string
	index           int // 0: it is no instruction's
	verb            string
	started, done   bool
	cached, onBuild bool
	failed          string
	held            []byte
	announced       bool
}

// Config is what a transcript is about.
type Config struct {
	Dockerfile []byte          // nil: not known yet, see Learn
	Target     string          // the stage that is built; "": the last one
	Args       map[string]bool // names of the arguments that the request gives
	Print      func(text string)
}

// New makes a transcript; Print takes pieces of text, with their line feeds.
func New(c Config) *Transcript {
	t := &Transcript{target: c.Target, args: c.Args, print: c.Print, steps: map[digest.Digest]*step{}, grown: map[int]int{}}
	if len(c.Dockerfile) > 0 {
		t.Learn(c.Dockerfile)
	}
	return t
}

// Learn tells the transcript the Dockerfile, before the first of its steps begins. The first that can be understood counts. Without any,
// nothing is told but the output of what failed.
func (t *Transcript) Learn(dockerfile []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.texts = append(t.texts, dockerfile)
}

// read makes lines of what was learned.
func (t *Transcript) read() {
	t.mu.Lock()
	texts := t.texts
	t.texts = nil
	t.mu.Unlock()
	for _, text := range texts {
		if len(t.lines) > 0 {
			return
		}
		t.lines, t.declared = outline(text, t.target)
		t.total = len(t.lines)
	}
}

// vertexName is as Dockerfiles' vertices have it: "[build 2/3] RUN make". Platforms stand before the stage.
var vertexName = regexp.MustCompile(`^\[(?:(.*\S) )? *(\d+)/\d+\] (ONBUILD )?(\w*)`)

// Hear takes what happened and prints what it is time for.
func (t *Transcript) Hear(s *client.SolveStatus) {
	t.read()
	for _, v := range s.Vertexes {
		st := t.steps[v.Digest]
		if st == nil {
			st = &step{digest: v.Digest}
			if m := vertexName.FindStringSubmatch(v.Name); m != nil {
				st.stage, st.onBuild, st.verb = m[1], m[3] != "", m[4]
				st.index, _ = strconv.Atoi(m[2])
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
	t.grow()
	for t.at < len(t.lines) {
		l := &t.lines[t.at]
		if !t.begun {
			st := t.stepOf(l)
			if l.index > 0 && st == nil && !t.passed(l) || l.trigger && !st.started && !st.done {
				return // not even heard of yet; of triggers, their number
			}
			t.begin(l)
		}
		if st := t.stepOf(l); st != nil && !t.tell(st, l) {
			return
		}
		if l.index == 0 && !l.from && !t.describe(l) {
			return
		}
		t.at, t.begun = t.at+1, false
	}
}

// begin prints the head of a line.
func (t *Transcript) begin(l *line) {
	t.begun = true
	switch {
	case !l.trigger:
		t.told++
		t.print(fmt.Sprintf("Step %d/%d : %s\n", t.told, t.total, l.text))
	case t.at == 0 || !t.lines[t.at-1].trigger: // the first of them
		n, s := t.triggers(l), ""
		if n > 1 {
			s = "s"
		}
		t.print(fmt.Sprintf("# Executing %d build trigger%s\n", n, s))
	}
}

// describe tells of an instruction without a vertex whether it was cached, which it was where the next one with a vertex is. It reports
// whether that is known already.
func (t *Transcript) describe(l *line) bool {
	for i := t.at + 1; i < len(t.lines) && t.lines[i].stage == l.stage; i++ {
		next := &t.lines[i]
		if next.index == 0 {
			continue
		}
		st := t.stepOf(next)
		switch {
		case st != nil && st.done && st.cached:
			t.print(" ---> Using cache\n")
			return true
		case st != nil && st.started, st == nil && t.passed(next):
			return true
		}
		return false
	}
	return true
}

// grow puts the triggers of bases (ONBUILD) behind their FROM, as they become known: Dockerfiles do not show them. Triggers that only
// describe the image have no vertices, and are not told.
func (t *Transcript) grow() {
	for at := 0; at < len(t.lines); at++ {
		l := t.lines[at]
		if !l.from {
			continue
		}
		place := at + 1
		for place < len(t.lines) && t.lines[place].trigger {
			place++
		}
		if here := t.at; place <= here { // it comes late
			place = here
			if t.begun {
				place++
			}
		}
		for n := t.triggers(&l); t.grown[l.stage] < n; place++ {
			t.grown[l.stage]++
			t.lines = slices.Insert(t.lines, place, line{stage: l.stage, name: l.name, index: l.index + t.grown[l.stage], trigger: true})
		}
	}
}

// triggers gives how many vertices a stage has that its base asked for. They are known with the first of the stage's vertices that is
// done: all are told before any begins.
func (t *Transcript) triggers(l *line) int {
	indexes := map[int]bool{} // of several platforms each has its own
	for _, st := range t.order {
		if st.onBuild && st.in(l.name) {
			indexes[st.index] = true
		}
	}
	return len(indexes)
}

// shift is by how much the vertices of a stage are numbered higher than their lines: triggers come between, also those that are told
// with another stage, as equal steps are one vertex; and a WORKDIR that names the root has none.
func (t *Transcript) shift(l *line) int {
	last, top := 0, 0
	for i := range t.lines {
		if other := &t.lines[i]; other.stage == l.stage && !other.trigger {
			last = max(last, other.index)
		}
	}
	for _, st := range t.order {
		if st.in(l.name) {
			top = max(top, st.index)
		}
	}
	by := max(t.triggers(l), top-last)
	for i := range t.lines {
		other := &t.lines[i]
		if other == l {
			break
		}
		if other.stage == l.stage && other.root {
			if st := t.numbered(other, other.index+by); st == nil || st.verb != other.verb {
				by--
			}
		}
	}
	return by
}

// in reports whether a vertex is a step of a stage.
func (st *step) in(stage string) bool {
	return st.index > 0 && (stage == "" || st.stage == stage || strings.HasSuffix(st.stage, " "+stage))
}

// stepOf finds the vertex of a line.
func (t *Transcript) stepOf(l *line) *step {
	switch {
	case l.index == 0:
		return nil
	case l.from || l.trigger:
		return t.numbered(l, l.index)
	}
	st := t.numbered(l, l.index+t.shift(l))
	if st != nil && l.root && st.verb != l.verb {
		return nil
	}
	return st
}

// numbered finds a vertex of a line's stage.
func (t *Transcript) numbered(l *line, index int) *step {
	for _, st := range t.order {
		if st.index == index && st.onBuild == l.trigger && st.in(l.name) {
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

// tell prints what a step has said, and reports whether it is over.
func (t *Transcript) tell(st *step, l *line) bool {
	short := st.digest.Encoded()
	short = short[:min(12, len(short))]
	if (l.run != nil || l.trigger) && st.started && !st.cached && !st.announced {
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

// missing is how the builder says that a path is not in what a step copies from: when it looks for it, and when it copies.
var missing = regexp.MustCompile(`(?:"/?|lstat /)(.*?)(?:": not found|: no such file or directory)$`)

// Missing tells what COPY or ADD did not find, as the classic builder worded it; "" where that is not why the build failed.
func (t *Transcript) Missing() string {
	for i := range t.lines {
		l := &t.lines[i]
		if l.verb != "COPY" && l.verb != "ADD" {
			continue
		}
		st := t.stepOf(l)
		if st == nil {
			continue
		}
		m := missing.FindStringSubmatch(st.failed)
		switch {
		case m == nil:
		case l.copied:
			return fmt.Sprintf("%s failed: stat %s: file does not exist", l.verb, m[1])
		default:
			return fmt.Sprintf("%s failed: file not found in build context or excluded by .dockerignore: stat %s: file does not exist", l.verb, m[1])
		}
	}
	return ""
}

// Finish tells what is still untold when the build is over: the rest of the lines where it succeeded, and the output of what failed.
func (t *Transcript) Finish(ok bool) {
	t.read()
	t.advance()
	if !ok {
		for _, st := range t.order {
			if st.failed != "" && len(st.held) > 0 {
				t.print(string(st.held))
				st.held = nil
			}
		}
		return
	}
	for ; t.at < len(t.lines); t.at, t.begun = t.at+1, false {
		if !t.begun {
			t.begin(&t.lines[t.at])
		}
	}
	if names := leftover(t.args, t.declared); len(names) > 0 && len(t.lines) > 0 {
		t.print(fmt.Sprintf("[Warning] One or more build-args %v were not consumed\n", names))
	}
}

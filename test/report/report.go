package main

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"
)

// An event is one line of go test -json.
type event struct {
	Action      string
	Package     string
	ImportPath  string // build events only
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

// A test is what is known of one test or of a package (name "").
type test struct {
	pkg, name string
	output    []string
	state     string // "", "pass", "fail", "skip"
	elapsed   time.Duration
}

func (t *test) title() string {
	if t.name == "" {
		return t.pkg
	}
	return t.pkg + " " + t.name
}

// A report gathers events and, at the end, says what they mean.
type report struct {
	out     io.Writer
	slow    time.Duration
	tests   map[string]*test
	order   []*test
	builds  map[string][]string // output of failed builds by import path
	parents map[string]bool     // tests that have subtests: not counted themselves when they passed
}

func newReport(out io.Writer, slow time.Duration) *report {
	return &report{out: out, slow: slow, tests: map[string]*test{}, builds: map[string][]string{}, parents: map[string]bool{}}
}

// line takes one line of the stream.
func (r *report) line(line []byte) {
	var e event
	if line[0] != '{' || json.Unmarshal(line, &e) != nil {
		fmt.Fprintf(r.out, "%s", line)
		return
	}
	if strings.HasPrefix(e.Action, "build-") {
		if e.Output != "" {
			r.builds[e.ImportPath] = append(r.builds[e.ImportPath], e.Output)
		}
		return
	}
	t := r.get(e.Package, e.Test)
	switch e.Action {
	case "output":
		t.output = append(t.output, e.Output)
	case "pass", "fail", "skip":
		t.state, t.elapsed = e.Action, time.Duration(e.Elapsed*float64(time.Second))
		if t.name == "" {
			r.packageEnded(t, e.FailedBuild)
		}
	}
}

func (r *report) get(pkg, name string) *test {
	key := pkg + "\x00" + name
	t := r.tests[key]
	if t == nil {
		t = &test{pkg: pkg, name: name}
		r.tests[key] = t
		r.order = append(r.order, t)
		for i := range name {
			if name[i] == '/' {
				r.parents[pkg+"\x00"+name[:i]] = true
			}
		}
	}
	return t
}

// packageEnded prints the package's line.
func (r *report) packageEnded(t *test, failedBuild string) {
	var pass, fail, skip int
	for _, other := range r.order {
		if other.pkg != t.pkg || other.name == "" || !r.counts(other) {
			continue
		}
		switch other.state {
		case "pass":
			pass++
		case "skip":
			skip++
		default: // a test that never ended died with its package
			fail++
		}
	}
	word := map[string]string{"pass": "ok", "fail": "FAIL", "skip": "none"}[t.state]
	note := ""
	if failedBuild != "" {
		note = "does not build"
		t.output = append(r.builds[failedBuild], t.output...)
	} else if t.state == "skip" {
		note = "no tests"
	} else {
		note = fmt.Sprintf("%d passed", pass)
		if fail > 0 {
			note += fmt.Sprintf(", %d failed", fail)
		}
		if skip > 0 {
			note += fmt.Sprintf(", %d skipped", skip)
		}
	}
	fmt.Fprintf(r.out, "%-4s %-44s %6.1fs  %s\n", word, t.pkg, t.elapsed.Seconds(), note)
}

// counts reports whether the totals count t: leaves do, and a parent that failed or was skipped by
// itself while all its subtests went well.
func (r *report) counts(t *test) bool {
	if t.name == "" {
		return false
	}
	if !r.parents[t.pkg+"\x00"+t.name] {
		return true
	}
	if t.state == "pass" {
		return false
	}
	for _, o := range r.order {
		if o.pkg == t.pkg && strings.HasPrefix(o.name, t.name+"/") && o.state != "pass" && o.state != "skip" {
			return false
		}
	}
	return true
}

// finish prints failures, skips and totals, and gives the exit code.
func (r *report) finish() int {
	var pass int
	var failed, skipped, slow []*test
	for _, t := range r.order {
		switch {
		case t.name == "":
			if t.state != "pass" && t.state != "skip" && !r.explained(t) {
				failed = append(failed, t)
			}
			continue
		case !r.counts(t):
			continue
		case t.state == "pass":
			pass++
		case t.state == "skip":
			skipped = append(skipped, t)
		default:
			failed = append(failed, t)
		}
		if t.elapsed > r.slow {
			slow = append(slow, t)
		}
	}
	r.printSkips(skipped)
	if len(slow) > 0 {
		sort.SliceStable(slow, func(i, j int) bool { return slow[i].elapsed > slow[j].elapsed })
		fmt.Fprintf(r.out, "\nslower than %v:\n", r.slow)
		for _, t := range slow[:min(len(slow), 15)] {
			fmt.Fprintf(r.out, "  %6.1fs  %s\n", t.elapsed.Seconds(), t.title())
		}
	}
	// Failures stand last: of a long output people see the end.
	for _, t := range failed {
		fmt.Fprintf(r.out, "\n--- FAIL %s\n%s", t.title(), indent(t.output))
		if t.state == "" {
			fmt.Fprintf(r.out, "    (it never ended)\n%s", indent(r.get(t.pkg, "").output))
		}
	}
	r.printFailed(failed)
	fmt.Fprintf(r.out, "\n%d passed, %d failed, %d skipped\n", pass, len(failed), len(skipped))
	if len(failed) > 0 || pass+len(skipped) == 0 {
		return 1
	}
	return 0
}

// lastWords bounds what printFailed repeats of a failure, in bytes: a list of a dozen is meant to fit what is kept of a long log's end.
const lastWords = 140

// printFailed lists several failures once more, a line each: their output may be longer than what people are shown of the end.
func (r *report) printFailed(failed []*test) {
	if len(failed) < 2 {
		return
	}
	fmt.Fprintf(r.out, "\nfailed:\n")
	for _, t := range failed {
		line := strings.TrimPrefix(t.title(), "berth/")
		if said := strings.Split(strings.TrimSpace(indent(t.output)), "\n"); said[0] != "" {
			last := said[len(said)-1]
			line += ": " + strings.TrimSpace(last[len(place.FindString(last)):])
		}
		fmt.Fprintf(r.out, "  %s\n", strings.ToValidUTF8(line[:min(len(line), lastWords)], ""))
	}
}

// explained reports whether a failed package has a failed test that tells why.
func (r *report) explained(pkg *test) bool {
	return slices.ContainsFunc(r.order, func(t *test) bool {
		return t.pkg == pkg.pkg && t.name != "" && t.state != "pass" && t.state != "skip"
	})
}

// printSkips groups the skipped tests by what was missing.
func (r *report) printSkips(skipped []*test) {
	if len(skipped) == 0 {
		return
	}
	byReason := map[string][]string{}
	for _, t := range skipped {
		why := reason(t.output)
		byReason[why] = append(byReason[why], t.title())
	}
	reasons := make([]string, 0, len(byReason))
	for why := range byReason {
		reasons = append(reasons, why)
	}
	sort.Strings(reasons)
	fmt.Fprintf(r.out, "\nskipped, by what was missing:\n")
	for _, why := range reasons {
		fmt.Fprintf(r.out, "  %s\n", why)
		for _, name := range byReason[why] {
			fmt.Fprintf(r.out, "      %s\n", name)
		}
	}
}

// The first line that testing prints for t.Skip, and only those, begin with the place.
var place = regexp.MustCompile(`^\s*\S+\.go:\d+: `)

// reason finds why a test was skipped in what it printed: the last line that t.Skip or t.Log wrote.
func reason(output []string) string {
	for i := len(output) - 1; i >= 0; i-- {
		if m := place.FindString(output[i]); m != "" {
			return strings.TrimSpace(output[i][len(m):])
		}
	}
	return "no reason given"
}

// indent joins what a test printed, without the lines by which testing itself tells its progress.
func indent(output []string) string {
	var b strings.Builder
	for _, line := range output {
		plain := strings.TrimSpace(line)
		if plain == "" || strings.HasPrefix(plain, "=== ") || strings.HasPrefix(plain, "--- ") || plain == "FAIL" {
			continue
		}
		b.WriteString("    " + strings.TrimRight(line, "\n") + "\n")
	}
	return b.String()
}

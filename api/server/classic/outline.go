package classic

import (
	"bytes"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"berth/build/frontend"
)

// line is one instruction of a Dockerfile that a build carries out.
type line struct {
	stage   int
	name    string   // of its stage, as vertices tell it: "build", or "stage-1"; "" where there is one stage only
	index   int      // among the stage's instructions that have a vertex, from 1; 0: it has none
	from    bool     // it is a stage's FROM
	root    bool     // it is a WORKDIR that may turn out to name the root, and has no vertex then
	trigger bool     // it is not in the Dockerfile: ONBUILD of the base
	verb    string   // RUN
	text    string   // as it was written, on one line
	run     []string // what RUN executes, for its error; nil: something else
	copied  bool     // it is a COPY from somewhere else than the context
}

// outline lists the instructions of the stages that a target needs, in their order, and the arguments that stages up to it declare. A
// Dockerfile that cannot be parsed has none: the build itself says what is wrong with it.
func outline(dockerfile []byte, target string) (lines []line, args map[string]bool) {
	if frontend.CheckDockerfile(dockerfile) != nil {
		return nil, nil
	}
	parsed, err := parser.Parse(bytes.NewReader(dockerfile))
	if err != nil {
		return nil, nil
	}
	stages, global, err := instructions.Parse(parsed.AST, nil)
	if err != nil || len(stages) == 0 {
		return nil, nil
	}
	last := len(stages) - 1
	if target != "" {
		if last = stageNamed(stages, target); last < 0 {
			return nil, nil
		}
	}
	args = map[string]bool{}
	for _, c := range global {
		declare(args, &c)
	}
	for i, needed := range reachable(stages, last) {
		if needed {
			lines = append(lines, linesOf(stages, i)...)
		}
		if i > last {
			continue
		}
		for _, c := range stages[i].Commands {
			if c, ok := c.(*instructions.ArgCommand); ok {
				declare(args, c)
			}
		}
	}
	return lines, args
}

func declare(args map[string]bool, c *instructions.ArgCommand) {
	for _, a := range c.Args {
		args[a.Key] = true
	}
}

// builtIn are the arguments that need no ARG.
var builtIn = [...]string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY", "SOURCE_DATE_EPOCH"}

// leftover gives the arguments of a request that nothing of the Dockerfile asks for, sorted.
func leftover(given, declared map[string]bool) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		upper := strings.ToUpper(name)
		if !declared[name] && !slices.Contains(builtIn[:], upper) && !strings.HasPrefix(upper, "BUILDKIT_") {
			names = append(names, name)
		}
	}
	return names
}

func linesOf(stages []instructions.Stage, i int) []line {
	s := stages[i]
	name := ""
	if len(stages) > 1 {
		if name = s.Name; name == "" {
			name = "stage-" + strconv.Itoa(i)
		}
	}
	at := 0
	from := line{stage: i, name: name, from: true, text: s.SourceCode}
	if s.BaseName != "scratch" && (stageNamed(stages[:i], s.BaseName) < 0) {
		at++
		from.index = at
	}
	out := []line{from}
	shell := []string{"/bin/sh", "-c"}
	for _, c := range s.Commands {
		l := line{stage: i, name: name, verb: strings.ToUpper(c.Name()), text: textOf(c)}
		switch c := c.(type) {
		case *instructions.CopyCommand:
			at++
			l.index, l.copied = at, c.From != ""
		case *instructions.WorkdirCommand:
			if path.Clean(c.Path) != "/" { // which is there
				at++
				l.index, l.root = at, strings.ContainsAny(c.Path, "$.")
			}
		case *instructions.AddCommand:
			at++
			l.index = at
		case *instructions.RunCommand:
			at++
			l.index = at
			l.run = c.CmdLine
			if c.PrependShell {
				l.run = append(append([]string{}, shell...), c.CmdLine...)
			}
		case *instructions.ShellCommand:
			shell = c.Shell
		}
		out = append(out, l)
	}
	return out
}

// textOf gives an instruction on one line; a heredoc's text stays away, as its name says enough.
func textOf(c instructions.Command) string {
	if s, ok := c.(interface{ String() string }); ok {
		if text := s.String(); !strings.Contains(text, "\n") {
			return text
		}
		first, _, _ := strings.Cut(s.String(), "\n")
		return first
	}
	return strings.ToUpper(c.Name())
}

// reachable tells which stages the last one needs.
func reachable(stages []instructions.Stage, last int) []bool {
	out := make([]bool, len(stages))
	var need func(i int)
	need = func(i int) {
		if i < 0 || out[i] {
			return
		}
		out[i] = true
		need(stageNamed(stages[:i], stages[i].BaseName))
		for _, c := range stages[i].Commands {
			switch c := c.(type) {
			case *instructions.CopyCommand:
				need(stageNamed(stages[:i], c.From))
			case *instructions.RunCommand:
				for _, m := range instructions.GetMounts(c) {
					need(stageNamed(stages[:i], m.From))
				}
			}
		}
	}
	need(last)
	return out
}

// stageNamed finds a stage by its name or number, the latest of a name; -1: none.
func stageNamed(stages []instructions.Stage, name string) int {
	if name == "" {
		return -1
	}
	for i := len(stages) - 1; i >= 0; i-- {
		if strings.EqualFold(stages[i].Name, name) {
			return i
		}
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < len(stages) {
		return n
	}
	return -1
}

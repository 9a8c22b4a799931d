package frontend

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"berth/base/fault"
)

// Bounds on what a Dockerfile grows to while the library translates it, which nothing can interrupt and nothing else bounds: a variable may
// stand in its own value several times, and each RUN carries all variables that it sees.
const (
	maxGrowth = 64 << 20    // bytes, for each platform
	maxWork   = 200_000_000 // steps of matching patterns against values
	maxVisits = 2_000_000   // assignments that a RUN sees, of all of them: the library goes through them for each
	maxInRow  = 2_000       // instructions that make a layer on one another; each takes the library longer than the one before
	maxTotal  = 50_000      // instructions, counted for each platform and with the triggers of bases
)

// surroundings are what a Dockerfile meets that does not stand in it.
type surroundings struct {
	largest   int64            // value of a variable that is not known by name
	env       int64            // bytes of variables that every stage has
	args      map[string]int64 // build arguments
	triggers  [][]string       // of bases
	platforms int64
}

// What an ordinary base brings: one that brings no more makes nothing worse than was reckoned before it was known.
const (
	usualValue = 128
	usualEnv   = 4 << 10
)

// surroundingsOf tells those that the options of a call bring.
func surroundingsOf(opts map[string]string) surroundings {
	s := surroundings{largest: usualValue, env: usualEnv, args: map[string]int64{}, platforms: int64(strings.Count(opts["platform"], ",")) + 1}
	for k, v := range opts {
		if name, ok := strings.CutPrefix(k, "build-arg:"); ok {
			s.args[name] = int64(len(v))
			s.env += int64(len(name) + len(v))
		}
		if strings.HasPrefix(k, "input-metadata:") {
			var m map[string][]byte
			if json.Unmarshal([]byte(v), &m) == nil {
				s.meet(configOf(m["containerimage.config"]))
			}
		}
	}
	return s
}

// imageConfig is what of an image's configuration a translation takes over.
type imageConfig struct{ Env, OnBuild []string }

func configOf(data []byte) imageConfig {
	var img struct{ Config imageConfig }
	_ = json.Unmarshal(data, &img) // told by whoever needs it
	return img.Config
}

// meet adds an image that stages may begin with, and reports whether it is worse than what was known.
func (s *surroundings) meet(c imageConfig) (worse bool) {
	env, largest := int64(0), int64(0)
	for _, e := range c.Env {
		env += int64(len(e))
		largest = max(largest, int64(len(e)))
	}
	worse = env > s.env || largest > s.largest || len(c.OnBuild) > 0
	s.env, s.largest = max(s.env, env), max(s.largest, largest)
	if len(c.OnBuild) > 0 {
		s.triggers = append(s.triggers, c.OnBuild)
	}
	return worse
}

// checkGrowth refuses a Dockerfile that grows too much: Invalid. What it reckons is never less than what comes of it; one that cannot be
// parsed is for the library to refuse. CheckDockerfile has been asked.
func checkGrowth(data []byte, s surroundings) error {
	g := growth{surroundings: s, values: map[string]int64{}, stages: map[string]stage{}}
	g.now.env = g.env
	for _, t := range s.triggers {
		before, had := g.bytes, g.now.inRow
		if err := g.file([]byte(strings.Join(t, "\n"))); err != nil {
			return err
		}
		n := int64(len(t))
		g.base = worst(g.base, stage{triggers: n, runs: g.now.inRow - had, said: g.bytes - before})
	}
	g.base.env, g.base.sets = g.now.env, g.now.sets
	g.now = stage{}
	return g.file(data)
}

func (g *growth) file(data []byte) error {
	res, err := parser.Parse(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	for _, n := range res.AST.Children {
		g.instruction(n)
		if err := g.judge(); err != nil {
			return err
		}
	}
	return nil
}

// stage is what a stage has come to.
type stage struct {
	env      int64 // bytes of its variables
	sets     int64 // assignments of variables
	inRow    int64 // instructions that make a layer, with those of the stages that it goes on with
	triggers int64 // for who goes on with it,
	runs     int64 // those of them that carry the variables, and
	said     int64 // what they come to
}

func worst(a, b stage) stage {
	return stage{max(a.env, b.env), max(a.sets, b.sets), max(a.inRow, b.inRow), max(a.triggers, b.triggers), max(a.runs, b.runs), max(a.said, b.said)}
}

type growth struct {
	surroundings
	values map[string]int64 // the largest that each variable has had anywhere
	stages map[string]stage
	name   string // of this stage
	now    stage
	base   stage // what may come of an image
	most   stage // of all
	bytes  int64
	work   int64
	visits int64
	steps  int64
}

func (g *growth) judge() error {
	growth := maxGrowth / min(g.platforms, 16)
	switch {
	case g.bytes > growth:
		return fault.New(fault.Invalid, "with the values of its variables in all places where they are used the Dockerfile grows to more than %d MiB", growth>>20)
	case g.work > maxWork:
		return fault.New(fault.Invalid, "the Dockerfile has patterns that are matched against too long values, or too many ranges of ports")
	case g.visits > maxVisits:
		return fault.New(fault.Invalid, "the Dockerfile has too many ENV and ARG before too many RUN")
	case g.now.inRow > maxInRow:
		return fault.New(fault.Invalid, "a stage of the Dockerfile has more than %d instructions that make a layer", maxInRow)
	case g.steps*g.platforms > maxTotal:
		return fault.New(fault.Invalid, "the Dockerfile has more than %d instructions, counted for each platform and with those that bases trigger", maxTotal)
	}
	return nil
}

func (g *growth) instruction(n *parser.Node) {
	g.steps++
	switch strings.ToLower(n.Value) {
	case command.From:
		g.from(n)
	case command.Env:
		for kv := n.Next; kv != nil && kv.Next != nil && kv.Next.Next != nil; kv = kv.Next.Next.Next {
			g.assign(kv.Value, g.size(kv.Next.Value))
		}
	case command.Arg:
		for a := n.Next; a != nil; a = a.Next {
			name, value, _ := strings.Cut(a.Value, "=")
			g.assign(name, max(g.size(value), g.args[name]))
		}
	case command.Run:
		g.now.inRow++
		g.visits += g.now.sets
		for _, f := range n.Flags {
			g.add(g.size(f))
		}
		g.add(g.now.env + int64(len(n.Original)))
		for _, d := range n.Heredocs {
			g.add(int64(len(d.Content)))
		}
	case command.Copy, command.Add, command.Workdir:
		g.now.inRow++
		g.add(g.size(n.Original))
		for _, d := range n.Heredocs {
			g.add(g.size(d.Content))
		}
	case command.Expose:
		g.add(g.size(n.Original))
		for w := n.Next; w != nil; w = w.Next {
			if strings.ContainsAny(w.Value, "-$") { // all ports that there are, each of which is listed
				g.work += 1 << 20
			}
		}
	case command.Onbuild:
		g.trigger(n)
	case command.Cmd, command.Entrypoint, command.Shell, command.Healthcheck, command.Maintainer:
		g.add(int64(len(n.Original)))
	default:
		g.add(g.size(n.Original))
	}
}

// trigger is an instruction for who goes on with the stage. It is reckoned as if it were one of the stage's own, too.
func (g *growth) trigger(n *parser.Node) {
	before := g.bytes
	g.add(int64(len(n.Original)))
	if n.Next != nil && len(n.Next.Children) > 0 && !strings.EqualFold(n.Next.Children[0].Value, command.Onbuild) {
		g.instruction(n.Next.Children[0])
		if strings.EqualFold(n.Next.Children[0].Value, command.Run) {
			g.now.runs++
		}
	}
	g.now.triggers++
	g.now.said += g.bytes - before
}

// from begins a stage: with what another one has come to, or with an image.
func (g *growth) from(n *parser.Node) {
	if g.name != "" {
		g.stages[g.name] = g.now
	}
	g.most = worst(g.most, g.now)
	g.add(g.size(n.Original))
	var words []string
	for w := n.Next; w != nil; w = w.Next {
		words = append(words, w.Value)
	}
	g.name = ""
	if len(words) == 3 {
		g.name = strings.ToLower(words[2])
	}
	g.now = g.base
	if len(words) > 0 {
		if parent, ok := g.stages[strings.ToLower(words[0])]; ok {
			g.now = parent
		} else if strings.Contains(words[0], "$") { // a name of either kind
			g.now = worst(g.base, g.most)
		}
	}
	g.steps += g.now.triggers
	g.now.inRow += g.now.triggers
	g.add(g.now.said + mul(g.now.runs, g.now.env))
	g.visits += mul(g.now.runs, g.now.sets)
	g.now.triggers, g.now.runs, g.now.said = 0, 0, 0
}

// assign gives a variable a value of that size, in this stage and in what is reckoned of all later ones.
func (g *growth) assign(name string, size int64) {
	if strings.ContainsFunc(name, func(r rune) bool { return !isName(r) }) { // what it is called then is not known
		size += g.size(name)
		g.largest = max(g.largest, size)
	}
	g.values[name] = max(g.values[name], size)
	g.now.env += size + int64(len(name)) + 1
	g.now.sets++
	g.add(size)
}

// tooMuch is more than any bound: what reaches it grows no further, so that nothing overflows.
const tooMuch = 1 << 40

func (g *growth) add(n int64) { g.bytes = min(g.bytes+n, tooMuch) }

// size is the most that a text can come to.
func (g *growth) size(text string) int64 {
	total := int64(len(text))
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 {
			return min(total, tooMuch)
		}
		text = text[i+1:]
		braces := strings.HasPrefix(text, "{")
		text = strings.TrimPrefix(text, "{")
		name := text[:len(text)-len(strings.TrimLeftFunc(text, isName))]
		text = text[len(name):]
		value := g.value(name)
		if c, _ := utf8.DecodeRuneInString(text); braces && (c == '/' || c == '#' || c == '%') {
			// What is found may be replaced by as much as there is, each time.
			pattern := patternIn(text)
			inner := g.size(pattern)
			g.work = min(g.work+mul(value+1, inner+1), tooMuch)
			if c == '/' {
				value = mul(value+1, inner+1)
			}
			value += inner - int64(len(pattern))
			text = text[len(pattern):]
		}
		if total = min(total+value, tooMuch); total == tooMuch {
			return total
		}
	}
}

// patternIn is the part of a text that the modifier at its begin may reach. It ends with its brace, else with the line, unless quotes or escapes
// may hide that.
func patternIn(text string) string {
	begin := 0
	if text[0] == '/' { // and a pattern before the next one, in which a brace ends nothing
		begin = len(text) - len(strings.TrimLeft(text, "/"))
		begin += strings.IndexByte(text[begin:], '/') + 1
	}
	if !strings.ContainsAny(text[:begin], "\"'\\`$") {
		if end := braceIn(text[begin:]); end >= 0 {
			return text[:begin+end]
		}
	}
	if line, _, ok := strings.Cut(text, "\n"); ok && closed(line) {
		return line
	}
	return text
}

// braceIn is where the brace is that closes what a text is in; negative where that is not simple.
func braceIn(text string) int {
	depth := 0
	for i, r := range text {
		switch r {
		case '"', '\'', '\\', '`':
			return -1
		case '{':
			depth++
		case '}':
			if depth == 0 {
				return i
			}
			depth--
		}
	}
	return -1
}

// closed reports whether no quotes of a line, and no escape at its end, hide its end. It says no where that is not simple.
func closed(line string) bool {
	in := rune(0)
	for _, r := range line {
		switch {
		case r == '\\' || r == '`' || in == '"' && r == '$':
			return false
		case in == r:
			in = 0
		case in == 0 && (r == '"' || r == '\''):
			in = r
		}
	}
	return in == 0
}

func mul(a, b int64) int64 { return min(min(a, 1<<31)*min(b, 1<<31), tooMuch) }

func isName(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' }

// value is the most that a variable can hold. One that no instruction sets is an image's, or a word of the builder's.
func (g *growth) value(name string) int64 {
	return max(g.values[name], g.args[name], g.largest)
}

package expand

import (
	"bytes"
	"errors"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

type kind int

const (
	plain   kind = iota
	include      // INCLUDE FILE [NAME=VALUE…]
	choice       // IF … ELSE IF … ELSE … END
	loop         // FOR NAME IN WORD… … END
)

// An item is an instruction, plain or ours, with the comments and empty lines before it.
type item struct {
	kind     kind
	line     int      // its first line
	lead     []string // lines before it
	lines    []string // of a plain one
	node     *parser.Node
	rest     string // of INCLUDE: all after the word; of FOR: the list
	name     string // of FOR
	branches []branch
}

// A branch is what IF, ELSE IF, ELSE or FOR governs.
type branch struct {
	line      int
	condition string
	otherwise bool // ELSE
	items     []item
	tail      []string // lines before the word that ends it
	tailLine  int
}

// parse reads a file into items; the last one may be without instruction: the comments at the end.
func parse(f *file) ([]item, rune, error) {
	text := strings.TrimSuffix(strings.ReplaceAll(string(bytes.TrimPrefix(f.text, []byte("\xef\xbb\xbf"))), "\r\n", "\n"), "\n")
	lines := strings.Split(text, "\n")
	// Our first line would end the directives, which have to come first: the parser does not see it.
	hidden := 0
	body := text
	if first, rest, _ := strings.Cut(text, "\n"); isMarker(first) {
		hidden, body = 1, rest
	}
	result, err := parser.Parse(strings.NewReader(body))
	if err != nil {
		if onlyComments(lines) {
			return []item{{kind: plain, line: 1, lines: lines}}, 0, nil
		}
		line := 1
		var at *parser.LocationError
		if errors.As(err, &at) && len(at.Locations) > 0 && len(at.Locations[0]) > 0 {
			line = max(1, at.Locations[0][0].Start.Line+hidden)
			err = errors.Unwrap(at)
		}
		return nil, 0, f.fail(line, "%w", err)
	}
	for _, n := range result.AST.Children {
		n.StartLine, n.EndLine = n.StartLine+hidden, n.EndLine+hidden
	}
	p := &treeParser{file: f, lines: lines, nodes: result.AST.Children}
	items, _, err := p.block(0)
	if err != nil {
		return nil, 0, err
	}
	if rest := lines[min(p.done, len(lines)):]; len(rest) > 0 && !(len(rest) == 1 && rest[0] == "") {
		items = append(items, item{kind: plain, line: p.done + 1, lines: rest})
	}
	return items, result.EscapeToken, nil
}

func onlyComments(lines []string) bool {
	for _, l := range lines {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
			return false
		}
	}
	return true
}

type treeParser struct {
	file  *file
	lines []string
	nodes []*parser.Node
	done  int // lines that are taken
}

// block reads items until the file ends or, below the top, a word that ends the block, which it leaves and gives with the lines before it.
func (p *treeParser) block(depth int) (items []item, ends *parser.Node, err error) {
	if depth > maxNest {
		return nil, nil, p.file.fail(p.nodes[0].StartLine, "IF and FOR nest more than %d deep", maxNest)
	}
	for len(p.nodes) > 0 {
		n := p.nodes[0]
		word := strings.ToUpper(n.Value)
		switch word {
		case "ELSE", "END":
			if depth == 0 {
				return nil, nil, p.file.fail(n.StartLine, "%s without IF or FOR", word)
			}
			return items, n, nil
		}
		p.nodes = p.nodes[1:]
		it := item{line: n.StartLine, lead: p.take(n.StartLine - 1), node: n}
		it.lines = p.take(n.EndLine)
		it.rest = strings.TrimSpace(n.Original[min(len(n.Value), len(n.Original)):])
		switch word {
		case "INCLUDE":
			it.kind = include
		case "IF":
			it.kind = choice
			err = p.choice(&it, depth)
		case "FOR":
			it.kind = loop
			err = p.loop(&it, depth)
		}
		if err != nil {
			return nil, nil, err
		}
		items = append(items, it)
	}
	return items, nil, nil
}

// take gives the lines up to number end that are not taken yet.
func (p *treeParser) take(end int) []string {
	end = min(end, len(p.lines))
	if end <= p.done {
		return nil
	}
	got := p.lines[p.done:end]
	p.done = end
	return got
}

func (p *treeParser) choice(it *item, depth int) error {
	b := branch{line: it.line, condition: it.rest}
	if b.condition == "" {
		return p.file.fail(it.line, "IF needs a condition")
	}
	for {
		word, rest, err := p.body(&b, it, depth)
		if err != nil {
			return err
		}
		it.branches = append(it.branches, b)
		if word == "END" {
			return nil
		}
		line := p.done
		if b.otherwise {
			return p.file.fail(line, "ELSE after ELSE")
		}
		b = branch{line: line, otherwise: true}
		if rest == "" {
			continue
		}
		second, condition, _ := strings.Cut(rest, " ")
		if condition = strings.TrimSpace(condition); !strings.EqualFold(second, "IF") || condition == "" {
			return p.file.fail(line, "ELSE stands alone, or before IF and a condition")
		}
		b.otherwise, b.condition = false, condition
	}
}

func (p *treeParser) loop(it *item, depth int) error {
	words := strings.Fields(it.rest)
	if len(words) < 2 || !isName(words[0]) || !strings.EqualFold(words[1], "IN") {
		return p.file.fail(it.line, "FOR needs a name and a list: FOR NAME IN WORD…")
	}
	it.name = words[0]
	rest := strings.TrimSpace(it.rest[len(words[0]):])
	it.rest = strings.TrimSpace(rest[len(words[1]):])
	b := branch{line: it.line}
	word, _, err := p.body(&b, it, depth)
	if err != nil {
		return err
	}
	if word != "END" {
		return p.file.fail(p.done, "ELSE belongs to an IF")
	}
	it.branches = []branch{b}
	return nil
}

// body reads what b governs, and the word that ends it with what follows on its line.
func (p *treeParser) body(b *branch, it *item, depth int) (word, rest string, err error) {
	items, end, err := p.block(depth + 1)
	if err != nil {
		return "", "", err
	}
	if end == nil {
		return "", "", p.file.fail(it.line, "%s has no END", strings.ToUpper(it.node.Value))
	}
	p.nodes = p.nodes[1:]
	b.items = items
	b.tailLine = p.done + 1
	b.tail = p.take(end.StartLine - 1)
	p.take(end.EndLine)
	rest = strings.TrimSpace(end.Original[min(len(end.Value), len(end.Original)):])
	word = strings.ToUpper(end.Value)
	if word == "END" && rest != "" {
		return "", "", p.file.fail(end.StartLine, "nothing may follow END")
	}
	return word, rest, nil
}

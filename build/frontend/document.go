package frontend

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// instructionsOf counts the instructions of a Dockerfile: what lies in here-documents is none. It goes through the file as the library's parser
// does, but keeps nothing: CheckDockerfile has asked for the rest already.
func instructionsOf(data []byte) int {
	n, goesOn := 0, goesOnBy(data)
	var instruction []byte
	rest := data
	next := func() (line []byte, ok bool) {
		if len(rest) == 0 {
			return nil, false
		}
		i := bytes.IndexByte(rest, '\n') + 1
		if i == 0 {
			i = len(rest)
		}
		line, rest = bytes.TrimRight(rest[:i], "\r\n"), rest[i:]
		return line, true
	}
	for {
		line, ok := next()
		if !ok {
			return n
		}
		trimmed := bytes.TrimSpace(line)
		if len(trimmed) > 0 && trimmed[0] == '#' || len(trimmed) == 0 {
			continue
		}
		if end := goesOn.FindIndex(line); end != nil {
			instruction = append(instruction, bytes.TrimRight(line, " \t")...)
			instruction = instruction[:len(instruction)-1]
			continue
		}
		n++
		instruction = append(instruction, line...)
		for _, doc := range documentsOf(string(instruction)) {
			for {
				line, ok := next()
				if !ok {
					return n
				}
				end := line
				if doc.Chomp {
					end = bytes.TrimLeft(end, "\t")
				}
				if string(end) == doc.Name {
					break
				}
			}
		}
		instruction = instruction[:0]
	}
}

var (
	escapes   = regexp.MustCompile("(?i)^#[ \t]*escape[ \t]*=[ \t]*`")
	directive = regexp.MustCompile(`^#[ \t]*[a-zA-Z][a-zA-Z0-9]*[ \t]*=`)
	backslash = regexp.MustCompile(`(^|[^\\])\\[ \t]*$`)
	backtick  = regexp.MustCompile("(^|[^`])`[ \t]*$")
)

// goesOnBy tells what a line ends in that goes on: a directive at the top of the file says so.
func goesOnBy(data []byte) *regexp.Regexp {
	for line := range bytes.Lines(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))) {
		line = bytes.TrimSpace(line)
		switch {
		case escapes.Match(line):
			return backtick
		case !directive.Match(line):
			return backslash
		}
	}
	return backslash
}

// documentsOf gives the here-documents that an instruction announces.
func documentsOf(instruction string) (docs []*parser.Heredoc) {
	if !strings.Contains(instruction, "<<") || !mayHaveDocuments(instruction) {
		return nil
	}
	lex := shell.NewLex('\\')
	lex.RawQuotes, lex.RawEscapes, lex.SkipUnsetEnv = true, true, true
	words, _ := lex.ProcessWords(instruction, shell.EnvsFromSlice(nil))
	for _, w := range words {
		if doc, err := parser.ParseHeredoc(w); err == nil && doc != nil {
			docs = append(docs, doc)
		}
	}
	return docs
}

func mayHaveDocuments(instruction string) bool {
	for word := range strings.FieldsSeq(instruction) {
		switch strings.ToLower(word) {
		case command.Onbuild:
			continue
		case command.Run, command.Copy, command.Add:
			return true
		}
		return false
	}
	return false
}

package cli

import (
	"strings"
	"unicode/utf8"
)

// helpWidth is how wide help may be: the terminal that everybody has at least.
const helpWidth = 80

// fold breaks text for helpWidth columns: paragraphs with a line that is too long are filled anew, all others stay as they are.
// Indented lines are no paragraph's: they are meant as they stand.
func fold(text string) string {
	var out, paragraph []string
	end := func() {
		out = append(out, fill(paragraph)...)
		paragraph = nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || strings.HasPrefix(line, " ") {
			end()
			out = append(out, line)
			continue
		}
		paragraph = append(paragraph, line)
	}
	end()
	return strings.Join(out, "\n")
}

func fill(lines []string) []string {
	wide := false
	for _, l := range lines {
		wide = wide || utf8.RuneCountInString(l) > helpWidth
	}
	if !wide {
		return lines
	}
	var out []string
	line := ""
	for _, word := range strings.Fields(strings.Join(lines, " ")) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > helpWidth:
			out = append(out, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(out, line)
}

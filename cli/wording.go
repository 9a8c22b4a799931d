package cli

import (
	"regexp"
	"strings"
)

// Docker's library names its own program in a few texts. These are the places; the engine's words
// and what the user typed are left alone.
var (
	prefixed = regexp.MustCompile(`^docker: `)
	pointers = regexp.MustCompile(`(Run|See) '(docker)( [^']*)?'`)
)

// ourWords turns the library's references to the docker command into references to berth.
func ourWords(text string) string {
	text = prefixed.ReplaceAllString(text, "berth: ")
	return pointers.ReplaceAllString(text, "$1 'berth$3'")
}

// ourAliases does the same for the list of aliases in a help text: "docker container ls, docker ps".
func ourAliases(list string) string {
	names := strings.Split(list, ", ")
	for i, n := range names {
		if rest, ok := strings.CutPrefix(n, "docker "); ok {
			names[i] = "berth " + rest
		}
	}
	return strings.Join(names, ", ")
}

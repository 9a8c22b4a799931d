// Package pattern matches names of repositories and tags against the patterns that people write in rules: webhooks
// and retention use it. It owns the meaning of * and **, nothing else, and never looks at what exists.
package pattern

import (
	"path"
	"slices"
	"strings"

	"berth/base/fault"
)

// Match reports whether a name fits a pattern: * stands for anything within one element of a path, ? for one
// character, [a-z] for one of some; a last element ** stands for everything below. "team/*" is team/web and not
// team/web/x; "team/**" is both; "**" is everything.
func Match(pattern, name string) bool {
	below, ok := strings.CutSuffix(pattern, "**")
	if !ok {
		fits, _ := path.Match(pattern, name)
		return fits
	}
	if below == "" {
		return true
	}
	n := strings.Count(below, "/")
	parts := strings.SplitAfterN(name, "/", n+1)
	if len(parts) <= n {
		return false
	}
	fits, _ := path.Match(below, strings.Join(parts[:n], ""))
	return fits
}

// Any reports whether a name fits one of the patterns.
func Any(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return Match(p, name) })
}

// Check refuses patterns that can match nothing by their form. Errors are Invalid.
func Check(patterns []string) error {
	for _, p := range patterns {
		before, starred := strings.CutSuffix(p, "**")
		if _, err := path.Match(before, ""); err != nil || p == "" || strings.Contains(before, "**") || starred && before != "" && !strings.HasSuffix(before, "/") {
			return fault.New(fault.Invalid, "%q is no pattern: * is anything between slashes, ** stands at the end, after a slash or alone", p)
		}
	}
	return nil
}

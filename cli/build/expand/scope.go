package expand

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// A value of an ARG. One that only the build knows has a reason.
type value struct {
	text    string
	set     bool // it has a default, or was given
	unknown string
}

// A scope holds the ARGs that can be seen at one place: those of the stage, or before the first FROM the global ones.
type scope struct {
	given   map[string]string
	global  map[string]value
	stage   map[string]value // nil before the first FROM
	stages  map[string]map[string]value
	current string
	escape  rune
}

func newScope(given map[string]string) *scope {
	return &scope{given: given, global: map[string]value{}, stages: map[string]map[string]value{}, escape: '\\'}
}

// platformArgs are known for each platform of a build, when it runs.
var platformArgs = []string{
	"BUILDPLATFORM", "BUILDOS", "BUILDOSVERSION", "BUILDARCH", "BUILDVARIANT",
	"TARGETPLATFORM", "TARGETOS", "TARGETOSVERSION", "TARGETARCH", "TARGETVARIANT", "TARGETSTAGE",
}

func (s *scope) visible() map[string]value {
	if s.stage != nil {
		return s.stage
	}
	return s.global
}

// declare follows ARG NAME or ARG NAME=DEFAULT.
func (s *scope) declare(text string) error {
	name, def, hasDef := strings.Cut(text, "=")
	name, _, err := shell.NewLex(s.escape).ProcessWord(name, s)
	if err != nil {
		return err
	}
	var v value
	switch given, ok := s.given[name]; {
	case ok:
		v = value{text: given, set: true}
	case slices.Contains(platformArgs, name):
		v = value{unknown: name + " is known when the build runs, for each platform by itself"}
	case hasDef:
		result, err := shell.NewLex(s.escape).ProcessWordWithMatches(def, s)
		if err != nil {
			return err
		}
		v = value{text: result.Result, set: true}
		for used := range result.Unmatched {
			v.unknown = fmt.Sprintf("the default of %s uses %s, which only the build knows", name, used)
		}
		for used := range result.Matched {
			if why := s.visible()[used].unknown; why != "" {
				v.unknown = why
			}
		}
	case s.stage != nil:
		v = s.global[name]
	}
	s.visible()[name] = v
	return nil
}

// from follows FROM BASE [AS NAME]: a stage begins, with the ARGs of the stage that it continues.
func (s *scope) from(words []string) error {
	s.stage = map[string]value{}
	if len(words) == 0 {
		return nil // the builder's to complain about
	}
	maps.Copy(s.stage, s.stages[strings.ToLower(words[0])])
	s.current = ""
	if len(words) == 3 && strings.EqualFold(words[1], "as") {
		s.current = strings.ToLower(words[2])
		s.stages[s.current] = s.stage
	}
	return nil
}

// Get and Keys make a scope the environment of BuildKit's word expansion.
func (s *scope) Get(name string) (string, bool) {
	v := s.visible()[name]
	return v.text, v.set
}

// Keys are the names that Get knows.
func (s *scope) Keys() []string {
	var names []string
	for name, v := range s.visible() {
		if v.set {
			names = append(names, name)
		}
	}
	return names
}

// words expands a list and splits it.
func (s *scope) words(text string) ([]string, error) {
	if err := s.check(text); err != nil {
		return nil, err
	}
	return shell.NewLex(s.escape).ProcessWords(text, s)
}

// word expands one word.
func (s *scope) word(text string) (string, error) {
	if err := s.check(text); err != nil {
		return "", err
	}
	result, _, err := shell.NewLex(s.escape).ProcessWord(text, s)
	return result, err
}

// check refuses names that text cannot mean: undeclared ones, where no default stands in for them, and those only the build knows.
func (s *scope) check(text string) error {
	for i := 0; i < len(text); i++ {
		switch {
		case rune(text[i]) == s.escape:
			i++
		case text[i] == '\'':
			if end := strings.IndexByte(text[i+1:], '\''); end >= 0 {
				i += end + 1
			}
		case text[i] == '$':
			name, hasDefault := reference(text[i:])
			if name == "" {
				continue
			}
			v, declared := s.visible()[name]
			switch {
			case v.unknown != "":
				return errors.New(v.unknown)
			case slices.Contains(platformArgs, name) && !declared:
				return fmt.Errorf("%s is known when the build runs, for each platform by itself", name)
			case !declared && !hasDefault:
				return fmt.Errorf("no ARG %s is in scope here", name)
			}
		}
	}
	return nil
}

// reference gives the name at the beginning of text, $name or ${name…}, and whether something stands in for it where it has no value.
func reference(text string) (name string, hasDefault bool) {
	if name, n := variable(text); n > 0 {
		return name, false
	}
	rest, ok := strings.CutPrefix(text, "${")
	if !ok {
		return "", false
	}
	end := 0
	for end < len(rest) && nameByte(rest[end], end == 0) {
		end++
	}
	after := strings.TrimPrefix(rest[end:], ":")
	return rest[:end], strings.HasPrefix(after, "-") || strings.HasPrefix(after, "+") || strings.HasPrefix(after, "?")
}

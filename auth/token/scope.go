package token

import (
	"slices"
	"strings"
)

// Scope is one thing and what may be done to it, as in repository:team/web:pull,push.
type Scope struct {
	Type    string   `json:"type"`
	Class   string   `json:"class,omitempty"` // "plugin" in repository(plugin):…
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// Bounds on what one request may ask for.
const (
	maxScopes = 32
	maxScope  = 512 // bytes of one scope's text
)

// ParseScopes reads scopes, each text holding one or, separated by spaces, several. What cannot be read is left out, as
// the protocol says of everything that is not granted. Scopes of one thing are put together.
func ParseScopes(texts []string) []Scope {
	var all []Scope
	for _, text := range texts {
		for _, one := range strings.Fields(text) {
			s, ok := parseScope(one)
			if !ok {
				continue
			}
			i := slices.IndexFunc(all, func(o Scope) bool { return o.Type == s.Type && o.Class == s.Class && o.Name == s.Name })
			switch {
			case i >= 0:
				all[i].Actions = union(all[i].Actions, s.Actions)
			case len(all) < maxScopes:
				all = append(all, s)
			}
		}
	}
	return all
}

// parseScope reads TYPE[(CLASS)]:NAME:ACTION[,ACTION…]. The name may hold colons: the first ends the type, the last the
// name.
func parseScope(text string) (Scope, bool) {
	if len(text) > maxScope {
		return Scope{}, false
	}
	first, last := strings.IndexByte(text, ':'), strings.LastIndexByte(text, ':')
	if first <= 0 || last <= first+1 || last == len(text)-1 {
		return Scope{}, false
	}
	s := Scope{Type: text[:first], Name: text[first+1 : last]}
	if kind, class, ok := strings.Cut(s.Type, "("); ok {
		if class, ok = strings.CutSuffix(class, ")"); !ok || class == "" || kind == "" {
			return Scope{}, false
		}
		s.Type, s.Class = kind, class
	}
	for _, a := range strings.Split(text[last+1:], ",") {
		if a == "" || !plain(a) && a != "*" {
			return Scope{}, false
		}
		s.Actions = union(s.Actions, []string{a})
	}
	if !plain(s.Type) || s.Class != "" && !plain(s.Class) {
		return Scope{}, false
	}
	for _, r := range s.Name {
		if r <= ' ' || r == 0x7f || r == '"' || r == '\\' || r == '*' {
			return Scope{}, false // a pattern is no name: nothing is granted for everything
		}
	}
	return s, true
}

// String gives the scope as it stands in a challenge.
func (s Scope) String() string {
	kind := s.Type
	if s.Class != "" {
		kind += "(" + s.Class + ")"
	}
	return kind + ":" + s.Name + ":" + strings.Join(s.Actions, ",")
}

func scopeText(all []Scope) string {
	texts := make([]string, len(all))
	for i, s := range all {
		texts[i] = s.String()
	}
	return strings.Join(texts, " ")
}

// plain reports whether a word has lower-case letters and digits only.
func plain(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

func union(a, b []string) []string {
	a = slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/base/ref"
)

// Policy is a file of rules, read. It is never changed.
type Policy struct {
	Name  string // what the file calls itself; its base name otherwise
	file  string
	rules []*Rule // in the file's order
	rest  *Rule   // for what no rule matches
}

// Rule is what one entry of the file says.
type Rule struct {
	Line    int    // in the file, from 1
	Pattern string // of full names of repositories: registry.example/team/**
	Action  Action
	Reason  string          // shown to whoever is refused
	Pinned  bool            // the name must have a digest
	Digests []digest.Digest // the image must be one of these, if there are any
	Signers []Signer        // who may have signed
	Need    int             // how many different ones of Signers must have

	file    string
	pattern pattern
}

// Action is what a rule does.
type Action string

// The actions.
const (
	Accept  Action = "accept"
	Reject  Action = "reject"
	Require Action = "require" // accept what fulfils the rule's conditions
)

// Rule gives the rule that holds for a name.
func (p *Policy) Rule(name ref.Ref) *Rule {
	best := p.rest
	spellings := spellings(name)
	for _, r := range p.rules {
		if slices.ContainsFunc(spellings, r.pattern.match) && (best == p.rest || r.pattern.above(best.pattern)) {
			best = r
		}
	}
	return best
}

// spellings gives a repository's names by which rules find it. A registry is the same one in capitals, with the port that TLS has anyway, and
// by the name of the Hub's server: rules must not be got around by writing it so.
func spellings(name ref.Ref) []string {
	domain := strings.ToLower(name.Domain)
	all := []string{domain + "/" + name.Path}
	domain = strings.TrimSuffix(domain, ":443")
	if domain == "registry-1.docker.io" || domain == "index.docker.io" {
		domain = ref.DefaultDomain
	}
	if plain := domain + "/" + name.Path; plain != all[0] {
		all = append(all, plain)
	}
	return all
}

// String gives the rule as plans print it, with its place.
func (r *Rule) String() string { return r.say() + " (" + r.place() + ")" }

// place says where the rule stands.
func (r *Rule) place() string {
	if r.Pattern == "" {
		return fmt.Sprintf("%s line %d, default", r.file, r.Line)
	}
	return fmt.Sprintf("%s line %d, %s", r.file, r.Line, r.Pattern)
}

func (r *Rule) say() string {
	if r.Action != Require {
		return string(r.Action)
	}
	var parts []string
	if r.Pinned {
		parts = append(parts, "a digest in the name")
	}
	if n := len(r.Digests); n > 0 {
		parts = append(parts, fmt.Sprintf("one of %d digests", n))
	}
	if len(r.Signers) > 0 {
		names := make([]string, len(r.Signers))
		for i, s := range r.Signers {
			names[i] = s.String()
		}
		count := "a signature of "
		if r.Need > 1 {
			count = fmt.Sprintf("signatures of %d of ", r.Need)
		}
		parts = append(parts, count+strings.Join(names, " or "))
	}
	return "require " + strings.Join(parts, " and ")
}

// pattern is a pattern of repositories, by elements. "*" is one element, or any part of one; "**" is any number of
// elements and stands last.
type pattern []string

func parsePattern(text string) (pattern, string) {
	p := pattern(strings.Split(text, "/"))
	if p[0] = strings.ToLower(p[0]); !strings.Contains(p[0], "*") {
		p[0] = strings.TrimSuffix(p[0], ":443") // see spellings
	}
	for i, e := range p {
		switch {
		case e == "":
			return nil, "has an empty element"
		case e == "**" && i < len(p)-1:
			return nil, `has "**" in the middle: it stands last`
		case e != "**" && strings.Contains(e, "**"):
			return nil, `has "**" beside other letters`
		case strings.ContainsAny(e, " \t\r\n@"):
			return nil, "is no name of repositories: neither tag nor digest"
		}
	}
	first := p[0]
	if first == "**" {
		return p, ""
	}
	if !strings.ContainsAny(first, ".:*") && first != "localhost" {
		return nil, fmt.Sprintf("begins with %q, which is no registry: write docker.io/library/… for Docker Hub's official images, docker.io/… for others", first)
	}
	if len(p) == 1 {
		p = append(p, "**") // a registry alone is all of it
	}
	return p, ""
}

// match reports whether the pattern matches a full name.
func (p pattern) match(name string) bool {
	elements := strings.Split(name, "/")
	for i, e := range p {
		if e == "**" {
			return true
		}
		if i >= len(elements) || !matchElement(e, elements[i]) {
			return false
		}
	}
	return len(p) == len(elements)
}

// matchElement matches an element with any number of stars.
func matchElement(p, s string) bool {
	parts := strings.Split(p, "*")
	if len(parts) == 1 {
		return p == s
	}
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return len(s) >= len(parts[len(parts)-1]) && strings.HasSuffix(s, parts[len(parts)-1])
}

// above reports whether p is more specific than o: element for element from the left, an exact one before one with a star, a longer
// one before a shorter, "**" last. Of equal ones the earlier in the file holds.
func (p pattern) above(o pattern) bool {
	for i := range max(len(p), len(o)) {
		a, b := p.weight(i), o.weight(i)
		if a != b {
			return a > b
		}
	}
	return false
}

// weight says how much an element tells: none is less than "**", which is less than "*", and so on.
func (p pattern) weight(i int) int {
	switch {
	case i >= len(p):
		return -1
	case p[i] == "**":
		return 0
	case strings.Contains(p[i], "*"):
		return 1 + len(p[i]) - strings.Count(p[i], "*")
	}
	return 1 << 20
}

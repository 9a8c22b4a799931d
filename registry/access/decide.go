package access

import (
	"fmt"
	"slices"
	"strings"
)

// Verdict is a decision and why it was made.
type Verdict struct {
	Allowed bool   `json:"allowed"`
	Why     string `json:"why"`
}

func yes(format string, args ...any) Verdict { return Verdict{true, fmt.Sprintf(format, args...)} }
func no(format string, args ...any) Verdict  { return Verdict{false, fmt.Sprintf(format, args...)} }

// Decide says whether the subject may do something to a repository, which need not exist. In this order:
//
//  1. A token that is not good for it: no.
//  2. An administrator of the site: yes.
//  3. A role that the repository gives, or its organisation: yes, if it has the action.
//  4. A pull from what is public, or, signed in, internal: yes.
//  5. A name in an organisation that nobody has made: its own user may everything; whoever has signed in may pull and
//     push where the site says so and the repository was not made private by itself.
//  6. No.
func (r Rules) Decide(s Subject, repository string, a Action) Verdict {
	if err := CheckRepository(repository); err != nil {
		return no("%v", err)
	}
	if !slices.Contains(Actions(), a) {
		return no("%q is no action", a)
	}
	if !s.Limit.Has(repository, a) {
		return no("the token is not good for %s on %s", a, repository)
	}
	if who, ok := r.admin(s); ok {
		return yes("%s", who)
	}
	org := OrganisationOf(repository)
	repo := r.Repositories[repository]
	if v, ok := r.granted(s, repo.Grants, a, "repository "+repository); ok {
		return v
	}
	organisation, made := r.Organisations[org]
	if v, ok := r.granted(s, organisation.Grants, a, "organisation "+org); ok {
		return v
	}
	visible, from := r.visibility(repository)
	switch {
	case a == Pull && visible == Public:
		return yes("%s is public (%s)", repository, from)
	case a == Pull && visible == Internal && !s.Anonymous():
		return yes("%s is internal (%s): whoever has signed in may pull", repository, from)
	case s.Anonymous() && a != Pull:
		return no("nobody has signed in: only pulls can be anonymous")
	case s.Anonymous():
		return no("nobody has signed in, and %s is %s (%s)", repository, visible, from)
	case made:
		return no("neither repository %s nor organisation %s gives %s the right to %s", repository, org, s.Name, a)
	}
	return r.unmade(s, repository, repo, org, a)
}

// unmade decides in an organisation that nobody has made, for a user without a grant.
func (r Rules) unmade(s Subject, repository string, repo Repository, org string, a Action) Verdict {
	switch {
	case org == s.Name:
		return yes("what is below %s/ belongs to user %s", org, s.Name)
	case a != Pull && a != Push:
		return no("%s gives %s no right to %s", repository, s.Name, a)
	case r.Site.Creation != ByAnyUser:
		return no("nobody has made organisation %s, and the site's creation is %q", org, r.Site.Creation)
	case a == Push && repo.By == org:
		return no("what is below %s/ belongs to user %s, who made %s", org, org, repository)
	case repo.Visibility == Private:
		return no("repository %s is private and gives %s no right", repository, s.Name)
	}
	return yes("nobody has made organisation %s: whoever has signed in may pull and push there (the site's creation is %q)", org, r.Site.Creation)
}

// granted looks for a role that has the action.
func (r Rules) granted(s Subject, g Grants, a Action, where string) (Verdict, bool) {
	// In order of the names, so that the same question has the same answer each time.
	for _, p := range sortedPrincipals(g) {
		if role := g[p]; role.Has(a) && r.Is(s, p) {
			return yes("%s gives %s the role %s", where, p, role), true
		}
	}
	return Verdict{}, false
}

// Is reports whether a principal means the subject.
func (r Rules) Is(s Subject, p Principal) bool {
	kind, name, _ := strings.Cut(string(p), ":")
	switch {
	case p == Anyone:
		return true
	case s.Anonymous():
		return false
	case p == SignedIn:
		return true
	case kind == "user":
		return name == s.Name
	case kind == "group":
		return slices.ContainsFunc(s.Groups, func(g string) bool { return strings.EqualFold(g, name) }) ||
			slices.Contains(r.Groups[strings.ToLower(name)], s.Name)
	}
	return false
}

// admin says why the subject is an administrator of the site.
func (r Rules) admin(s Subject) (string, bool) {
	if s.Admin {
		return s.Name + " is an administrator of the site", true
	}
	for _, p := range r.Site.Admins {
		if p := Principal(p); p != Anyone && p != SignedIn && r.Is(s, p) {
			return fmt.Sprintf("%s is an administrator of the site (%s)", s.Name, p), true
		}
	}
	return "", false
}

// IsAdmin reports whether the subject administrates the site. A token that is limited to something does not.
func (r Rules) IsAdmin(s Subject) bool {
	_, ok := r.admin(s)
	return ok && s.Limit.Has("", Admin)
}

// Manages reports whether the subject may change an organisation.
func (r Rules) Manages(s Subject, org string) bool {
	if !s.Limit.Has("", Admin) {
		return false
	}
	if r.IsAdmin(s) {
		return true
	}
	o, made := r.Organisations[org]
	_, ok := r.granted(s, o.Grants, Admin, "")
	return made && ok
}

// Visible reports whether the subject may see that a repository exists: in the catalog and in searches. A token's limit does
// not count, since it names what is asked for and not what may be seen.
func (r Rules) Visible(s Subject, repository string) bool {
	s.Limit = nil
	return r.Decide(s, repository, Pull).Allowed
}

func sortedPrincipals(g Grants) []Principal {
	all := make([]Principal, 0, len(g))
	for p := range g {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

// Describe prints what is said about a repository, for people who ask why.
func (r Rules) Describe(repository string) []string {
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	grants := func(where string, g Grants) {
		for _, p := range sortedPrincipals(g) {
			say("%s: %s is %s", where, p, g[p])
		}
	}
	org := OrganisationOf(repository)
	repo, known := r.Repositories[repository]
	if !known {
		say("repository %s: nobody has pushed to it or given rights for it", repository)
	} else if repo.By != "" {
		say("repository %s: first pushed by %s", repository, repo.By)
	}
	grants("repository "+repository, repo.Grants)
	o, made := r.Organisations[org]
	if !made {
		say("organisation %s: nobody has made it", org)
	}
	grants("organisation "+org, o.Grants)
	v, from := r.visibility(repository)
	say("visibility: %s (%s)", v, from)
	if !made {
		say("names of organisations that nobody has made are open to: %s (the site's creation)", r.Site.Creation)
	}
	for _, a := range r.Site.Admins {
		say("the site: %s is an administrator", a)
	}
	return lines
}

package access

import (
	"context"
	"slices"
)

// Action is something that can be done to a repository.
type Action string

// The actions, as they are called in tokens' scopes.
const (
	Pull   Action = "pull"
	Push   Action = "push"
	Delete Action = "delete"
	Admin  Action = "admin" // change the repository's visibility, grants and description
)

// Actions gives all of them, the weakest first.
func Actions() []Action { return []Action{Pull, Push, Delete, Admin} }

// Subject is whoever makes a request. The zero Subject is anonymous.
type Subject struct {
	Name   string   `json:"name,omitempty"`   // "" is anonymous
	Groups []string `json:"groups,omitempty"` // names of groups, also those of a directory
	Admin  bool     `json:"admin,omitempty"`  // administrator of the site: may do everything
	Limit  *Limit   `json:"-"`                // what the token that he came with is good for; nil: no limit
}

// Anonymous reports whether nobody has signed in.
func (s Subject) Anonymous() bool { return s.Name == "" }

// Scope is one repository and what a token allows there.
type Scope struct {
	Repository string
	Actions    []Action
}

// Limit is what a token is good for. What the subject may do is asked as well: a token never gives rights.
type Limit struct {
	Scopes []Scope
	Every  []Action // allowed in every repository: what a personal access token is limited to
}

// Has reports whether the limit leaves room for the action.
func (l *Limit) Has(repository string, a Action) bool {
	if l == nil || slices.Contains(l.Every, a) {
		return true
	}
	return slices.ContainsFunc(l.Scopes, func(s Scope) bool {
		return s.Repository == repository && slices.Contains(s.Actions, a)
	})
}

// Decider says whether a subject may do something to a repository.
type Decider interface {
	Allowed(ctx context.Context, s Subject, repository string, a Action) (bool, error)
}

// Everyone is the Decider of a registry without users: everybody may do everything.
type Everyone struct{}

// Allowed always says yes.
func (Everyone) Allowed(context.Context, Subject, string, Action) (bool, error) { return true, nil }

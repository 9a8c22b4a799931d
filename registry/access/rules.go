package access

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"berth/base/fault"
)

// Role is a set of actions that is given to somebody.
type Role string

// The roles, the weakest first.
const (
	Reader     Role = "reader"     // pull
	Writer     Role = "writer"     // pull, push
	Maintainer Role = "maintainer" // pull, push, delete
	Owner      Role = "owner"      // everything, also giving rights to others
)

// Actions gives what the role allows.
func (r Role) Actions() []Action {
	switch r {
	case Reader:
		return []Action{Pull}
	case Writer:
		return []Action{Pull, Push}
	case Maintainer:
		return []Action{Pull, Push, Delete}
	case Owner:
		return []Action{Pull, Push, Delete, Admin}
	}
	return nil
}

// Has reports whether the role allows the action.
func (r Role) Has(a Action) bool { return slices.Contains(r.Actions(), a) }

// ParseRole reads a role, or an action for the weakest role that has it. Errors are Invalid.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case Reader, Writer, Maintainer, Owner:
		return r, nil
	}
	switch Action(s) {
	case Pull:
		return Reader, nil
	case Push:
		return Writer, nil
	case Delete:
		return Maintainer, nil
	case Admin:
		return Owner, nil
	}
	return "", fault.New(fault.Invalid, "%q is no role: reader (pull), writer (push), maintainer (delete) or owner (admin)", s)
}

// Principal is who a role is given to: "user:NAME", "group:NAME", "signed-in" or "anyone".
type Principal string

// The principals that are not one user or group.
const (
	SignedIn Principal = "signed-in"
	Anyone   Principal = "anyone"
)

// User makes a principal of a user's name.
func User(name string) Principal { return Principal("user:" + name) }

// Group makes a principal of a group's name, in lower case: directories do not care for it.
func Group(name string) Principal { return Principal("group:" + strings.ToLower(name)) }

// ParsePrincipal reads a principal; a bare name is a user's, @NAME a group's. Errors are Invalid.
func ParsePrincipal(s string) (Principal, error) {
	p := Principal(s)
	kind, name, ok := strings.Cut(s, ":")
	switch {
	case p == SignedIn, p == Anyone:
		return p, nil
	case strings.HasPrefix(s, "@"):
		p, name = Group(s[1:]), s[1:]
	case !ok:
		p, name = User(s), s
	case kind == "group":
		p = Group(name)
	case kind != "user":
		return "", fault.New(fault.Invalid, "%q is nobody: user:NAME, group:NAME, signed-in or anyone", s)
	}
	if name == "" || len(name) > 256 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fault.New(fault.Invalid, "%q has no name that a user or group can have", s)
	}
	return p, nil
}

// Visibility says who may pull without a grant.
type Visibility string

// The visibilities. The empty one means that of the organisation, or of the site.
const (
	Public   Visibility = "public"   // anyone
	Internal Visibility = "internal" // whoever has signed in
	Private  Visibility = "private"  // nobody
)

// ParseVisibility reads a visibility; "" and "inherit" are the empty one. Errors are Invalid.
func ParseVisibility(s string) (Visibility, error) {
	switch v := Visibility(s); v {
	case Public, Internal, Private, "":
		return v, nil
	case "inherit":
		return "", nil
	}
	return "", fault.New(fault.Invalid, "%q is no visibility: public, internal, private or inherit", s)
}

// Creation says who may push to names whose organisation nobody has made.
type Creation string

// The values of Creation. In all of them a user owns what is below his own name, NAME/…
const (
	ByAnyUser Creation = "signed-in" // whoever has signed in pulls and pushes there, as with a plain password file
	ByOwnName Creation = "own-name"  // users below their own name only
	ByAdmins  Creation = "admins"    // only administrators of the site
)

// ParseCreation reads a Creation. Errors are Invalid.
func ParseCreation(s string) (Creation, error) {
	switch c := Creation(s); c {
	case ByAnyUser, ByOwnName, ByAdmins:
		return c, nil
	}
	return "", fault.New(fault.Invalid, "%q: signed-in, own-name or admins", s)
}

// Grants are roles by who has them.
type Grants map[Principal]Role

// Organisation is the first element of repositories' names, once somebody has made it.
type Organisation struct {
	Description string     `json:"description,omitempty"`
	Visibility  Visibility `json:"visibility,omitempty"` // of repositories that have none of their own
	Grants      Grants     `json:"grants,omitempty"`     // hold in all of its repositories; owners may also create and change
	Created     time.Time  `json:"created"`
}

// Repository is what is known of a repository that somebody has pushed to or given rights for.
type Repository struct {
	Visibility Visibility `json:"visibility,omitempty"`
	Grants     Grants     `json:"grants,omitempty"`
	Created    time.Time  `json:"created"`
	By         string     `json:"by,omitempty"` // who pushed first
}

// Site is what holds for the whole registry.
type Site struct {
	Visibility Visibility `json:"visibility"` // of repositories for which neither they nor their organisation say
	Creation   Creation   `json:"creation"`
	Admins     []string   `json:"admins,omitempty"` // principals who may do everything
}

// Rules are all rights as one value. It is never changed: With makes another.
type Rules struct {
	Site          Site
	Organisations map[string]Organisation
	Repositories  map[string]Repository
	Groups        map[string][]string // the site's own groups: users by group

	// named counts the grants to each group, in lower case. A Store keeps it up to date; nil: counted when it is asked for.
	named map[string]int
}

// Default gives the rules of a new registry: users are told from strangers, and nothing else.
func Default() Rules {
	return Rules{
		Site:          Site{Visibility: Private, Creation: ByAnyUser},
		Organisations: map[string]Organisation{}, Repositories: map[string]Repository{}, Groups: map[string][]string{},
	}
}

// clone copies the tables, not what stands in them.
func (r Rules) clone() Rules {
	r.Organisations, r.Repositories, r.Groups = maps.Clone(r.Organisations), maps.Clone(r.Repositories), maps.Clone(r.Groups)
	r.named = maps.Clone(r.named)
	return r
}

// visibility gives a repository's, and where it comes from.
func (r Rules) visibility(repository string) (Visibility, string) {
	if v := r.Repositories[repository].Visibility; v != "" {
		return v, "repository " + repository
	}
	org := OrganisationOf(repository)
	if v := r.Organisations[org].Visibility; v != "" {
		return v, "organisation " + org
	}
	return r.Site.Visibility, "the site"
}

// VisibilityOf gives the visibility that holds for a repository.
func (r Rules) VisibilityOf(repository string) Visibility {
	v, _ := r.visibility(repository)
	return v
}

// Named gives those of the groups that some rule names: the others need not travel in tokens.
func (r Rules) Named(groups []string) []string {
	if len(groups) == 0 {
		return nil
	}
	named := r.named
	if named == nil {
		named = r.count()
	}
	admins := Grants{}
	for _, a := range r.Site.Admins {
		admins[Principal(a)] = Owner
	}
	return slices.DeleteFunc(slices.Clone(groups), func(g string) bool {
		_, admin := admins[Group(g)]
		return named[strings.ToLower(g)] == 0 && !admin
	})
}

// count counts the grants to groups.
func (r Rules) count() map[string]int {
	named := map[string]int{}
	for _, o := range r.Organisations {
		tally(named, o.Grants, 1)
	}
	for _, repo := range r.Repositories {
		tally(named, repo.Grants, 1)
	}
	return named
}

// tally adds the groups of grants to a count, or with -1 takes them off.
func tally(named map[string]int, g Grants, by int) {
	for p := range g {
		if name, ok := strings.CutPrefix(string(p), "group:"); ok {
			name = strings.ToLower(name)
			if named[name] += by; named[name] == 0 {
				delete(named, name)
			}
		}
	}
}

// OrganisationOf gives the first element of a repository's name: team of team/web, and of team.
func OrganisationOf(repository string) string {
	org, _, _ := strings.Cut(repository, "/")
	return org
}

// component is one element of a repository's name, after the distribution specification.
const component = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`

var (
	nameForm         = regexp.MustCompile(`^` + component + `(?:/` + component + `)*$`)
	organisationForm = regexp.MustCompile(`^` + component + `$`)
)

// CheckRepository refuses what cannot be the name of a repository. Errors are Invalid.
func CheckRepository(name string) error {
	if len(name) > 255 || !nameForm.MatchString(name) {
		return fault.New(fault.Invalid, "invalid repository name: %q", name)
	}
	return nil
}

// CheckOrganisation refuses what cannot be the name of an organisation. Errors are Invalid.
func CheckOrganisation(name string) error {
	if len(name) > 128 || !organisationForm.MatchString(name) {
		return fault.New(fault.Invalid, "invalid organisation name: %q: lower-case letters and digits, joined by . _ -", name)
	}
	return nil
}

package guard

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/base/fault"
	"berth/registry/access"
)

func (a *admin) listGroups(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	return http.StatusOK, a.rights.Rules().Groups, a.mustAdmin(r, s)
}

func (a *admin) setGroup(w http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	if err := a.mustAdmin(r, s); err != nil {
		return 0, nil, err
	}
	var in struct {
		Members []string `json:"members"`
	}
	if err := a.body(w, r, &in); err != nil {
		return 0, nil, err
	}
	name := r.PathValue("name")
	if err := a.rights.SetGroup(name, in.Members); err != nil {
		return 0, nil, err
	}
	a.changed(r, s, "group set", "group", name, "members", in.Members)
	return http.StatusNoContent, nil, nil
}

func (a *admin) removeGroup(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	if err := a.mustAdmin(r, s); err != nil {
		return 0, nil, err
	}
	name := r.PathValue("name")
	if err := a.rights.RemoveGroup(name); err != nil {
		return 0, nil, err
	}
	a.changed(r, s, "group removed", "group", name)
	return http.StatusNoContent, nil, nil
}

// organisation is an organisation as it is answered.
type organisation struct {
	Name string `json:"name"`
	access.Organisation
}

func (a *admin) listOrgs(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	rules := a.rights.Rules()
	all := []organisation{}
	every := a.administrator(r, s)
	for _, name := range slices.Sorted(maps.Keys(rules.Organisations)) {
		o := rules.Organisations[name]
		in := every
		for p := range o.Grants {
			in = in || !s.Anonymous() && rules.Is(s, p)
		}
		if !in {
			continue
		}
		if !every && !rules.Manages(s, name) {
			o.Grants = nil // who else is in it is for those who manage it
		}
		all = append(all, organisation{name, o})
	}
	return http.StatusOK, all, nil
}

func (a *admin) addOrg(w http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	if err := a.mustAdmin(r, s); err != nil {
		return 0, nil, err
	}
	var in struct {
		Name        string   `json:"name"`
		Description string   `json:"description"`
		Visibility  string   `json:"visibility"`
		Owners      []string `json:"owners"`
	}
	if err := a.body(w, r, &in); err != nil {
		return 0, nil, err
	}
	visibility, err := access.ParseVisibility(in.Visibility)
	if err != nil {
		return 0, nil, err
	}
	var owners []access.Principal
	for _, text := range in.Owners {
		p, err := access.ParsePrincipal(text)
		if err == nil && p == access.Anyone {
			err = fault.New(fault.Invalid, "anyone cannot own an organisation")
		}
		if err != nil {
			return 0, nil, err
		}
		owners = append(owners, p)
	}
	if err := a.rights.AddOrganisation(in.Name, in.Description, visibility, owners); err != nil {
		return 0, nil, err
	}
	a.changed(r, s, "organisation added", "organisation", in.Name, "owners", in.Owners)
	return http.StatusCreated, organisation{in.Name, a.rights.Rules().Organisations[in.Name]}, nil
}

func (a *admin) showOrg(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	name := r.PathValue("name")
	if err := a.mustManage(r, s, access.Target{Organisation: name}); err != nil {
		return 0, nil, err
	}
	o, made := a.rights.Rules().Organisations[name]
	if !made {
		return 0, nil, fault.New(fault.NotFound, "no such organisation: %s", name)
	}
	return http.StatusOK, organisation{name, o}, nil
}

func (a *admin) changeOrg(w http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	t := access.Target{Organisation: r.PathValue("name")}
	if err := a.mustManage(r, s, t); err != nil {
		return 0, nil, err
	}
	var in struct {
		Description *string `json:"description"`
		Visibility  *string `json:"visibility"`
	}
	if err := a.body(w, r, &in); err != nil {
		return 0, nil, err
	}
	if in.Visibility != nil {
		v, err := access.ParseVisibility(*in.Visibility)
		if err == nil {
			err = a.rights.SetVisibility(t, v)
		}
		if err != nil {
			return 0, nil, err
		}
	}
	if in.Description != nil {
		if err := a.rights.DescribeOrganisation(t.Organisation, *in.Description); err != nil {
			return 0, nil, err
		}
	}
	a.changed(r, s, "organisation changed", "organisation", t.Organisation)
	return http.StatusOK, organisation{t.Organisation, a.rights.Rules().Organisations[t.Organisation]}, nil
}

func (a *admin) removeOrg(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	if err := a.mustAdmin(r, s); err != nil {
		return 0, nil, err
	}
	name := r.PathValue("name")
	if err := a.rights.RemoveOrganisation(name); err != nil {
		return 0, nil, err
	}
	a.changed(r, s, "organisation removed", "organisation", name)
	return http.StatusNoContent, nil, nil
}

// listed is a repository as it is listed.
type listed struct {
	Name       string            `json:"name"`
	Visibility access.Visibility `json:"visibility"`
	Inherited  bool              `json:"inherited"` // from its organisation or the site
	By         string            `json:"by,omitempty"`
	Created    time.Time         `json:"created"`
}

func (a *admin) listRepositories(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	q := r.URL.Query()
	limit, err := strconv.Atoi(q.Get("n"))
	if q.Get("n") == "" {
		limit, err = 1000, nil
	}
	if err != nil || limit < 1 {
		return 0, nil, fault.New(fault.Invalid, "n=%q is no number of repositories", q.Get("n"))
	}
	rules := a.rights.Rules()
	all := []listed{}
	for _, name := range slices.Sorted(maps.Keys(rules.Repositories)) {
		if len(all) == limit {
			break
		}
		if !strings.HasPrefix(name, q.Get("prefix")) || a.Guarded() && !rules.Visible(s, name) {
			continue
		}
		repo := rules.Repositories[name]
		all = append(all, listed{name, rules.VisibilityOf(name), repo.Visibility == "", repo.By, repo.Created})
	}
	return http.StatusOK, all, nil
}

func (a *admin) forgetRepository(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	if err := a.mustAdmin(r, s); err != nil {
		return 0, nil, err
	}
	name := r.URL.Query().Get("repository")
	if _, known := a.rights.Rules().Repositories[name]; !known {
		return 0, nil, fault.New(fault.NotFound, "nothing is known of repository %q", name)
	}
	if err := a.rights.Forget(name); err != nil {
		return 0, nil, err
	}
	a.changed(r, s, "repository forgotten", "repository", name)
	return http.StatusNoContent, nil, nil
}

// targetOf reads what a request's query is about.
func targetOf(r *http.Request) access.Target {
	q := r.URL.Query()
	return access.Target{Organisation: q.Get("organisation"), Repository: q.Get("repository")}
}

func (a *admin) showAccess(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	t := targetOf(r)
	if err := a.mustManage(r, s, t); err != nil {
		return 0, nil, err
	}
	rules := a.rights.Rules()
	out := struct {
		access.Target
		Visibility access.Visibility `json:"visibility"`
		Inherited  bool              `json:"inherited"`
		Grants     access.Grants     `json:"grants"`
	}{Target: t}
	if t.Organisation != "" {
		o, made := rules.Organisations[t.Organisation]
		if !made {
			return 0, nil, fault.New(fault.NotFound, "no such organisation: %s", t.Organisation)
		}
		out.Visibility, out.Grants = o.Visibility, o.Grants
		if out.Inherited = o.Visibility == ""; out.Inherited {
			out.Visibility = rules.Site.Visibility
		}
		return http.StatusOK, out, nil
	}
	repo := rules.Repositories[t.Repository]
	out.Visibility, out.Inherited, out.Grants = rules.VisibilityOf(t.Repository), repo.Visibility == "", repo.Grants
	if out.Grants == nil {
		out.Grants = access.Grants{}
	}
	return http.StatusOK, out, nil
}

func (a *admin) grantRole(w http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	var in struct {
		access.Target
		To   string `json:"to"`
		Role string `json:"role"`
	}
	if err := a.body(w, r, &in); err != nil {
		return 0, nil, err
	}
	if err := a.mustManage(r, s, in.Target); err != nil {
		return 0, nil, err
	}
	p, err := access.ParsePrincipal(in.To)
	if err != nil {
		return 0, nil, err
	}
	role, err := access.ParseRole(in.Role)
	if err != nil {
		return 0, nil, err
	}
	if err := a.rights.Grant(in.Target, p, role); err != nil {
		return 0, nil, err
	}
	a.changed(r, s, "right given", "on", in.Target.String(), "to", p, "role", role)
	return http.StatusNoContent, nil, nil
}

func (a *admin) revokeRole(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	t := targetOf(r)
	if err := a.mustManage(r, s, t); err != nil {
		return 0, nil, err
	}
	p, err := access.ParsePrincipal(r.URL.Query().Get("to"))
	if err == nil {
		err = a.rights.Revoke(t, p)
	}
	if err != nil {
		return 0, nil, err
	}
	a.changed(r, s, "right taken", "on", t.String(), "from user", p)
	return http.StatusNoContent, nil, nil
}

func (a *admin) setVisibility(w http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	var in struct {
		access.Target
		Visibility string `json:"visibility"`
	}
	if err := a.body(w, r, &in); err != nil {
		return 0, nil, err
	}
	if err := a.mustManage(r, s, in.Target); err != nil {
		return 0, nil, err
	}
	v, err := access.ParseVisibility(in.Visibility)
	if err == nil {
		err = a.rights.SetVisibility(in.Target, v)
	}
	if err != nil {
		return 0, nil, err
	}
	a.changed(r, s, "visibility set", "on", in.Target.String(), "visibility", in.Visibility)
	return http.StatusNoContent, nil, nil
}

// explain says why somebody may or may not. The groups of a user who is known here or in a directory are looked up. Who asks about himself
// and may not give rights there is told the verdict: who else may what, and that there is something that he cannot see, is not his to know.
func (a *admin) explain(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	q := r.URL.Query()
	name, repository := q.Get("user"), q.Get("repository")
	if err := access.CheckRepository(repository); err != nil {
		return 0, nil, err
	}
	refused := a.mustManage(r, s, access.Target{Repository: repository})
	if refused != nil && name != s.Name {
		return 0, nil, refused
	}
	if !a.Guarded() {
		return http.StatusOK, map[string]any{"allowed": true, "why": "the registry is open: it knows no users"}, nil
	}
	asIf := q["group"]
	if refused != nil {
		asIf = nil // to try groups out is to learn what they may
	}
	who := access.Subject{Name: name, Groups: asIf}
	known := true
	if name != "" {
		u, err := a.people.Lookup(r.Context(), name)
		if known = err == nil; known {
			u.Groups = append(slices.Clone(u.Groups), asIf...)
			who = a.subject(u, nil)
		}
	}
	action := access.Action(q.Get("action"))
	if action == "" {
		action = access.Pull
	}
	rules := a.rights.Rules()
	v := rules.Decide(who, repository, action)
	if refused != nil {
		if !v.Allowed && !rules.Visible(who, repository) {
			v.Why = "requested access to the resource is denied"
		}
		return http.StatusOK, map[string]any{"allowed": v.Allowed, "why": v.Why}, nil
	}
	lines := rules.Describe(repository)
	if !known {
		lines = append([]string{"user " + name + " was not found; decided by the name and the groups given"}, lines...)
	} else if len(who.Groups) > 0 {
		lines = append([]string{"groups of " + name + ": " + strings.Join(who.Groups, ", ")}, lines...)
	}
	return http.StatusOK, map[string]any{"allowed": v.Allowed, "why": v.Why, "lines": lines}, nil
}

func (a *admin) showSite(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	return http.StatusOK, a.rights.Rules().Site, a.mustAdmin(r, s)
}

func (a *admin) changeSite(w http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	if err := a.mustAdmin(r, s); err != nil {
		return 0, nil, err
	}
	var in struct {
		Visibility *string  `json:"visibility"`
		Creation   *string  `json:"creation"`
		Admins     []string `json:"admins"`
	}
	if err := a.body(w, r, &in); err != nil {
		return 0, nil, err
	}
	err := a.rights.SetSite(func(site *access.Site) error {
		if in.Visibility != nil {
			v, err := access.ParseVisibility(*in.Visibility)
			if err != nil || v == "" {
				return fault.New(fault.Invalid, "%q is no visibility of a site: public, internal or private", *in.Visibility)
			}
			site.Visibility = v
		}
		if in.Creation != nil {
			c, err := access.ParseCreation(*in.Creation)
			if err != nil {
				return err
			}
			site.Creation = c
		}
		if in.Admins == nil {
			return nil
		}
		site.Admins = []string{}
		for _, text := range in.Admins {
			p, err := access.ParsePrincipal(text)
			if err == nil && (p == access.Anyone || p == access.SignedIn) {
				err = fault.New(fault.Invalid, "%q cannot administrate the site: name users or groups", text)
			}
			if err != nil {
				return err
			}
			site.Admins = append(site.Admins, string(p))
		}
		return nil
	})
	if err != nil {
		return 0, nil, err
	}
	a.changed(r, s, "site changed")
	return http.StatusOK, a.rights.Rules().Site, nil
}

package access

import (
	"maps"
	"slices"
	"strings"
	"time"

	"berth/base/fault"
)

// Target is what rights are given on: an organisation or a repository. Exactly one of its fields is set.
type Target struct {
	Organisation string `json:"organisation,omitempty"`
	Repository   string `json:"repository,omitempty"`
}

// String gives the target as people read it.
func (t Target) String() string {
	if t.Organisation != "" {
		return "organisation " + t.Organisation
	}
	return "repository " + t.Repository
}

// Check refuses a target that is nothing or two things. Errors are Invalid.
func (t Target) Check() error {
	switch {
	case t.Organisation != "" && t.Repository == "":
		return CheckOrganisation(t.Organisation)
	case t.Repository != "" && t.Organisation == "":
		return CheckRepository(t.Repository)
	}
	return fault.New(fault.Invalid, "say an organisation or a repository")
}

// AddOrganisation makes an organisation with its first owners. Repositories that are there already come to belong to it, and
// keep their own grants.
func (s *Store) AddOrganisation(name, description string, v Visibility, owners []Principal) error {
	if err := CheckOrganisation(name); err != nil {
		return err
	}
	return s.update(func(r *Rules, c *changes) error {
		if _, made := r.Organisations[name]; made {
			return fault.New(fault.Conflict, "organisation %s exists already", name)
		}
		o := Organisation{Description: description, Visibility: v, Created: time.Now().UTC(), Grants: Grants{}}
		for _, p := range owners {
			o.Grants[p] = Owner
		}
		return c.organisation(name, &o)
	})
}

// DescribeOrganisation changes an organisation's description.
func (s *Store) DescribeOrganisation(name, description string) error {
	return s.update(func(r *Rules, c *changes) error {
		o, err := r.organisation(name)
		if err != nil {
			return err
		}
		o.Description = description
		return c.organisation(name, &o)
	})
}

// RemoveOrganisation removes an organisation with its grants. Its repositories stay, and keep theirs.
func (s *Store) RemoveOrganisation(name string) error {
	return s.update(func(r *Rules, c *changes) error {
		if _, err := r.organisation(name); err != nil {
			return err
		}
		return c.organisation(name, nil)
	})
}

// SetVisibility changes who may pull without a grant.
func (s *Store) SetVisibility(t Target, v Visibility) error {
	return s.edit(t, func(visibility *Visibility, _ Grants) error {
		*visibility = v
		return nil
	})
}

// Grant gives a principal a role, in place of the one that he has. Rights on a repository may be given before anything
// is pushed to it. Anyone can only be given what does not change a repository.
func (s *Store) Grant(t Target, p Principal, role Role) error {
	if p == Anyone && role != Reader {
		return fault.New(fault.Invalid, "anyone can only be a reader: who changes something has to sign in")
	}
	return s.edit(t, func(_ *Visibility, g Grants) error {
		g[p] = role
		return nil
	})
}

// Revoke takes a principal's role away. None to take is NotFound. The last owner of an organisation stays.
func (s *Store) Revoke(t Target, p Principal) error {
	return s.edit(t, func(_ *Visibility, g Grants) error {
		role, ok := g[p]
		if !ok {
			return fault.New(fault.NotFound, "%s gives %s no role", t, p)
		}
		delete(g, p)
		if t.Organisation != "" && role == Owner && !slices.Contains(slices.Collect(maps.Values(g)), Owner) {
			return fault.New(fault.Conflict, "%s is the last owner of %s: make another one first", p, t)
		}
		return nil
	})
}

// edit changes the visibility or the grants of a target.
func (s *Store) edit(t Target, change func(*Visibility, Grants) error) error {
	if err := t.Check(); err != nil {
		return err
	}
	return s.update(func(r *Rules, c *changes) error {
		if t.Organisation != "" {
			o, err := r.organisation(t.Organisation)
			if err != nil {
				return err
			}
			o.Grants = cloneGrants(o.Grants)
			if err := change(&o.Visibility, o.Grants); err != nil {
				return err
			}
			return c.organisation(t.Organisation, &o)
		}
		repo, known := r.Repositories[t.Repository]
		if !known {
			repo.Created = time.Now().UTC()
		}
		repo.Grants = cloneGrants(repo.Grants)
		if err := change(&repo.Visibility, repo.Grants); err != nil {
			return err
		}
		return c.repository(t.Repository, &repo)
	})
}

// SetGroup makes a group of the site's own, or replaces its members; names of groups are lower-case.
func (s *Store) SetGroup(name string, members []string) error {
	p, err := ParsePrincipal("group:" + name)
	if err != nil {
		return err
	}
	members = slices.Compact(slices.Sorted(slices.Values(members)))
	return s.update(func(_ *Rules, c *changes) error {
		return c.group(strings.ToLower(strings.TrimPrefix(string(p), "group:")), &members)
	})
}

// RemoveGroup removes a group of the site's own. Roles that it was given stay, for a directory's group of the same name.
func (s *Store) RemoveGroup(name string) error {
	name = strings.ToLower(name)
	return s.update(func(r *Rules, c *changes) error {
		if _, ok := r.Groups[name]; !ok {
			return fault.New(fault.NotFound, "no such group: %s", name)
		}
		return c.group(name, nil)
	})
}

// SetSite changes what holds for the whole registry.
func (s *Store) SetSite(change func(*Site) error) error {
	return s.update(func(r *Rules, c *changes) error {
		site := r.Site
		site.Admins = slices.Clone(site.Admins)
		if err := change(&site); err != nil {
			return err
		}
		return c.site(site)
	})
}

// ForgetUser takes a user out of all grants and groups, so that a later user of the same name does not get them.
func (s *Store) ForgetUser(name string) error {
	p := User(name)
	return s.update(func(r *Rules, c *changes) error {
		for org, o := range r.Organisations {
			if _, ok := o.Grants[p]; ok {
				o.Grants = cloneGrants(o.Grants)
				delete(o.Grants, p)
				if err := c.organisation(org, &o); err != nil {
					return err
				}
			}
		}
		for name, repo := range r.Repositories {
			if _, ok := repo.Grants[p]; ok {
				repo.Grants = cloneGrants(repo.Grants)
				delete(repo.Grants, p)
				if err := c.repository(name, &repo); err != nil {
					return err
				}
			}
		}
		for group, members := range r.Groups {
			if i := slices.Index(members, name); i >= 0 {
				rest := slices.Delete(slices.Clone(members), i, i+1)
				if err := c.group(group, &rest); err != nil {
					return err
				}
			}
		}
		if i := slices.Index(r.Site.Admins, string(p)); i >= 0 {
			site := r.Site
			site.Admins = slices.Delete(slices.Clone(site.Admins), i, i+1)
			return c.site(site)
		}
		return nil
	})
}

func (r *Rules) organisation(name string) (Organisation, error) {
	o, made := r.Organisations[name]
	if !made {
		return o, fault.New(fault.NotFound, "no such organisation: %s", name)
	}
	return o, nil
}

func cloneGrants(g Grants) Grants {
	if g == nil {
		return Grants{}
	}
	return maps.Clone(g)
}

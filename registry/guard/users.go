package guard

import (
	"context"
	"errors"
	"net/http"
	"time"

	"berth/auth"
	"berth/auth/user"
	"berth/base/fault"
	"berth/registry/access"
)

func (a *admin) listUsers(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	if err := a.mustAdmin(r, s); err != nil {
		return 0, nil, err
	}
	all, err := a.accounts.Accounts()
	if all == nil {
		all = []user.Account{}
	}
	return http.StatusOK, all, err
}

func (a *admin) addUser(w http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	if err := a.mustAdmin(r, s); err != nil {
		return 0, nil, err
	}
	var in struct {
		Name     string `json:"name"`
		Password string `json:"password"`
		Admin    bool   `json:"admin"`
	}
	if err := a.body(w, r, &in); err != nil {
		return 0, nil, err
	}
	if err := a.free(r.Context(), in.Name); err != nil {
		return 0, nil, err
	}
	if !a.Guarded() && !in.Admin && len(a.admins) == 0 {
		return 0, nil, fault.New(fault.Conflict, "the first user has to be an administrator: nobody could change the rights otherwise")
	}
	made, err := a.accounts.Add(in.Name, in.Password, in.Admin)
	if err != nil {
		return 0, nil, err
	}
	a.people.Forget()
	opened := a.Guarded()
	if err := a.notice(); err != nil {
		return 0, nil, err
	}
	a.changed(r, s, "user added", "user", in.Name, "admin", in.Admin)
	if !opened {
		a.changed(r, s, "the registry is guarded from now on: strangers have to sign in")
	}
	return http.StatusCreated, made, nil
}

// free refuses a name that a password file or a directory has: the account would take it over, with all its rights.
func (a *admin) free(ctx context.Context, name string) error {
	if err := user.CheckName(name); err != nil {
		return err
	}
	u, err := a.people.Lookup(ctx, name)
	switch {
	case err == nil && u.Source != "accounts":
		return fault.New(fault.Conflict, "user %s is known already, by %s", name, u.Source)
	case err == nil, errors.Is(err, auth.ErrPassword), errors.Is(err, auth.ErrNoUser), fault.Is(err, fault.NotImplemented):
		return nil
	}
	return fault.In(err, "is the name free")
}

func (a *admin) showUser(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	name := r.PathValue("name")
	if err := a.mustBe(r, s, name); err != nil {
		return 0, nil, err
	}
	found, err := a.accounts.Account(name)
	return http.StatusOK, found, err
}

func (a *admin) changeUser(w http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	name := r.PathValue("name")
	if err := a.mustBe(r, s, name); err != nil {
		return 0, nil, err
	}
	var in struct {
		Old      *string `json:"old"`
		Password *string `json:"password"`
		Admin    *bool   `json:"admin"`
		Closed   *bool   `json:"closed"`
	}
	if err := a.body(w, r, &in); err != nil {
		return 0, nil, err
	}
	if !a.administrator(r, s) {
		if in.Admin != nil || in.Closed != nil {
			return 0, nil, a.mustAdmin(r, s)
		}
		if in.Password != nil && in.Old == nil {
			return 0, nil, fault.New(fault.Invalid, "the old password is missing")
		}
	}
	if in.Old != nil {
		// As a sign-in, so that it is damped as one.
		if _, _, err := a.signIn(r.Context(), name, *in.Old, a.From(r)); fault.Is(err, fault.Unauthorized) {
			return 0, nil, fault.New(fault.Forbidden, "the old password is wrong")
		} else if err != nil {
			return 0, nil, err
		}
	}
	now, err := a.accounts.Change(name, user.Change{Password: in.Password, Admin: in.Admin, Closed: in.Closed})
	if err != nil {
		return 0, nil, err
	}
	a.people.Forget()
	a.changed(r, s, "user changed", "user", name, "password", in.Password != nil, "admin", now.Admin, "closed", now.Closed)
	return http.StatusOK, now, nil
}

func (a *admin) removeUser(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	if err := a.mustAdmin(r, s); err != nil {
		return 0, nil, err
	}
	name := r.PathValue("name")
	if _, err := a.accounts.Account(name); err != nil {
		return 0, nil, err
	}
	// The rights go first: an account without rights can be removed again, rights without an account would wait for
	// the next user of the name.
	if err := a.rights.ForgetUser(name); err != nil {
		return 0, nil, err
	}
	if err := a.accounts.Remove(name); err != nil {
		return 0, nil, err
	}
	a.people.Forget()
	a.changed(r, s, "user removed", "user", name)
	return http.StatusNoContent, nil, nil
}

func (a *admin) signOut(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	name := r.PathValue("name")
	if err := a.mustBe(r, s, name); err != nil {
		return 0, nil, err
	}
	n, err := a.accounts.SignOut(name)
	if err == nil {
		a.people.Forget()
		a.changed(r, s, "user signed out", "user", name, "ended", n)
	}
	return http.StatusOK, map[string]int{"ended": n}, err
}

func (a *admin) listTokens(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	name := r.URL.Query().Get("user")
	if name == "" && !a.administrator(r, s) {
		name = s.Name
	}
	if err := a.mustBe(r, s, name); err != nil {
		return 0, nil, err
	}
	all, err := a.accounts.Tokens(name)
	if all == nil {
		all = []user.Token{}
	}
	return http.StatusOK, all, err
}

func (a *admin) addToken(w http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	if err := refuse(!s.Anonymous() && s.Name != localName && s.Limit == nil, s, "only a user who has signed in with his password can make a token"); err != nil {
		return 0, nil, err
	}
	var in struct {
		Note    string   `json:"note"`
		Actions []string `json:"actions"`
		Days    int      `json:"days"`
	}
	if err := a.body(w, r, &in); err != nil {
		return 0, nil, err
	}
	for _, name := range in.Actions {
		if len(actions([]string{name})) == 0 {
			return 0, nil, fault.New(fault.Invalid, "%q is no action: pull, push, delete, admin", name)
		}
	}
	if in.Days < 0 || in.Days > 3650 || len(in.Note) > 200 {
		return 0, nil, fault.New(fault.Invalid, "a token is good for 1 to 3650 days, or 0 for ever; its note has at most 200 bytes")
	}
	if _, err := a.people.Lookup(r.Context(), s.Name); fault.Is(err, fault.NotImplemented) {
		return 0, nil, fault.New(fault.Conflict, "tokens cannot be made for users of a directory that is bound directly: %v", err)
	}
	t := user.Token{User: s.Name, Note: in.Note, Actions: in.Actions}
	if in.Days > 0 {
		t.Expires = time.Now().UTC().AddDate(0, 0, in.Days)
	}
	t, text, err := a.accounts.AddToken(t)
	if err != nil {
		return 0, nil, err
	}
	a.changed(r, s, "token made", "user", t.User, "token", t.ID, "actions", t.Actions, "expires", t.Expires)
	return http.StatusCreated, struct {
		user.Token
		Secret string `json:"token"`
	}{t, text}, nil
}

func (a *admin) removeToken(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	of := s.Name
	if a.administrator(r, s) {
		of = "" // anybody's
	} else if err := a.mustBe(r, s, of); err != nil {
		return 0, nil, err
	}
	id := r.PathValue("id")
	if err := a.accounts.RemoveToken(of, id); err != nil {
		return 0, nil, err
	}
	a.people.Forget()
	a.changed(r, s, "token revoked", "token", id)
	return http.StatusNoContent, nil, nil
}

package guard

import (
	"errors"
	"net/http"

	"berth/base/fault"
	"berth/registry/access"
	"berth/registry/door"
)

// Prefix is where the routes of users and rights begin.
const Prefix = "/berth/registry/v1"

// Patterns are the routes' beginnings, for the one who mounts Admin.
func Patterns() []string {
	all := []string{Prefix + "/whoami"}
	for _, noun := range []string{"users", "tokens", "groups", "orgs", "repositories", "access"} {
		all = append(all, Prefix+"/"+noun, Prefix+"/"+noun+"/")
	}
	return all
}

// admin is the routes of users and rights.
type admin struct {
	*Guard
	door *door.Door
}

// Admin is the handler of the routes of users and rights, which the package's comment lists.
func (g *Guard) Admin() http.Handler {
	a := &admin{g, g.Door()}
	mux := http.NewServeMux()
	route := func(method, path string, serve func(w http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error)) {
		mux.HandleFunc(method+" "+Prefix+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			if method != http.MethodGet && crossSite(r) {
				a.door.Fail(w, r, fault.New(fault.Forbidden, "another site's page may not change anything here"))
				return
			}
			s, ok := a.door.Subject(w, r)
			if !ok {
				return
			}
			status, v, err := serve(w, r, s)
			switch {
			case err == nil:
				door.Answer(w, status, v)
			case errors.Is(err, errAnswered):
			case fault.Is(err, fault.Unauthorized):
				a.demand(w, r, "")
			default:
				a.door.Fail(w, r, err)
			}
		})
	}
	route("GET", "/whoami", a.whoami)

	route("GET", "/users", a.listUsers)
	route("POST", "/users", a.addUser)
	route("GET", "/users/{name}", a.showUser)
	route("PATCH", "/users/{name}", a.changeUser)
	route("DELETE", "/users/{name}", a.removeUser)
	route("POST", "/users/{name}/signout", a.signOut)

	route("GET", "/tokens", a.listTokens)
	route("POST", "/tokens", a.addToken)
	route("DELETE", "/tokens/{id}", a.removeToken)

	route("GET", "/groups", a.listGroups)
	route("PUT", "/groups/{name}", a.setGroup)
	route("DELETE", "/groups/{name}", a.removeGroup)

	route("GET", "/orgs", a.listOrgs)
	route("POST", "/orgs", a.addOrg)
	route("GET", "/orgs/{name}", a.showOrg)
	route("PATCH", "/orgs/{name}", a.changeOrg)
	route("DELETE", "/orgs/{name}", a.removeOrg)

	route("GET", "/repositories", a.listRepositories)
	route("DELETE", "/repositories", a.forgetRepository)
	route("GET", "/access", a.showAccess)
	route("PUT", "/access", a.grantRole)
	route("DELETE", "/access", a.revokeRole)
	route("PUT", "/access/visibility", a.setVisibility)
	route("GET", "/access/explain", a.explain)
	route("GET", "/access/site", a.showSite)
	route("PATCH", "/access/site", a.changeSite)
	return mux
}

// errAnswered says that the client has its answer.
var errAnswered = errors.New("answered")

// body reads a request's JSON.
func (a *admin) body(w http.ResponseWriter, r *http.Request, into any) error {
	if a.door.Body(w, r, into) {
		return nil
	}
	return errAnswered
}

// refuse is nil for whoever may; a stranger is asked to sign in.
func refuse(may bool, s access.Subject, format string, args ...any) error {
	switch {
	case may:
		return nil
	case s.Anonymous():
		return fault.New(fault.Unauthorized, "authentication required")
	}
	return fault.New(fault.Forbidden, format, args...)
}

func (a *admin) mustAdmin(r *http.Request, s access.Subject) error {
	return refuse(a.administrator(r, s), s, "only an administrator of the registry may do this")
}

// mustBe refuses everybody but the user himself, signed in with more than a narrow token, and administrators.
func (a *admin) mustBe(r *http.Request, s access.Subject, name string) error {
	self := name != "" && s.Name == name && s.Limit.Has("", access.Admin)
	return refuse(self || a.administrator(r, s), s, "only %s and an administrator of the registry may do this", name)
}

// mustManage refuses whoever may not give rights on the target.
func (a *admin) mustManage(r *http.Request, s access.Subject, t access.Target) error {
	if err := t.Check(); err != nil {
		return err
	}
	may := a.administrator(r, s)
	rules := a.rights.Rules()
	switch {
	case may:
	case t.Organisation != "":
		may = rules.Manages(s, t.Organisation)
	default:
		may = rules.Decide(s, t.Repository, access.Admin).Allowed
	}
	return refuse(may, s, "only an owner of %s may do this", t)
}

func (a *admin) whoami(_ http.ResponseWriter, r *http.Request, s access.Subject) (int, any, error) {
	return http.StatusOK, map[string]any{
		"name": s.Name, "groups": s.Groups, "admin": a.administrator(r, s), "guarded": a.Guarded(),
	}, nil
}

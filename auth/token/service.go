package token

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"berth/auth"
	"berth/base/fault"
)

// maxForm is the largest request that is read, in bytes.
const maxForm = 64 << 10

// SignIn is somebody who has signed in, with what limits him.
type SignIn struct {
	User     auth.User
	Personal string // id of the personal token that he used for a password, or ""
}

// Service is the token endpoint. All of its functions are called with what a stranger has sent.
type Service struct {
	Issuer *Issuer
	// Password checks a name and a password, or a personal token in its place. Errors as of auth.Authenticator, or *auth.Slow.
	Password func(ctx context.Context, user, password string, from netip.Addr) (SignIn, error)
	// Grant leaves of a scope what he may have. A SignIn without a name is anonymous.
	Grant func(ctx context.Context, who SignIn, asked Scope) ([]string, error)
	// Groups leaves of a user's groups those that the token has to name.
	Groups func(user auth.User) []string
	// Keep makes a refresh token; Refresh checks one, and whether its user still exists.
	Keep    func(ctx context.Context, who SignIn, service, client string) (string, error)
	Refresh func(ctx context.Context, service, text string) (SignIn, error)
	// From gives the client's address.
	From func(*http.Request) netip.Addr
	// Refuse answers with an error in the words of the registry.
	Refuse func(w http.ResponseWriter, r *http.Request, err error)
	Log    *slog.Logger
}

// answer is what a client gets. Docker reads "token", OAuth 2 clients "access_token".
type answer struct {
	Token        string `json:"token,omitempty"`
	AccessToken  string `json:"access_token"`
	Scope        string `json:"scope,omitempty"`
	ExpiresIn    int    `json:"expires_in"`
	IssuedAt     string `json:"issued_at"`
	RefreshToken string `json:"refresh_token,omitempty"`
}

// ServeHTTP answers GET with basic authentication or none, and POST with a form.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	var a answer
	var err error
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		a, err = s.get(r)
	case http.MethodPost:
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		a, err = s.post(r)
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(a)
}

func (s *Service) get(r *http.Request) (answer, error) {
	q := r.URL.Query()
	if err := s.service(q.Get("service")); err != nil {
		return answer{}, err
	}
	var who SignIn
	user, password, given := r.BasicAuth()
	if r.Header.Get("Authorization") != "" && !given {
		return answer{}, fault.New(fault.Unauthorized, "only basic authentication is understood here")
	}
	if given && (user != "" || password != "") {
		var err error
		if who, err = s.Password(r.Context(), user, password, s.From(r)); err != nil {
			return answer{}, err
		}
		// docker login names the account that it wants; a proxy that put in other credentials is told.
		if account := q.Get("account"); account != "" && account != user {
			return answer{}, fault.New(fault.Unauthorized, "signed in as %s, but a token for %s was asked for", user, account)
		}
	}
	a, err := s.issue(r.Context(), who, ParseScopes(q["scope"]))
	if err != nil {
		return answer{}, err
	}
	a.Token = a.AccessToken
	if offline, _ := strconv.ParseBool(q.Get("offline_token")); offline && who.User.Name != "" {
		a.RefreshToken, err = s.Keep(r.Context(), who, s.Issuer.Service, q.Get("client_id"))
	}
	return a, err
}

func (s *Service) post(r *http.Request) (answer, error) {
	if err := r.ParseForm(); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return answer{}, fault.New(fault.Invalid, "the form is larger than %d bytes", maxForm)
		}
		return answer{}, fault.Wrap(fault.Invalid, err, "form")
	}
	f := r.PostForm // not Form: a password has no business in a URL
	if err := s.service(f.Get("service")); err != nil {
		return answer{}, err
	}
	var who SignIn
	var refresh string
	var err error
	switch grant := f.Get("grant_type"); grant {
	case "password":
		who, err = s.Password(r.Context(), f.Get("username"), f.Get("password"), s.From(r))
		if err == nil && f.Get("access_type") == "offline" {
			refresh, err = s.Keep(r.Context(), who, s.Issuer.Service, f.Get("client_id"))
		}
	case "refresh_token":
		refresh = f.Get("refresh_token")
		who, err = s.Refresh(r.Context(), s.Issuer.Service, refresh)
	case "":
		err = fault.New(fault.Invalid, "missing grant_type value")
	default:
		err = fault.New(fault.Invalid, "unsupported grant_type %q", grant)
	}
	if err != nil {
		return answer{}, err
	}
	asked := ParseScopes(f["scope"])
	a, err := s.issue(r.Context(), who, asked)
	a.RefreshToken = refresh
	return a, err
}

// service refuses a token for another service: it would not be good here. None given is ours.
func (s *Service) service(name string) error {
	if name != "" && name != s.Issuer.Service {
		return fault.New(fault.Invalid, "tokens for service %q are not given here, only for %q", name, s.Issuer.Service)
	}
	return nil
}

// issue grants what may be granted of the asked scopes, and signs it.
func (s *Service) issue(ctx context.Context, who SignIn, asked []Scope) (answer, error) {
	granted := []Scope{}
	for _, scope := range asked {
		actions, err := s.Grant(ctx, who, scope)
		if err != nil {
			return answer{}, err
		}
		if len(actions) > 0 {
			scope.Actions = actions
			granted = append(granted, scope)
		}
	}
	user := who.User
	user.Groups = s.Groups(user)
	text, g, err := s.Issuer.Issue(Grant{User: user, Personal: who.Personal, Scopes: granted})
	if err != nil {
		return answer{}, err
	}
	if s.Log != nil {
		s.Log.Debug("token issued", "user", user.Name, "scope", scopeText(granted), "id", g.ID)
	}
	return answer{
		AccessToken: text, Scope: scopeText(granted),
		ExpiresIn: int(g.Expires.Sub(g.Issued) / time.Second), IssuedAt: g.Issued.Format(time.RFC3339),
	}, nil
}

func (s *Service) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var slow *auth.Slow
	if errors.As(err, &slow) {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(slow.After.Seconds()))))
	}
	s.Refuse(w, r, err)
}

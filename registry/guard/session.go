package guard

import (
	"context"
	"errors"
	"net/http"

	"berth/auth"
	"berth/base/fault"
	"berth/registry/access"
)

// SignIn checks the name and password that came with a request otherwise than in its header: in a form of the web page. still
// says, whenever it is asked, who that is by then: an account that was closed, a password that was changed and a token that was
// removed end what began with them. Errors are those of Who.
func (g *Guard) SignIn(r *http.Request, name, password string) (who access.Subject, still func(context.Context) (access.Subject, error), err error) {
	if !g.Guarded() {
		return access.Subject{}, nil, auth.ErrPassword
	}
	if name == localName {
		who, err := g.localSubject(password, g.From(r))
		return who, func(context.Context) (access.Subject, error) { return who, nil }, err
	}
	in, limit, err := g.signIn(r.Context(), name, password, g.From(r))
	if err != nil {
		return access.Subject{}, nil, err
	}
	still = func(ctx context.Context) (access.Subject, error) {
		limit, err := g.personal(in)
		if err != nil {
			return access.Subject{}, err
		}
		return g.now(ctx, in.User, limit)
	}
	return g.subject(in.User, limit), still, nil
}

// now gives a user who has signed in earlier as he is at present. Unauthorized when he is no more, or has another password.
func (g *Guard) now(ctx context.Context, was auth.User, limit *access.Limit) (access.Subject, error) {
	u, err := g.people.Lookup(ctx, was.Name)
	switch {
	case fault.Is(err, fault.NotImplemented):
		return g.subject(was, limit), nil
	case errors.Is(err, auth.ErrNoUser), errors.Is(err, auth.ErrPassword):
		return access.Subject{}, fault.New(fault.Unauthorized, "the account is closed")
	case err != nil:
		return access.Subject{}, err
	case u.Source != was.Source || u.Stamp != was.Stamp:
		return access.Subject{}, fault.New(fault.Unauthorized, "the password was changed: sign in again")
	}
	return g.subject(u, limit), nil
}

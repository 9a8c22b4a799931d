package token

import (
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"berth/auth"
	"berth/auth/secret"
	"berth/base/fault"
)

const (
	// Life is how long an access token is good when the configuration does not say.
	Life = 5 * time.Minute
	// skew is how far the clocks of who issues and who checks may differ.
	skew = time.Minute
	// maxToken is the longest token that is looked at, in bytes.
	maxToken = 16 << 10
)

// Grant is what an access token says.
type Grant struct {
	User     auth.User // Name "": anonymous. Groups are those that rights are given to
	Personal string    // id of the personal token that he signed in with, or ""
	Scopes   []Scope
	Issued   time.Time
	Expires  time.Time
	ID       string
}

// claims is the body of the JWT. "access" is Docker's; "berth" is our own.
type claims struct {
	jwt.RegisteredClaims
	Access []Scope `json:"access"`
	Own    own     `json:"berth"`
}

type own struct {
	Groups   []string `json:"groups,omitempty"`
	Admin    bool     `json:"admin,omitempty"`
	Source   string   `json:"source,omitempty"`
	Stamp    string   `json:"stamp,omitempty"` // of the password
	Personal string   `json:"personal,omitempty"`
}

// Issuer signs and checks access tokens.
type Issuer struct {
	Keys    *Keys
	Name    string        // the claim "iss"
	Service string        // the claim "aud"
	Life    time.Duration // 0: Life
	Now     func() time.Time
}

func (i *Issuer) now() time.Time {
	if i.Now != nil {
		return i.Now()
	}
	return time.Now()
}

// Issue makes a token; it fills in the grant's times and id.
func (i *Issuer) Issue(g Grant) (string, Grant, error) {
	life := i.Life
	if life <= 0 {
		life = Life
	}
	now := i.now().UTC().Truncate(time.Second) // a JWT counts seconds
	g.Issued, g.Expires, g.ID = now, now.Add(life), secret.ID()+secret.ID()
	if g.Scopes == nil {
		g.Scopes = []Scope{} // "access": [] and not null, which Docker's checker refuses
	}
	t := jwt.NewWithClaims(jwt.SigningMethodES256, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: i.Name, Subject: g.User.Name, Audience: jwt.ClaimStrings{i.Service}, ID: g.ID,
			IssuedAt: jwt.NewNumericDate(g.Issued), NotBefore: jwt.NewNumericDate(g.Issued), ExpiresAt: jwt.NewNumericDate(g.Expires),
		},
		Access: g.Scopes,
		Own:    own{g.User.Groups, g.User.Admin, g.User.Source, g.User.Stamp, g.Personal},
	})
	t.Header["kid"] = i.Keys.id
	text, err := t.SignedString(i.Keys.signer)
	return text, g, fault.Wrap(fault.Internal, err, "sign a token")
}

// Check reads a token. Errors are Unauthorized.
func (i *Issuer) Check(text string) (Grant, error) {
	if len(text) > maxToken {
		return Grant{}, fault.New(fault.Unauthorized, "invalid token: too long")
	}
	var c claims
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{"ES256"}), // never the method that the token itself names: "none", HS256 with the public key
		jwt.WithIssuer(i.Name), jwt.WithAudience(i.Service),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(skew), jwt.WithTimeFunc(i.now),
	)
	_, err := parser.ParseWithClaims(text, &c, func(t *jwt.Token) (any, error) {
		id, _ := t.Header["kid"].(string)
		key, ok := i.Keys.public[id]
		if !ok {
			return nil, errors.New("signed with a key that is not ours")
		}
		return key, nil
	})
	if err != nil {
		return Grant{}, fault.Wrap(fault.Unauthorized, err, "invalid token")
	}
	g := Grant{
		User:     auth.User{Name: c.Subject, Groups: c.Own.Groups, Admin: c.Own.Admin, Source: c.Own.Source, Stamp: c.Own.Stamp},
		Personal: c.Own.Personal, Scopes: c.Access, ID: c.ID, Expires: c.ExpiresAt.Time,
	}
	if c.IssuedAt != nil {
		g.Issued = c.IssuedAt.Time
	}
	return g, nil
}

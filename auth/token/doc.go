// Package token issues and checks the tokens of Docker's registry protocol.
//
// A client that is refused reads from the challenge (WWW-Authenticate: Bearer realm="…",service="…",scope="…") where to
// get a token and for what, asks there with its name and password (GET, or POST with OAuth 2's fields), and comes again
// with the token:
//
//	client → registry   PUT /v2/team/web/…                                        401, the challenge
//	client → here       GET /token?service=S&scope=repository:team/web:pull,push   200 {"token": …, "expires_in": 300}
//	client → registry   the same, with Authorization: Bearer …
//
// Words. A scope is a kind of thing, its name and actions (repository:team/web:pull,push). An access token is a JWT
// signed with ES256 that names its user and the scopes that he asked for and may have: what he may not is left out, which is
// no error. A refresh token is a random secret that is good for new access tokens in place of a password.
//
// The life of a key: made at the first start in a file of mode 0600 → signs → a newer one is put before it in the file, it
// only checks from then on → taken out. Its id (kid) is its thumbprint after RFC 7638.
//
// The package knows neither users nor rights: Config plugs both in. It never logs a token.
package token

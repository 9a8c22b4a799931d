// Package guard stands at the registry's gate: it joins who somebody is (auth) and what he may do (registry/access) to what
// the doors need.
//
// Words. The registry is open while it knows no user at all: everybody may push, pull and delete, and whoever comes from this machine
// administrates it. It is guarded as soon as there is a password file, a directory or one account: the first account
// that is added guards it, without a restart. The local key is a secret in ROOT/auth/local.key, made anew at each start,
// which administrates the registry for whoever may read that file.
//
// Who finds out who makes a request:
//
//	no Authorization                    anonymous; on /v2/ and /v2/_catalog itself the answer is a challenge, as Docker's
//	                                    clients learn from it where to sign in
//	Basic NAME:PASSWORD                 a user of the accounts, the password file or the directories, in this order
//	Basic NAME:berth_…                  a personal access token of the user
//	Basic @local:KEY, Bearer KEY        the local key
//	Bearer JWT                          an access token of the token service: the user, limited to its scopes
//
// Routes. GET and POST /token are Docker's token service (auth/token), GET /token/keys its public keys. The rest stands
// below /berth/registry/v1; bodies and answers are JSON, the caller signs in with Basic, or with a token of the scope
// registry:site:admin. A is for administrators of the site, M for who manages the organisation or repository, U for the user himself.
//
//	GET    /whoami                             {"name","groups","admin"}
//	GET    /users                         A    [{"name","admin","closed","created","changed"}]
//	POST   /users                         A    {"name","password","admin"} → 201
//	GET    /users/{name}                  A U
//	PATCH  /users/{name}                  A    {"password","admin","closed"}, each may be left out; closes at once
//	                                      U    {"old","password"}
//	DELETE /users/{name}                  A    with his tokens, and out of all grants and groups
//	POST   /users/{name}/signout          A U  ends what docker login has stored → {"ended": N}
//	GET    /tokens?user=NAME              A U  personal tokens; of all users for an administrator who names none
//	POST   /tokens                        U    {"note","actions":["pull"],"days":90} → {"id","token",…}: the token is shown once
//	DELETE /tokens/{id}                   A U
//	GET    /groups                        A    {"dev":["alice"]}: the site's own groups
//	PUT    /groups/{name}                 A    {"members":["alice","bob"]}
//	DELETE /groups/{name}                 A
//	GET    /orgs                               the organisations that the caller is in
//	POST   /orgs                          A    {"name","description","visibility","owners":["alice","@dev"]} → 201
//	GET    /orgs/{name}                   M    {"name","description","visibility","grants":{"user:alice":"owner"},"created"}
//	PATCH  /orgs/{name}                   M    {"description","visibility"}
//	DELETE /orgs/{name}                   A    its repositories stay
//	GET    /repositories?prefix=P&n=N          [{"name","visibility","inherited","by","created"}] of those that the caller may see
//	DELETE /repositories?repository=R     A    its owner, visibility and grants are forgotten; its content stays
//	GET    /access?repository=R           M    {"visibility","inherited","grants"}; also ?organisation=O
//	PUT    /access                        M    {"repository" or "organisation","to":"bob"|"@dev"|"signed-in"|"anyone","role":"writer"}
//	DELETE /access?repository=R&to=WHO    M    also ?organisation=O
//	PUT    /access/visibility             M    {"repository" or "organisation","visibility":"public"|"internal"|"private"|"inherit"}
//	GET    /access/explain?user=U&group=G&repository=R&action=A   A, M and U: {"allowed","why","lines"}
//	GET    /access/site                   A    {"visibility","creation","admins"}
//	PATCH  /access/site                   A    the same fields, each may be left out
//
// The life of a request: the client's address is damped when it guesses passwords → Who → the part that the request is for asks Allowed →
// Challenge or Refusal when it may not. Changes of users and rights, and refused sign-ins, are logged with "audit": true.
package guard

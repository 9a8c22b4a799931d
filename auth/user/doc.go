// Package user keeps the accounts of a site: users with a password, the personal access tokens that users make for their
// scripts, and the refresh tokens that `docker login` stores instead of a password.
//
// Words. An account has a name, a bcrypt hash, perhaps the mark of an administrator, and may be closed. A personal
// token is a secret that is good instead of the password of its user (of any source: an account, a password file, a
// directory) for a set of actions and until a day. A refresh token is a secret that gives new access tokens for a user
// until it is revoked, expires, or the password it was given for is changed (auth.User.Stamp).
//
// The life of a secret: made, shown once, kept as a fingerprint → checked, and when it is: does its user still exist → revoked,
// or swept when it has expired.
//
// Everything stands in one bbolt database; a change is synced before it is answered. docs/formats-registry.md tells the
// format. The package never decides what a user or a token may do: it stores the names of actions as they are given.
package user

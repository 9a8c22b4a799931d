// Package auth says who somebody is: it turns a name and a password into a user with groups.
//
// Words. A user has a name, the groups he is in and, for the few, the mark of an administrator. An authenticator
// knows users: a password file (auth/htpasswd), a directory (auth/ldap), the registry's own accounts (auth/user). A
// Chain asks several in turn. A Cache remembers, for a short time and only as a keyed hash, which password was right, so
// that a client that sends it with every request does not cost a bcrypt or a directory's round trip each time. A Damper
// makes guessing slow, by account and by address.
//
// The life of a sign-in: Password → ErrNoUser (the next authenticator is asked), Unauthorized (the answer is no), or a User.
// An authenticator that cannot be reached answers Unavailable: a password that could not be checked is never right, and
// never called wrong.
//
// The package never decides what a user may do: rooms that own things do (registry/access). It never logs a password
// and never keeps one.
package auth

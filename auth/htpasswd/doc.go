// Package htpasswd knows users from a password file as Apache's htpasswd -B writes it: NAME:HASH, one a line, # for
// comments. The first line for a name counts.
//
// Only bcrypt is accepted ($2a$, $2b$, $2y$), with a cost of at most 15. Lines with anything else (MD5, SHA, crypt, plain
// text) are told of as a Problem with their number and never match; so are bcrypt hashes that are cheap to guess, which do match.
//
// The life of a File: Open reads it → Password compares, after a look whether the file has changed → Close is not
// needed. When the file cannot be read nobody is let in. A name that the file does not have costs the same time as one
// that it has.
//
// The package never writes the file of the user: htpasswd(1) does. Users that the registry keeps itself are auth/user's.
package htpasswd

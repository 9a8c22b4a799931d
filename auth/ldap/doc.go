// Package ldap knows users and groups from an LDAP directory: OpenLDAP and its relatives, Active Directory, Samba.
//
// Words. A directory has servers that hold the same entries; one that does not answer is passed over for a while. A
// login is what a person types: alice, alice@corp.example (a user principal name) or CORP\alice. The service account is
// the one that the package searches with (BindDN). A direct bind has none: the login is put into a template that is
// bound with the person's own password.
//
// The life of a sign-in: the login is split and escaped → the user's entry is searched for, and must be exactly one →
// its DN is bound with the password → its groups are collected, also the groups that those are in → they get the names
// that rights are given to. With a direct bind, binding comes first and the person's own connection searches.
//
// Connections of the service account are kept and used again; passwords of users are bound on others, so that no
// search runs with a user's rights. Referrals are not followed: they would carry a password to a server that nobody
// configured.
//
// The package never writes to the directory, never logs a password, never sends an empty one (which servers answer
// with success, RFC 4513 section 5.1.2), and sends none unencrypted over a network unless it is told to.
package ldap

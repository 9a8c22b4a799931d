// Package http gives files from the web to builds: ADD https://…, and contexts that are an address.
//
// The words:
//
//	address   what is fetched and what the file is to look like: name, permissions, owner
//	answer    what a server said about an address: the file's digest, its entity tag (RFC 9110, 8.8.3), its time
//	download  a draft with the one file in it, not yet sealed
//
// The life of an address: Source parses a vertex' attributes. Pin finds the digest of what is there now: from the address itself where it
// has a checksum; by asking the server whether the entity tag of the last answer still holds; else by downloading. What a build was
// told once stays true for it (package pinned), and the download is kept until its session ends. The solver looks for a record
// under the pinned key, and only if there is none asks for the snapshot, which is the download sealed.
//
// Answers are kept in ROOT, one small file for each address; losing one costs a download. Downloads are bounded in size, and what does not
// have the digest that it was pinned to is never sealed. One that breaks is taken up where it broke (resume.go). Secrets for a server come from the build's session, go into the request's header and
// nowhere else.
//
// The host "buildkit-session" is no server: the build's client sends the file over its session.
package http

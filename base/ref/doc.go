// Package ref reads and prints image references by Docker's rules.
//
// A Ref is a repository (domain and path) with at most a tag and a digest. "busybox" is read as
// docker.io/library/busybox; String prints the full form, Familiar the short one that people see. A Ref is a
// comparable value: it can be a map's key. The rules are those of distribution/reference; this package
// gives them a value to hold and the project's error kinds.
// It never decides whether a text is a name or an image's id: LooksLikeID tells what it could be.
package ref

// Package git gives builds the files of git repositories: ADD of a repository, and contexts that are one.
//
// The words:
//
//	remote     the address of a repository, as git takes it
//	ref        what the build calls a version: a branch, a tag, a commit; nothing means the remote's default branch
//	version    what a ref means now: the object that it names, a commit or an annotated tag, and the tag's commit
//	mirror     a bare repository of ours with what was fetched from one remote so far, as shallow as possible
//	checkout   the files of a version, in a draft
//
// The life of a source: Source parses a vertex' attributes. Pin asks the remote what the ref means (git ls-remote), unless the ref is a commit; what a
// build was told once stays true for it (package pinned).
// The solver looks for a record under the pinned key; if there is none the snapshot is asked for: the version is fetched into the mirror, which
// costs what has changed since the last time, and checked out.
//
//	ROOT/HEX/repo     the mirror; HEX is the sha256 of the remote
//	ROOT/HEX/remote   the remote, without passwords (docs/formats-build.md)
//
// A mirror is a cache: one that git finds fault with is deleted and made anew. It is locked within the process while git works in it, and what
// a git that was killed left locked is unlocked by the first one to use it.
//
// A submodule is a repository as any other: from a mirror of its own, checked out by the same steps below what it belongs to (submodule.go says why
// not by git's command).
//
// Git is the host's program, at least 2.31, and neither repositories nor remotes are trusted. It runs in a box (build/exec/host) that has the host's
// programs, the one mirror or work tree that it works on, and a network only to fetch: with no capability, no process of others in sight, and no
// file of the host's beside. That is for the day on which git has a hole. Its settings are the first wall: an environment of our
// own without the host's configuration, no hooks, no helpers, no passwords asked for, https, http, ssh and git as the only protocols, and for
// what is read here none at all. What is checked out is written with the mirror read-only. Passwords and tokens go to git through the
// environment, which other users cannot read, not as arguments.
// They come from the build's session and are taken out of everything that is logged.
package git

// Package file makes, copies and removes files for a build: LLB's FileOp, which COPY, ADD and WORKDIR become.
//
// The words:
//
//	action   one change: copy, mkdir, mkfile, symlink or rm. An op is a list of them; each works on what an input or an earlier
//	         action gives, and some give an output of the op
//	base     the tree that an action changes: a draft on the snapshot it was given
//	source   the tree that a copy reads: a build context, another stage; never changed
//	match    one path that a copy's source pattern stands for
//
// The life of an Op: New makes the room's handle, Ops.Op checks a FileOp and gives its solver.Op. The solver asks Key and Reads to find
// it in the cache; else Run walks the actions from the outputs back, keeps one draft for a chain of actions, and seals it where an output or a
// second reader needs a snapshot.
//
// The meaning of every option is that of BuildKit's file op (solver/pb/ops.proto, tonistiigi/fsutil's copy), so that the same Dockerfile
// gives the same tree.
//
// Trees are untrusted. A path is resolved once, with links followed inside its tree (resolve), and what it leads to is opened by
// openat2(2) with the tree as the root (kernel/tree); below that, everything goes by descriptor and name and no link is followed. The
// package never looks at the host's files, never runs a program, and holds at most a copy buffer of a file in memory.
package file

// Package stepshell is a shell for places that have none: a step of a build whose files are one static program. It is brought along inside
// berth itself.
//
// It reads lines, expands variables, knows the few commands that one needs to look around, and runs any other program that is there. It has no
// pipes, no scripts, no jobs: whoever needs more mounts a real shell.
package stepshell

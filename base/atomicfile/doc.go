// Package atomicfile writes files that are, after a crash at any moment, either the old one or the new one,
// whole: a temporary file beside the target is written and fsynced, renamed over the target, and the
// directory is fsynced. When a call returns nil, the change survives a power cut.
//
// Left-overs of a crash are named ".tmp-NAME-…"; the owner of the directory calls Sweep when it opens it.
// Its failpoints ("atomicfile/…") are those of every room that writes by it: with a count, any single write of a process can be made the
// one that fails or that the process dies at.
//
// The package never follows the target when it is a symbolic link: the link is replaced.
package atomicfile

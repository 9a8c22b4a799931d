// Package content tells what a build step reads of a tree, as a digest.
//
// Words. A selector says what a step reads of an input: a path, perhaps with wildcards, perhaps narrowed by patterns. Its digest
// covers names, types, permissions, owners, link targets, the capability attribute and the bytes of files, and no times: a file that
// was only touched gives the same digest, so the step's recorded outcome is found again.
//
// Digests are remembered by the identity of the tree, which never changes. The index of a local tree gives the digests of its files, so
// that nothing is read; of a chain the selected files are read once.
//
// The package never writes to a tree.
package content

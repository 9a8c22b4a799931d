// Package local brings directories of clients here: build contexts, and whatever else a client offers by name.
//
// Words. A context is a directory that the client of a session offers under a name ("context", "dockerfile"). A
// request says which of its files are wanted: patterns to include, to exclude, and paths whose links are to be followed; the client
// applies them. A tree is our copy of what one request selects. Its index lists what is in it, in the order of the stream, with
// the sha256 of each file's content. The group of a tree is what its contents were selected from: client, directory and name;
// other trees of the group are its siblings.
//
// What goes over the wire is fsutil's protocol (DiffCopy of BuildKit's FileSync service): the client walks its directory
// and sends a STAT for each file, in order; we answer REQ for those whose data we want; DATA packets of several files come
// interleaved with further STATs; FIN from both ends it.
//
//	STAT a/b …   compared with the index, byte for byte: both are sorted, so that this is one pass over two lists,
//	             and a context that has not changed costs a read of the index, and no system call for any file
//	REQ 17       for a file that is new or has changed, unless a sibling has it: then it is a hard link
//	DATA 17 …    hashed while it is written
//
// A tree's life: it is made for the first request of its kind, locked for the time of each sync, and given out as a snapshot.Tree, as often
// as wanted, until all have closed it: only then the next sync may change it. Who comes meanwhile gets another tree, which is made
// of links to the first. Files in trees are never changed: they are replaced by new ones, because siblings share them.
//
// A sync first takes the index away, and puts a new one in its place when it is done, so a tree without an index is one that an engine
// died over, and is deleted. An index counts in the boot it was written in; for the next one, Close makes what it says durable
// and leaves a file that says so. What goes wrong on the wire costs what had not arrived, not the tree.
//
// On disk (docs/formats-build.md):
//
//	ROOT/ID/fs       the tree
//	ROOT/ID/index    what is in it
//	ROOT/ID/tree     whose it is
//	ROOT/ID/durable  the index was true when everything was on the disk
//	ROOT/trash/…     what is being deleted
//
// A client is not trusted with paths: a name that leads out of the tree, or below something that is no directory, or that
// comes out of order, ends the sync. Attributes that overlayfs would take for its own marks are refused too.
//
// The package never reads a client's directory itself, and never decides what of a tree a step reads.
package local

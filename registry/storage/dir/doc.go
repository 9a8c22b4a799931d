// Package dir is the storage driver on a directory. A key is a file's path below the root; beside those there are
//
//	lock            held with flock(2) by the one process that serves the directory
//	tmp/            files in the making, swept when the directory is opened
//	uploads/ID      the bytes of an upload that have arrived
//	uploads/ID.state    what the store keeps with them: a line with the size it belongs to and the machine's boot id, then the store's bytes
//
// A file gets its name only when its bytes are on disk, and the name is on disk before anybody is told. All paths go through os.Root:
// neither a name nor a link that somebody plants leads out of the root. The driver never looks into what it keeps.
package dir

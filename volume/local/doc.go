// Package local is the driver of volumes that are directories of this host, or something that is mounted there.
//
//	ROOT/NAME/_data         the content; where type, o and device ask for a mount, the place it is mounted on
//
// Options are Docker's: type, o and device as of mount(8), an NFS or CIFS server's name in o=addr=… looked up at each mount; and
// size, a limit kept by the file system's project quotas (package quota).
//
// Life of a mounted volume: its first user makes it be mounted, its last makes it go away. Users are noted in RUNROOT/users
// (package use), so that the next engine knows them. A plain directory has no users here: there is nothing to undo.
//
// A mount is made detached (fsopen, fsmount) by a goroutine of its own and attached only when it came in time. A server that
// does not answer costs one waiting thread, and nothing appears later: the detached mount is closed by whoever made it. While a
// try is still stuck in the kernel, further ones for that volume are refused at once.
package local

// Package trash is what was removed and can be had back, from all rooms together.
//
// Each room keeps its own things: the trash of containers is with the containers, that of volumes with the volumes, so that moving a
// thing there is one rename on one file system. A Bin is such a room. The Trash shows them as one list, finds an entry by id or name,
// restores a container with the volumes that went with it, and deletes what is past its time, or, if that was asked for, the oldest
// entries when the disk is getting full.
//
// The package never decides what goes into the trash; rooms do, at a removal.
package trash

// Package archive turns tar archives into directory trees and back.
//
// Apply unpacks an archive (a layer, or what a client copies into a container) below a directory it must never
// leave. Diff writes an overlay's upper directory as an OCI layer, Tree writes a whole tree. The words:
//
//	whiteout   in an archive the empty file .wh.NAME: NAME of the layers below is deleted. On disk, for overlayfs,
//	           the character device 0/0 called NAME
//	opaque     in an archive .wh..wh..opq in a directory: nothing of the layers below shows through. On disk
//	           the extended attribute trusted.overlay.opaque=y (user.overlay.opaque without privileges)
//	implied    a directory that entries lie in but that the archive has no entry for
//	shadow     a file that a later entry of the same archive replaced: kept aside, because the exact archive is
//	           rebuilt from the unpacked files (see package split)
//
// Nothing is fsynced here: the owner of the tree syncs it once, when it is whole.
// Paths: every entry's parent is opened by openat2 with the tree as root (package kernel/tree); the entry itself
// is made by name in that descriptor, and never followed if it is a link.
package archive

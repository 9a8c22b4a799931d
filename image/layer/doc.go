// Package layer stores image layers unpacked, once each, and gives containers a writable layer on top of them.
//
// Words. A diff is one unpacked layer, named by the sha256 of its uncompressed tar (its diff id). A chain is the
// diffs of an image, the lowest first. A container layer is the upper and work directory of one container with its
// chain. The skeleton is the lower directory that lies on top of every chain and holds the mount points that a
// runtime needs (/dev, /proc, /sys, /etc/hosts …), so that nothing is created in an upper directory.
//
// Diffs are kept by diff id and not by chain, although their meaning depends on what lies below: whiteouts and
// opaque marks speak only of what is below and overlayfs looks at them at mount time, so one unpacked diff is right
// in every chain.
//
// On disk (docs/formats-image.md has the files):
//
//	ROOT/d/SHORT/fs          the tree; SHORT is 20 base32 digits of the diff id, because a mount's options must fit in a page
//	ROOT/d/SHORT/layer.json  what it is
//	ROOT/d/SHORT/split.zst   what rebuilds the exact tar together with fs (package split)
//	ROOT/d/SHORT/shadow/N    content that rebuilding needs but that a later entry of the tar replaced
//	ROOT/c/ID/fs, work       a container's upper and work directory
//	ROOT/c/ID/layer.json     its chain
//	ROOT/s/KEY/fs            a skeleton
//	ROOT/v/NAME              views of lazy diffs that have just been unpacked
//	ROOT/tmp/…               diffs being unpacked; ROOT/trash/… what is being deleted. Open clears all three.
//
// A diff's life: Stage unpacks a tar into tmp, hashing it on the way; Commit makes it durable (one syncfs for any
// number of diffs), and renames it into d, from when on it never changes. Diffs are counted: Commit and Retain give
// a hold, containers hold their chain, and the diff whose last hold is released is renamed to trash at once and
// deleted in the background. After Open the owner of the images retains what they need and calls Sweep.
//
// A lazy diff is one that is not unpacked yet: package lazy mounts a view of it on its fs and has it unpacked in the
// background; lazy.go is the seam. Until then it cannot be told from others by who mounts it.
//
// Durability: a committed diff survives a power cut. A container layer does not have to: until something syncs, it is
// as good as new, and Create on an id that exists gives the same layer again, so an engine that finds its record without
// a layer creates it anew.
//
// The package never reads an image's configuration and never runs anything in a container.
package layer

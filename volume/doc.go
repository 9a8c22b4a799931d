// Package volume is named directories that outlive containers.
//
// Words. A volume has a name, a driver that serves it (package driver), options for that driver, and labels. Somebody uses a
// volume while he has it mounted: a container, by its id. Who refers to a volume without running is the engine's knowledge
// (UsedBy). A pin is a bind mount of a part of a volume (a subpath) or of a snapshot read-only; what is pinned cannot be swapped
// by whoever writes into the volume.
//
// On disk (docs/formats.md):
//
//	ROOT/NAME/volume.json      the record: version, driver, options, labels, when made. NAME is the truth, not a field
//	ROOT/NAME/_data            the content, of the local driver
//	ROOT/NAME/filling          while an image's files are being copied in: what is there is no user's
//	ROOT/.new-…, .gone-…       being made, being removed; Open removes them
//	ROOT/.renaming-NAME        holds the name that NAME is being given; Open goes on with it
//	ROOT/.csi/                 what CSI drivers need (package csi)
//	RUNROOT/pins/USER/KEY      pins of this boot
//	RUNROOT/users/…            users of mounted volumes (packages local, external)
//
// Life of a volume: Create stages a directory, syncs it and gives it its name, so that it is there whole or not at all; Mount and
// Unmount by containers; Remove takes the name away first and the content after. Every answer follows the sync that makes it
// true after a power cut. Open finishes what a dead engine began; Recovered then ends the uses of containers that do not run.
//
// Locks: one turn per name, held across the work on that volume, so that a driver sees one call at a time for it; waiting for it
// ends with the context. mu guards memory only.
//
// The package never knows what a container is, starts nothing, and leaves directories under ROOT alone whose names no volume
// could have.
package volume

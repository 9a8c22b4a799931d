// Package snapshot gives build steps their file trees: what they read and what they make, in the engine's own layers.
//
// Words. A snapshot is a file tree that never changes: a chain of layers (diff ids, the lowest first) in the layer
// store, or a local tree: a directory on disk such as a build's context. A draft is a writable overlay on a snapshot;
// sealing it turns its upper directory, by rename, into a layer on top of that snapshot's chain: nothing is copied, and
// nothing but what changed is read. A promise is a chain whose layers may not be here yet: who needs the files fetches them, who
// only needs the name never does. The identity of a snapshot is a digest that stands for its content.
//
// Life of a snapshot: Scratch, FromChain, Promise, FromTree, Seal, Merge, Diff or Solid give a handle; Share gives another one to
// the same tree; the last Release gives the layers' holds or the tree back. Life of a draft: Draft, any of Do, Open, Path and
// Mount in turn (never two writable mounts at once, overlayfs forbids it), then Seal or Drop.
//
// Every step adds exactly one layer to its base's chain, an empty one where it changed nothing: so an image's history
// tells which layer came from which step. Empty layers cost nothing and are never mounted.
//
// Durability: a sealed layer is on its way to the disk; Durable waits until it is there, together with all others that
// are on the way. Whoever writes down a chain (a cache record, an image) calls it first.
//
// The package never runs anything, knows nothing of LLB and holds no cache.
package snapshot

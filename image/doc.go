// Package image is images at rest: what they are, what they are called, and how they come in archives and go out.
//
// Words. An image is a configuration document (its digest is the image's id) and the chain of layers that it names.
// A manifest or index is a document that an image came with; its digest finds the image too. An origin is one such
// manifest with the index that it was chosen from and what belongs to that. The images of several platforms are
// independent of each other; what joins them is an index that names their manifests. A name is a reference with a tag, or with
// the digest of a manifest or index (a repository digest); it stands for its root, that index or manifest, and gives one image of it:
// this machine's. An image that only such a name reaches is a sibling: it is listed under the one that the name gives.
// An image without names is dangling. A source says where a layer's compressed blob can be had again. Parent is the image that a
// commit was made on; images with children cannot be removed. A hold is a lease on what must not be deleted.
//
// An image's life: Load, Import, Commit or (from other rooms) Register brings its layers into the layer store
// and its documents into the blob store, and then makes the image and its names visible in one transaction, durably,
// before it answers. Names move: the image that loses its last one is dangling. Remove takes names, and with the last one
// the image; layers and documents that no other image and no container needs go with it.
//
// Nothing here is collected by a pause: what is referred to is counted, in memory, from the database at the start, and
// goes with its last reference. What is under way takes a Hold first, so that pulls, pushes, saves, removals and prunes run at
// the same time. Lock order: Store.changing, Hold.mu or Store.mu, then those of blob and layer.
//
// On disk (docs/formats-image.md):
//
//	ROOT/images.db   bbolt: images, names, sources, format version
//	ROOT/blob        documents and kept compressed layers (package blob)
//	ROOT/layer       unpacked layers and container layers (package layer)
//
// The package never talks to a registry and never starts a container. Who uses an image is asked of the engine by
// the function given to UsedBy.
package image

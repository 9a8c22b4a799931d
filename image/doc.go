// Package image is images at rest: what they are, what they are called, and how they come in archives and go out.
//
// Words. An image is a configuration document (its digest is the image's id) and the chain of layers that it names.
// A name is a reference with a tag, or with the digest of a manifest (a repository digest). An image without
// names is dangling. A manifest or index is a document that an image came with; its digest finds the image too.
// Parent is the image that a commit was made on; images with children cannot be removed.
//
// An image's life: Load, Import, Commit or (from other rooms) Register brings its layers into the layer store
// and its documents into the blob store, and then makes the image and its names visible in one transaction, durably,
// before it answers. Names move: the image that loses its last one is dangling. Remove takes names, and with the last one
// the image; layers and documents that no other image and no container needs go with it.
//
// On disk (docs/formats-image.md):
//
//	ROOT/images.db   bbolt: images, names, format version
//	ROOT/blob        documents (package blob)
//	ROOT/layer       unpacked layers and container layers (package layer)
//
// The package never talks to a registry and never starts a container. Who uses an image is asked of the engine by
// the function given to UsedBy.
package image

// Package export brings what a build gave to where it shall go: into the engine's images, to a registry, or through
// the client's session into an archive or a directory.
//
// Words. A result is one tree, or one for each platform, with what the frontend says of it (image configurations,
// platforms, annotations) and what is attested of it. An output is one place that somebody wants it at, checked before the build
// starts. A root is the document that stands for the whole: a manifest, or the index of several. A blob is a layer as it travels:
// its tar, compressed in one of several ways.
//
// An output's life: Resolve reads its attributes (those that mean nothing are errors, before anything was built); Export
// evaluates the result, completes the image's configuration (layers, history, times), makes the documents and brings all that to its
// place; it tells what it made in BuildKit's words (containerimage.digest and so on).
//
// Layers lie unpacked in the layer store and nowhere else. An image that goes no further than the engine's store gets no
// compressed layers: it has a configuration and no manifest, until a push makes one. Where a document must name blobs (an index, an
// attestation, an annotation), a layer's blob is made once to learn its digest, which is remembered (memory.go), and is not kept, for the
// compressor gives the same bytes each time. Only what it would not make again (an uncommon level, estargz) is kept in the blob store.
//
// Attestations that buildx adds without being asked (inline-only) go only with what is pushed; what is asked for goes everywhere.
//
// Timestamps: with rewrite-timestamp the layers above the base are made anew with no time later than the epoch, and the image
// consists of these; so two builds of one input give one digest.
//
// The package never runs a build step, and never reads a layer's directory except through the layer store and snapshots.
package export

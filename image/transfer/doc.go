// Package transfer moves images between registries and the image store: pull and push, each as a plan that prints
// and its application.
//
// Words. A root is the document that a tag or digest names at a registry: a manifest, or an index of manifests for
// several platforms, perhaps nested. A layer has two names: its diff id (of the uncompressed tar, what the store knows it by)
// and its blob (the compressed form, what registries know it by); a source says which blob of which
// repository gives a diff id. A flight is one layer on its way into the store, shared by all pulls that want it.
//
// A pull's life:
//
//	PlanPull   resolve the name, read root, manifest and configuration, look at what is here; changes nothing
//	verify     Config.Verify is asked about the root
//	fetch      each missing layer: registry → sha256 of the blob → decompress → diff id → unpack, in one pipe; nothing
//	           is written twice, MaxDownloads layers at a time over all pulls
//	commit     all layers of the image durable and named in the layer store, with one syncfs
//	register   documents, sources, image and, with the same transaction, its names
//
// Whatever fails or dies before "register" leaves no name and no space used: staged layers are dropped, at the latest when the
// store is opened again.
//
// A push's life: PlanPush reads what the image is made of; then for each layer the first of these that works:
// the target has it; the target's registry mounts it from a repository that has it; the blob is kept here; it is streamed
// from its source to the target; it is rebuilt from the unpacked layer and compressed, and then the manifest, and with it the
// image's digest at the registry, is a new one, which is said. Manifests go last, the root with its tag at the very end,
// so a push that dies leaves nothing at the target that has a name.
//
// Progress is told in Docker's words (its JSON stream's fields). A client that goes away cancels only its own interest in
// a flight.
//
// The package never opens a connection itself (package remote does), never looks at containers, and never gives a name to an
// image that was not verified down to the last byte.
package transfer

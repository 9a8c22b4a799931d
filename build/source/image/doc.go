// Package image gives builds the images that they begin with.
//
// Words. A source names an image: docker.io/library/debian:13, perhaps with a digest. To resolve it is to find which image of which
// platform that is now: its digest at the registry, its configuration, and the chain of its layers. It is found here, in the
// engine's own image store, or at its registry.
//
// An image that is here wins over the registry, as in Docker, unless the client asks for a pull; what is here for another platform is
// passed over. A resolved image costs a few documents. Its layers are promised: the snapshot's identity is known from the diff ids that the
// configuration names, so a build whose steps are all cached never fetches them, and what is fetched goes layer by layer
// into the engine's layer store, verified as in a pull. No image is registered and no name is set; the layers stay for as
// long as a step's record or an image holds them.
//
// Credentials come from the session that asks, and what was resolved with them is remembered for that session only, so that all platforms and
// steps of a build see the same image behind a tag.
//
// The package never decides what a tag should mean to people (the frontend pins it), and never writes a name.
package image

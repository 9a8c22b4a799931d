// Package remote is the client of registries: it asks them for manifests and blobs and gives them some.
//
// Words. A registry is what a name's first part means (docker.io, localhost:5000). An endpoint is one server that
// may be asked for a registry's content: its mirrors in their order, then the registry itself. What is known of an
// endpoint (https or plain HTTP, how it wants to be asked who we are) is learnt once by GET /v2/ and kept in the Client.
// A Repository is one name at a registry together with the credentials of one caller; tokens live in it.
//
// The life of a Repository: Client.Repository makes it without a word on the wire; Resolve and Manifest find out
// what a tag means; Blob streams content and goes on after a broken connection where it was; Mount, PushBlob and
// PushManifest give content. It is dropped when the pull or push is over.
//
// Everything a registry says is a claim. Manifests are verified here, because they are small. Blobs are streamed:
// whoever reads one hashes it. Names, digests, redirects, lengths, ranges and links are checked before they are used;
// credentials go to the server that they were given for, to the token server that it names, and nowhere else.
//
// Errors carry a fault kind and Docker's words: NotFound (also for "pull access denied", as in Docker), Unauthorized, Forbidden, and
// Unavailable for what may go away by itself: 429, 5xx and a network that does not answer. errors.As finds the Refusal with
// the status and the code that the registry gave.
//
// The package keeps nothing on disk and never decides which platform, which layer or which name is wanted.
package remote

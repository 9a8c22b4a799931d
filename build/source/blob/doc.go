// Package blob gives builds single blobs of registries and of clients' content stores, each as a tree of one file.
//
// Words. A source names a blob by the digest of its content: docker-image+blob://REPOSITORY@DIGEST is in a registry,
// oci-layout+blob://NAME@DIGEST in a store that a session offers. The file is called as the operation says, else by the digest's hex
// digits; its time is the beginning of 1970.
//
// What is read is hashed while it is written, and not kept when it is something else. A blob that was fetched is found again as a
// record of the cache, under its repository's name: a digest is no password.
package blob

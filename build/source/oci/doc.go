// Package oci gives builds images that their clients have on disk as OCI layouts.
//
// Words. A store is a content store that a session offers under an id: blobs by digest, read over containerd's content service. A source
// names an image in it by the digest of its manifest or index (oci-layout://NAME@sha256:…); the name says nothing.
//
// It works as package source/image does: to resolve costs a few documents, the layers are promised and read when a step needs
// their files, unpacked into the engine's layer store and verified against the configuration's diff ids. Every document is
// verified against the digest that named it, and bounded in size, before it is looked at: the client is a stranger.
//
// The package never writes into a client's store.
package oci

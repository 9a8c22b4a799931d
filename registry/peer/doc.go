// Package peer holds what mirrors (registry/upstream) and replication (registry/replicate) share: how people name another
// registry, and when a password that is not said again stays.
//
// Words. A peer is another registry, by its address and an account there. A name is what people call it here.
//
// A peer's life: it is written into settings, or set while the registry runs; Address gives its plain form; Keeps decides
// what a change of it may take over. The package never contacts a peer and keeps nothing.
package peer

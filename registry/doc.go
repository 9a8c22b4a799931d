// Package registry is the registry server: it opens a registry's root, joins its parts and serves them.
//
//	/v2/…                      registry/distribution: what docker, podman, containerd and others speak
//	/berth/registry/v1/…       our own routes: users, rights, collection, retention, mirrors, search
//	/healthz                   200 while the storage answers
//
// The parts do not know each other; this package hands them what they need: the storage to all that read content, the decider to
// all that ask for rights, the events of registry/distribution to all that listen.
//
// The life of a Registry: Open (recovers the root, checks that nobody else serves it) → Serve, or ServeHTTP inside another server →
// Close (requests end, the parts end, the root is let go). It survives kill -9 at any moment.
//
// The package never reads a part's files and never decides what a part decides.
package registry

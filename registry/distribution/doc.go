// Package distribution speaks the OCI distribution specification 1.1 (and the parts of Docker's registry API v2 that clients still
// use) on top of registry/storage.
//
//	GET    /v2/                                    does it speak the protocol, are the credentials good
//	GET    /v2/_catalog?n=&last=                   repositories that the caller may pull from
//	HEAD   GET  PUT  DELETE  /v2/NAME/manifests/REFERENCE      PUT by digest takes ?tag=, many times
//	HEAD   GET  DELETE       /v2/NAME/blobs/DIGEST             single ranges
//	POST   /v2/NAME/blobs/uploads/                 ?digest= all at once; ?mount=&from=; ?digest-algorithm=; else starts an upload
//	GET    PATCH  PUT  DELETE  /v2/NAME/blobs/uploads/ID       where it stands; more bytes; the end, ?digest=; drop it
//	GET    /v2/NAME/tags/list?n=&last=
//	GET    /v2/NAME/referrers/DIGEST?artifactType=
//
// The life of a request: its path is parsed (what is no name of the grammar never gets further), the caller is asked for
// (Config.Who) and his right to the action (Config.Access), the action is done in the storage, an event is made, an answer written. Errors
// have the specification's codes and Docker's words, because dockerd shows them to people.
//
// The package keeps no state. It never decides about rights itself, never touches the storage's keys, and never delivers an
// event: Config.Events must not block.
package distribution

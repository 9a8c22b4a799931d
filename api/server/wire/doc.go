// Package wire translates between Docker's API types and Berth's own values, both ways. It is the only place that knows both.
//
// Words. A request is decoded strictly (Decode), brought to what it means at the client's API version (the shims of
// compat.go), refused by the name of the first field that this build does not honour (refuse.go), and becomes a container.Spec
// (spec.go). A container.Info goes the other way, into inspect's and list's shapes; fields of older API versions are added
// to an answer, never to the newest types.
//
// Each noun has its file: container requests (spec.go) with their mounts (mount.go), ports (port.go) and places on networks
// (endpoint.go); network.go, volume.go, image.go, exec.go, event.go.
//
// The rule of the package: a field of a request that is set is honoured or refused by name. Nothing is dropped. A test walks
// every field of Docker's types and proves it, so that a newer version of the types cannot add a silent one. The one exception are
// fields that only answers fill in (an endpoint's address as it was given, its id): clients send back what inspect told them, so
// those are named in a warning.
//
// The package is pure: it opens no file, reads no clock but the one it is handed, and never talks HTTP.
package wire

// Package graph turns a definition (LLB as clients and frontends send it) into a graph that is checked, ordered and
// printable.
//
// Words. A definition is a list of encoded operations, each of which names its inputs by the digest of their encoding;
// the last one has no operation and names the result. A vertex is one operation; an edge is one output of a vertex.
//
// A Graph is a value: Parse makes it from bytes that nobody has checked, and nothing changes it later. Only what the
// result needs is in it. Bounds on its size hold for everything a client can send.
//
// The package never looks at a file, a session or the cache.
package graph

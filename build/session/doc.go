// Package session keeps the connections over which clients of builds serve their side: files, credentials, secrets, the
// ssh agent, and the places that results are written to.
//
// Words. A session is one connection on which the roles are turned round: the client that dialled serves gRPC, and
// the builder calls it. It has an id that the client chose at random and tells with its builds, and a shared key, which is the
// same whenever the same client comes again from the same directory. A caller is the builder's end of a session. A group is
// the ids of the sessions of all builds that want one thing: whichever is there is asked.
//
// A session's life: the client upgrades an HTTP request (HandleHTTP) or opens a gRPC stream (HandleConn) and names the
// services that it has; from then on Get and Any find it by its id. It ends when the connection does, when the client does not
// answer health checks any more, or with the Manager; calls that are under way end with it.
//
// The wire is BuildKit's: headers X-Docker-Expose-Session-Uuid, -Sharedkey and -Grpc-Method, then HTTP/2 without TLS. Callers have
// the type of BuildKit's library, so that its helpers for secrets, ssh and exports take them; the connection behind is ours, with
// windows that do not slow a transfer down.
//
// The package never decides what a client is asked for, and keeps nothing on disk. What comes from a client is a claim.
package session

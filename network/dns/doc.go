// Package dns is the name server that every container on a network of its own finds at 127.0.0.11, as in Docker.
//
// It knows the names of containers from Names (names, aliases, short ids, addresses backwards) and forwards all else to the
// servers of the host or to those the container asked for.
//
// Words. A sandbox is one container's network namespace. Upstream servers are those that it forwards to. A question is
// local when Names knows its name, even if there is no address of the kind asked for: it is then answered with no data
// and never forwarded.
//
// How a question travels:
//
//	process in the container ── 127.0.0.11:53 ──▶ rules in its namespace (kernel/redirect): port 53 ⇒ a random one
//	                                                 │
//	        one epoll set, one goroutine ◀── socket made in the namespace, held by this process and parked in the keeper
//	            │ local: answered at once
//	            └ else: a goroutine, a fresh socket (own port, own id) in the container's namespace, or in the host's
//	              where the servers are the host's; next server after 4 s, SERVFAIL or REFUSED; SERVFAIL at the end
//
// Nobody listens on port 53, so that a container may run a name server of its own.
//
// The life of a sandbox here: Serve makes its sockets and its rules → Serve again changes its servers → Drop closes. Close
// leaves sockets parked and rules loaded, so that the next engine takes them over: what was asked meanwhile waits in the
// sockets and is answered then. A silent sandbox costs less than a kilobyte and no goroutine.
//
// Bounds: 1,024 questions of a sandbox are under way at upstream servers (Docker's number), as many may wait for their turn, 4 s
// long, and get REFUSED else; 8,192 in the whole engine; 64 connections of a sandbox. Answers are remembered no longer than
// they say, per sandbox and set of servers, in 1 MiB.
//
// It writes no resolv.conf, applies no search list (resolvers in the container do) and decides no names.
package dns

// Package port reserves ports of the host for containers.
//
// Words. A reservation is a port of one address and protocol, a Key, with the container that holds it. It is a socket
// that is bound and never used: traffic is led to the container by the firewall's rules before any socket sees it; the
// socket is there so that a program of the host that wants the port gets EADDRINUSE instead of no traffic. The socket is
// parked in the keeper, where it outlives the engine.
//
// A reservation's life: Reserve, all keys of one request at once or none → held, over engine restarts by Adopt, which
// takes up what the sandboxes' files say and binds again what the keeper has lost → Release. Move gives it to another
// container without a moment in which it is free.
//
// The package makes no rules and knows no networks.
package port

// Package socket is UDP and TCP sockets as plain descriptors, and a set that watches many of them from one goroutine.
//
// A net.UDPConn with the goroutine that reads it costs some ten kilobytes. Where a thousand sockets are mostly silent, a
// descriptor in an epoll set costs nothing in this process but its number.
//
// Words. A socket is a descriptor, non-blocking and close-on-exec. It belongs for ever to the network namespace of the
// thread that made it; it may be used from any. A Set tells which of its descriptors have something to read.
//
// Life of a Set: NewSet, Add and Remove as sockets come and go, Wait in one goroutine, Close. The Set does not own the
// descriptors: who adds one removes it before he closes it.
//
// Every call on a descriptor takes MSG_DONTWAIT where there is such a flag, because O_NONBLOCK belongs to the open socket
// and not to the descriptor: another process that holds the same socket could have taken it away.
//
// The package knows no protocol above TCP and UDP.
package socket

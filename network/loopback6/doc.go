// Package loopback6 serves published ports to clients whom the firewall's rules cannot lead to a container.
//
// Words. A Door is such a port: a socket of the host, and the container's address and port behind it. There are two kinds. Programs of the host
// that connect to ::1 come to any port that is published on IPv6: the kernel has route_localnet for IPv4 only. And clients of IPv6 come to a container that has
// IPv4 only, as they would by Docker's proxy. All others are led by the kernel, and keep their address.
//
// Life of a door: Open with the socket that reserves the port → connections are accepted, each with one of its own to the container, and bytes
// carried both ways, by splice(2) for TCP → Shut, or Close for all. The socket may be held elsewhere too, in the keeper: while no engine runs, connections wait in its
// queue. Connections that are under way end with the engine.
//
// The package chooses no ports, keeps nothing on disk, and speaks no SCTP.
package loopback6

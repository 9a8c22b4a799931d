// Package world is a small internet for tests and the demo, made of network namespaces: a host, on which an engine may do
// to its network what it likes, and an outside, which reaches the host over a cable (a veth pair) and plays every address
// of the world.
//
//	machine ───relay─── outside ══ cable ══ host ── bridges, containers …
//	(untouched)         198.51.100.1        198.51.100.2, 2001:db8::2, default route over the outside
//
// In the outside every address there is counts as its own (a local default route). What arrives there by TCP on one of the
// relayed ports is carried on from the machine's own namespace, by an ordinary connection to the same address; so apt-get in
// a container reaches the mirror, through the engine's own masquerading, while the machine's links, routes and firewall stay
// as they are. Names are asked for at the address of the machine's own resolver and carried on the same way.
//
// Nothing needs to be cleaned up but the relay: namespaces go with the last process and descriptor in them.
package world

// Package firewall is the rules that join containers to the world and keep them apart, as a value.
//
// Words. A Network is a bridge with subnets and what may enter and leave it. A Port is a published port: an address and port of the
// host, and the address and port of a container that they lead to. A State is all networks and ports together with the Policy. A Ruleset
// is what Compile makes of a State: a table of nftables, and what is asked of other managers of the host's firewall. A Manager is such another one:
// iptables, ufw, firewalld, or somebody's own nftables. An Exposure says who can reach a container, and by which rule.
//
// Life of the rules: the networks and ports of the engine → State → Compile, which is pure → Ruleset, which prints and is loaded as one
// atomic batch (Replace). From then on a port that comes or goes is an element that is added to or taken out of maps (Change), at a cost that does not
// grow with their number, and a network is a few chains (SetNetwork). A port moves from one container to another in one Change: connections
// that exist stay with the container that has them, because the kernel translates only the first packet of a connection by the maps.
// Close leaves everything in place, so that traffic flows while there is no engine; Remove takes it away.
//
// Nothing but Berth's own table is ever changed, with one exception: where another manager's chain would drop what
// we let through (an accept of nftables is final in its own chain only), a jump to a chain of ours is put where that manager wants such things,
// as docs/decisions/0011-firewall.md says.
//
// The package reserves no ports (network/port does) and makes no links; it runs iptables' and firewalld's own programs, when they are in
// use on the host, to ask for what nftables cannot, and never while a container starts.
package firewall

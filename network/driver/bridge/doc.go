// Package bridge is the driver of networks that are a bridge of the host: each container has one end of a veth pair, the
// bridge the other, and the host's address on the bridge is the containers' gateway.
//
// Words. Ours is a bridge that carries our mark, its alias "berth NETWORK-ID": made and deleted by us. A bridge without
// it, which the user named by com.docker.network.bridge.name, is used and left.
//
// A container's link is made by one message, with both ends, names, addresses, sizes and the bridge; see kernel/link. How
// bandwidth is limited and shared is in shape.go. Addresses are not chosen here, and no firewall rule is made.
package bridge

// Package link makes and changes network links, addresses, routes, bridge ports and queueing disciplines over rtnetlink(7).
//
// Words. A Conn is a NETLINK_ROUTE socket; it acts in the network namespace of the thread that made it, from whatever
// thread it is used later. An Op is one request, made by a function that is named after what it does (Add, Delete,
// AddAddress …) and sent by Conn.Do: several Ops go to the kernel in one datagram, which works them off in order and
// answers each; the first that fails is the error, and those after it are done all the same, as the kernel does. A Link
// is the wish for a link, an Info what the kernel says of one.
//
// Own messages instead of a netlink library, since a container's start must do with few of them: a veth pair with its
// peer's namespace, names, addresses, sizes, flags and bridge is one message here (docs/decisions/0008-netlink.md).
//
// The package knows no container and keeps no state; it never runs a program.
package link

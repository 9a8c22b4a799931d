// Package netns makes, enters and removes network namespaces.
//
// Words. A namespace lives as long as something refers to it: a process in it, an open descriptor, or a file on which it
// is bind mounted. Here the file is its name: Create makes one and mounts it there, Remove takes the mount and the file
// away, and the kernel destroys the namespace, with all links in it, some milliseconds after its last reference.
//
// The life of a namespace: Create → Open (a descriptor, for netlink's IFLA_NET_NS_FD and for Do) → Do, as often as wanted
// → Remove. A namespace belongs to a thread, not to a process: Do and Create work on a thread of their own and bring it
// back, or give it up when that fails. Sockets keep the namespace in which they were made, so that a netlink socket made
// in Do serves ever after from any thread.
//
// The package never configures anything in a namespace and keeps no table: the files are the truth.
package netns

// Package netdev moves network devices of the host into a container's network namespace, with their
// addresses, over bare rtnetlink(7): the few messages that this takes, so that berth-oci need not link a
// netlink library.
//
// The package never makes or removes devices; what comes back to the host when the namespace ends is
// the kernel's matter.
package netdev

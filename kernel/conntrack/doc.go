// Package conntrack ends entries of the kernel's connection tracking.
//
// A Flow describes entries by what their first packet asked for and by who answers. An entry decides where all later packets of its exchange
// go, so one of UDP that began before a port was published, or with a container that is gone, would lead them astray for as long as they keep coming.
//
// The package makes no entries, and touches none that no Flow describes.
package conntrack

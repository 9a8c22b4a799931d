// Package driver is what every kind of network can do: the interface between networks, which know names, addresses, ports
// and containers, and the drivers, which know links.
//
// Words. A Network is a network as its driver sees it, with its subnets chosen. A Request is a container's wish to be on
// it, with the addresses it got; an Attachment what came of it, which is kept and handed back at the end. Traits say what
// a driver leaves to others.
//
// The life of a network: Check, pure, at its creation → Create, again at each start of the engine, which makes what is
// missing → Join and Leave per container → Delete. All of them may be called again after a crash: Create and Join make
// only what is not there, Leave and Delete are content when nothing is. The package suite has the tests that every driver
// must pass.
//
// A driver puts a link into the namespace and nothing more; its address, routes and state are set by network, in one
// batch, unless the attachment says that it is done already, as plugins do.
package driver

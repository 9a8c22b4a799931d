// Package redirect leads one port of a loopback address to another port of it, inside a network namespace, without making the
// kernel track connections.
//
// A NAT rule would do the same in two lines, but the first NAT chain of a namespace makes the kernel track every connection of
// it from then on: a datagram and its answer between two namespaces took 18 % longer so, and take 3 % longer with this (network/dns,
// BenchmarkTraffic, Linux 6.18). Here the port is written into the packet before it is sent, and the first port into the answer when lo
// receives it. Packets for other links meet one comparison.
//
// Where the container tracks connections itself, it sees questions to the second port and answers from it, as after NAT, and both as one
// connection: questions are changed before the tracking and answers after it. Kernels without rules for what a link receives
// (CONFIG_NETFILTER_INGRESS) get both changed where packets are sent, untracked.
//
// The rules are tables of nf_tables in the namespace, which go with it.
package redirect

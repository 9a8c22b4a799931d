// Package nft is nftables as values: tables, chains, rules, sets and maps that print in the syntax of
// nft(8) and load into the kernel over netlink as one atomic batch.
//
// Words. A table has a family and holds sets and chains. A base chain hangs on a hook with a priority; other
// chains are reached by jumps. A rule is a list of expressions, read left to right: tests (Is, Has, In)
// and statements (Accept, DNAT, Jump …). A Field is something that is read from a packet, a Type what a field or a
// key of a set is made of, a Value a constant of one. A map is a set whose elements carry data or a verdict.
// A Batch is a list of changes.
//
// Life of a batch: NewBatch, some changes, then Load, which either makes all of them at one instant or none. String gives
// the text that `nft -f -` would take for the same changes; what `nft list table` answers afterwards is Table.String, up to
// the order of elements. Changing elements costs the same in a set of ten and of ten thousand. A small table for a
// namespace whose resolver listens at another port than 53:
//
//	t := nft.Table{Family: nft.IPv4, Name: "berth-dns", Chains: []nft.Chain{
//		{Name: "output", Hook: nft.Hook{Type: nft.NAT, Point: nft.Output, Priority: -100}, Rules: []nft.Rule{
//			nft.NewRule(nft.Is(nft.IPDaddr, nft.Addr(server)), nft.Is(nft.UDPDport, nft.Port(53)), nft.DNAT(netip.AddrPortFrom(server, udpPort))),
//			nft.NewRule(nft.Is(nft.IPDaddr, nft.Addr(server)), nft.Is(nft.TCPDport, nft.Port(53)), nft.DNAT(netip.AddrPortFrom(server, tcpPort))),
//		}},
//	}}
//	err := nft.Load(namespace, nft.NewBatch().Add(t)) // not Replace: a fresh namespace has nothing to delete, and deleting is slow (see Load)
//
// Connection tracking puts the source of the answers back (127.0.0.11:53) by itself; no rule is needed for it.
//
// Why not a library: the values have to print and to compare, which a library of netlink messages does not give, and
// what is encoded here is a dozen expressions.
//
// The package knows no container and no policy, never runs a program, never touches a table it was not told to, and keeps no state.
package nft

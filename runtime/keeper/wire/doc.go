// Package wire is the protocol between the engine and the keeper.
//
// The socket is EXEC-ROOT/keeper.sock, SOCK_SEQPACKET, mode 0600; the keeper also asks SO_PEERCRED
// for root or its own user. One packet is one message:
//
//	0       2       4               8
//	├ kind ─┼ flags ┼── seq ────────┼── fields … ┤      little-endian; at most 200 KiB
//
//	field:  tag (1) ── length (uvarint) ── value        unknown tags are skipped
//
// Descriptors travel beside a packet (SCM_RIGHTS); what each is, the message says.
//
// A client begins with a hello. Then it may send any requests at any time, without waiting: each has
// a seq of the client's choice, not 0, and gets one reply with the same kind and seq, in any order.
// What the keeper says unasked has seq 0.
//
//	client                                            keeper
//	──────                                            ──────
//	Hello{versions 1–1, insure}                  ──▶
//	                                             ◀──  Hello{version, pid, birth, missing} + slate
//	                                             ◀──  Held{process} + pidfd, pipes   for each process
//	                                             ◀──  HeldAttach{…} + socket         for each attachment
//	                                             ◀──  Exit{…}                        for each unacknowledged
//	Launch{id, program, log, attach…} [+ memfd]  ──▶
//	                                             ◀──  Launch: Launched{pid, time} + sockets, insurance
//	                                                  or Error{kind, text, step, call, errno}
//	Attach{id, streams, framed} [+ own socket]   ──▶
//	                                             ◀──  Attach + socket
//	                                             ◀──  HeldAttach{number} + the keeper's end
//	CloseStdin{id}                               ──▶
//	                                             ◀──  CloseStdin
//	                                             ◀──  StdinGone{id}      close the insured write end
//	                                             ◀──  AttachGone{number} close the insured end
//	                                             ◀──  Exit{id, code, signal, unknown, time}
//	                                             ◀──  Rotated{id}          compress what was rotated
//	Packed{path, inode, packed}                  ──▶
//	                                             ◀──  Packed
//	Shipped{id, inode}                           ──▶
//	                                             ◀──  Shipped
//	Ack{id}                                      ──▶
//	List                                         ──▶
//	                                             ◀──  List|more: States … List: States
//	Upgrade{path}                                ──▶
//	             (execve: the connection stays)  ◀──  Upgrade
//
// A dead keeper's processes are brought to the next one with Adopt, AdoptAttach and AdoptEnd before
// anything else (runtime/keeper/server, adopt.go).
//
// Versions: a hello names the oldest and the newest version that the client speaks. New fields and
// new kinds do not make a version: an old keeper answers an unknown kind with an error of the kind
// "not implemented". Numbers of kinds, tags and error kinds are never used twice.
//
// The package knows no sockets; both ends do their own I/O.
package wire

// Package journal is the keeper's file of processes and their ends: EXEC-ROOT/keeper.journal. It
// survives kill -9 of the keeper and, where exec-root lies on a disk, says after a reboot what was
// running.
//
//	"BKJ1"                              once, at the start
//	length (4) crc32c (4) kind (1) fields   a record; length counts kind and fields; little-endian
//
// Fields are those of package wire, so records of a newer keeper can be read: unknown fields and
// unknown kinds are skipped. Kinds:
//
//	B  the boot (its id from /proc/sys/kernel/random/boot_id) under which the following were written
//	L  a process was launched, or is known anew (wire.Desc)
//	X  it ended (wire.Exit)
//	D  all that it wrote has been read, what remains of it is its end (wire.Request: ID, Proc)
//	A  its end is acknowledged, it is forgotten (wire.Request: ID, Proc)
//
// A torn or damaged tail is cut off at the last good record when the file is opened. When most of
// the file is history it is written anew beside itself and renamed. Nothing is synced: what must
// survive the machine is the engine's business.
package journal

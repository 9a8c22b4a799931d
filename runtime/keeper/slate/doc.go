// Package slate is the keeper's memory that outlives it: a memfd, mapped shared, in which stands
// what was taken out of pipes and terminals and is not yet in a log. The engine holds a descriptor
// of it unread; a keeper that follows a killed one reads it and repeats what was under way.
//
//	offset 0      head        magic, layout version, number of chunks
//	4096          the op      what is being done now: one piece of one stream (one at a time)
//	8192          the buffer  64 KiB: the bytes of that piece
//	73728 …       chunks      of 64 slots each, added as needed, never moved
//
//	chunk         64 × 256 B  slot heads
//	              64 × 160 KiB slot bodies: line[2] of 16 KiB, stash[2] of 64 KiB
//
// A slot belongs to one process. Its head says how far the log is written and how much of an
// unfinished line stands in line[stream]; the stash holds a piece that the log's file system
// refused for now. Bodies are sparse: an idle process costs its 256 bytes.
//
// The op is a redo log of one entry. Its phases, each entered by one atomic store:
//
//	idle ─▶ taking ─▶ taken ─▶ logged ─▶ idle
//	        │         │        └ the log is written: the commit says how far, and what is left of the
//	        │         │          piece as an unfinished line. Repeating: put that into the slot.
//	        │         └ the bytes are in the buffer. Repeating: write the same records at the same
//	        │           offset again; nothing in them depends on when that happens.
//	        └ a read of Want bytes may or may not have happened. The buffer was filled with a pattern
//	          before, so what differs from it has been read.
//
// Only SIGKILL and crashes of the process are survived, not those of the machine: hence no fsync,
// no ordering beyond the program's own. Only the keeper's loop writes; nothing here locks.
package slate

// Package ship carries what stands in a container's spool to a collector, and remembers how far it has come.
//
//	keeper ──writes──▶ spool (Docker's local format) ──reads── Shipper ──▶ sink.Sink ──▶ collector
//	                     SPOOL, SPOOL.1 …                         │ writes after each record that was taken
//	                                                         SPOOL.cursor
//
//	SPOOL.cursor   two slots of 128 bytes, written in turn; the valid one with the higher sequence counts
//
//	0       8        16      24     48       56        64
//	├ seq ──┼ inode ─┼ off ──┼ head ┼ sent ──┼ dropped ┼ sum ┤     little-endian; sum: FNV-1a of what is before it
//
// A record is sent again only where nobody can know whether it was taken: when the engine dies between the collector's taking it and the
// cursor's eight-word write, or when a connection breaks while a batch is under way. Nothing is left out, but for what non-blocking mode
// drops by design, which is counted. The cursor survives the engine's death, not that of the machine's power: it is not synced for each line.
//
// Life of a Shipper:
//
//	Start ─▶ reading ⇄ sending ─▶ (the container ended, all was taken) finished
//	             ▲          │ failed
//	             └─ waiting ┘
//	Stop ends it anywhere; a new one goes on at the cursor.
//
// A collector that is dead or hangs costs the engine one goroutine that sleeps. In blocking mode the keeper is told which file is being
// shipped, and rotates older ones away only; in non-blocking mode what lies further back than the buffer is passed over.
//
// The package writes no log and rotates none.
package ship

// Package store keeps the engine's knowledge of containers on disk. The formats are described in docs/formats-engine.md.
//
//	DATA-ROOT/containers/ID/container.json   the record: what the container is asked to be; atomic, durable
//	DATA-ROOT/containers/ID/…                files of that container (hosts, hostname, resolv.conf, log), owned by the engine
//	DATA-ROOT/containers/.gone-ID            a removed container's directory on its way out: nobody waits for its deletion
//	DATA-ROOT/states.journal                 where each container stands; fdatasynced within a second
//	EXEC-ROOT/states.journal                 the same, written at once: survives the death of the engine
//
// Words. A record says what a container is asked to be. A standing says where it is: its state, its restarts, the operation under
// way. Records are written before a verb answers; standings by one append without any sync, on the path of every start and exit.
//
// Life of the main value: Open reads both journals, the younger line wins, and rewrites them without what is outdated. Each Set
// appends a line. A container without a line was never started. A line without a record means nothing.
//
// The package decides nothing: what a standing of a former boot means is the engine's business.
package store

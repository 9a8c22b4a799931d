// Package history keeps what is left of builds that are over: what was asked for, how it ended, what it said, what it made.
//
// Words. A record is one build; it is active until the build has ended. A blob is a document that belongs to a record: its
// log, its provenance, its error in full. A listener is told of records as they begin, end and go.
//
// A record's life: Begin makes it active, in memory only; Complete writes it; Update changes what may change (pinned, a
// trace that came late); Delete removes it and the blobs that no other record names. Records that are not pinned go
// by themselves when there are more than fifty and they are older than two days, as BuildKit has it.
//
// On disk (docs/formats-build.md), nothing of which survives a damage without being noticed, and nothing of which is
// waited for by a build:
//
//	ROOT/records/ID.json   a record
//	ROOT/blobs/HEX         a blob, named by its sha256
//
// Files are renamed into place and not fsynced: a power cut may take the last records, and a file that it left
// without content is dropped when it is found. The package opens at its first use and reads all records then.
//
// It never looks into a blob.
package history

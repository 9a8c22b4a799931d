// Package localfile writes and reads the records of Docker's local log driver: the bytes that Docker's own driver
// writes, so that each reads the other's files.
//
//	0        4                4+n      8+n
//	├ n ─────┼ LogEntry ──────┼ n ─────┤        n: 32 bits, big-endian; the second n is for reading backwards
//
// LogEntry is a protobuf message of proto3; a field that is zero is not there:
//
//	1  source     "stdout" or "stderr"
//	2  time       nanoseconds of the Unix epoch
//	3  line       without its newline
//	4  partial    the line is longer than one record, or had no newline
//	5  of which   1 last: a newline follows · 2 id: the same in all records of the line · 3 ordinal: from 1 on
//	6  attrs      repeated: 1 key · 2 value (Docker since 29; older readers skip it)
//
// It does no I/O, keeps no state, and knows just enough of protobuf to do without a library.
package localfile

// Package jsonfile writes the lines of Docker's json-file log: one JSON object a line, the bytes
// that Docker's own driver writes, so that every reader of such files reads ours.
//
//	{"log":"hello\n","stream":"stdout","attrs":{"tag":"web"},"time":"2026-01-02T15:04:05.123456789Z"}
//
// The order of fields is fixed; attrs is left out when there are none. A piece of a line longer
// than 16 KiB, and a last line without newline, have no \n at the end of log.
//
// It does no I/O and keeps no state. It is not encoding/json because of size and because the two
// differ: Docker writes \u0009 where encoding/json writes \t, and likewise \b and \f.
package jsonfile

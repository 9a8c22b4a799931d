// Package journald hands records to systemd's journal, by its native protocol (systemd's docs/JOURNAL_NATIVE_PROTOCOL.md): one datagram
// an entry, to /run/systemd/journal/socket.
//
//	NAME=value\n                              a value without newlines
//	NAME\n  length (64 bits, little-endian)  value \n
//
// An entry that is too large for a datagram goes as a sealed memfd beside an empty one. There is no acknowledgement: what the kernel has
// queued for journald is taken. Fields are those of Docker's driver, so that journalctl CONTAINER_NAME=… finds them.
package journald

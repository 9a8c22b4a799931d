// Package sink holds what all collectors of logs have in common: the record that is handed over, the facts about its container, the tag,
// and a connection that never waits without a bound. The collectors are the packages below it:
//
//	journald   systemd's journal, its native protocol
//	syslog     RFC 3164 and RFC 5424 over unix sockets, UDP, TCP and TLS
//	gelf       Graylog's format, chunked and compressed over UDP, or over TCP
//	fluentd    Fluentd's forward protocol, with or without acknowledgements
//
// Words. A collector takes records; to take one means that its protocol's last word about it was good: an acknowledgement where there is
// one, else that the kernel took the bytes. Options are Docker's log options, checked in Docker's words by each package's Check.
//
// Life of a Sink: New makes it of options that were checked and connects nothing. Probe says whether the collector is there. Send connects
// where it must, and after an error connects anew with the next call. Close ends the connection. It is used by one goroutine.
//
// A Sink keeps no record and never tries twice: that is for package ship.
package sink

// Package syslog hands records to a syslog daemon: one message a record, in the forms that Docker's driver has (log option syslog-format).
//
//	""            <PRI>Jan _2 15:04:05 TAG[PID]: TEXT
//	rfc3164       <PRI>Jan _2 15:04:05 HOST TAG[PID]: TEXT
//	rfc5424       <PRI>1 2006-01-02T15:04:05Z07:00 HOST TAG PID TAG - TEXT
//	rfc5424micro  the same with microseconds
//
// Messages end in a newline, also over TCP; over TLS those of RFC 5424 have their length before them instead (RFC 5425). The time is the
// record's, not that of sending, so that what was sent late is still in its place. No form acknowledges anything: what the kernel took is
// taken. Empty lines are not sent, as in Docker.
package syslog

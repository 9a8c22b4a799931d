// Package fluentd hands records to Fluentd, Fluent Bit and others by the forward protocol, version 1: msgpack over TCP or a unix socket.
//
//	[tag, time, record, {}]                                 each record by itself, as Docker's driver sends
//	[tag, [[time, record], …], {"chunk": id}]               with fluentd-request-ack: several at once
//	{"ack": id}                                             the answer, which is waited for
//
// The time is in seconds, or with fluentd-sub-second-precision an EventTime (extension 0: seconds and nanoseconds, 32 bits each). With
// acknowledgements a record counts as taken when its chunk was acknowledged; without, when the kernel took it. fluentd-async lets containers
// start while nobody listens; fluentd-buffer-limit is checked and without effect, since what waits is in the spool on disk.
package fluentd

// Package gelf hands records to Graylog and whatever else takes GELF 1.1: one JSON object a record.
//
//	UDP   gzip (or zlib, or plain); what is larger than a datagram goes in chunks:
//	      1e 0f · id (8) · number (1) · count (1) · data        at most 128 of them
//	TCP   plain, each message with a zero byte behind it
//
// Nothing is acknowledged: what the kernel took is taken. Empty lines are not sent, as in Docker. The option gelf-tcp-max-reconnect is
// checked and otherwise without effect: a record is tried until it is taken, from the spool.
package gelf

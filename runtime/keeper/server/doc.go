// Package server is berth-keeper itself: one loop over epoll that owns all state, on the process's
// main thread. It is written for smallness: no goroutine and no buffer for a pipe, no net, no JSON.
//
//	                 ┌────────────────────────── loop ──────────────────────────┐
//	keeper.sock ────▶│ listener, peers: requests, replies, pushes               │
//	pidfd ──────────▶│ proc: ended → journal → reaped → drained → Exit          │
//	stdout, stderr ─▶│ stream: 64 KiB at a time → slate → log file → attachments│──▶ sockets
//	pty master ─────▶│ stream, stdin                                            │──▶ stdin pipes
//	eventfd ────────▶│ what goroutines and signals post                         │
//	                 └──────────────────────────────────────────────────────────┘
//	goroutines: one for each launch under way (it may block), one for an upgrade's check
//
// What lies where:
//
//	EXEC-ROOT/keeper.sock      the protocol (package wire)
//	EXEC-ROOT/keeper.lock      flock, held for life; the pid for people
//	EXEC-ROOT/keeper.journal   processes and ends (package journal)
//	EXEC-ROOT/keeper.log       the keeper's own words
//	memfd berth-slate          what is taken from pipes and not yet logged (package slate)
//
// Logs are in the format of Docker's json-file or local driver; their files are rotate.go's. A record is
// written whole or not at all. A full disk blocks the writing process for five seconds at most; then
// output is dropped from the log, counted (Info, ProcState), and each further piece is tried once,
// until one is written. A log of Keep whose files were not shipped blocks its process for as long as
// that takes. Attachments get everything all the same.
//
// Attachments. What a slow client has not read lies in its socket, up to about a megabyte; then the
// process's output is not read until the client reads or hangs up. Others go on.
//
// Signals. SIGTERM, SIGINT, SIGHUP and SIGQUIT do not end a keeper that holds running processes: who
// wants that stops them and sends Shutdown. SIGKILL ends it, and a new one adopts (adopt.go). No
// process gets a death signal (PR_SET_PDEATHSIG): the kernel sends it when the launching thread
// ends, which in Go happens at any time.
//
// A defect that panics in the handling of one request, event or timer is logged with its stack and
// costs that request or descriptor; the loop goes on.
//
// The life of a process here stands at type proc, that of an attachment at type attachment, the
// order that makes output survive kill -9 in package slate, upgrades in upgrade.go.
//
// The package never reads a config.json, pulls no image, knows no network, and launches only through
// a Starter that the binary plugs in.
package server

// Package relay turns the signals that a process gets into bytes on a descriptor, for programs that
// stand in front of another process and pass signals on.
//
// It does in a few microseconds what os/signal needs milliseconds for: os/signal hands every single
// signal number to a thread of its own and waits for it, twice a context switch each, for sixty
// numbers. A process that lives for five milliseconds in all cannot afford that.
//
// Signals that Go's runtime itself lives on (faults, SIGURG, SIGPROF) stay with it. Catching is for
// the rest of the process's life; there is no undo, and os/signal must not be used beside it.
package relay

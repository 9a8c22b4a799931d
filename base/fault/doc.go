// Package fault is the one vocabulary of errors. A fault has a kind, says what was being done and
// keeps its cause; doors (HTTP, gRPC, command lines) turn kinds into codes in one table each.
// It never logs and never decides what a failure means for its caller.
package fault

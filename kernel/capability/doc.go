// Package capability knows Linux's capabilities: their names, their bits, and which of them this
// kernel and this process have. A set is a uint64 with one bit for each, as the kernel keeps it.
//
// It never changes what a process may do and decides nothing about who should have what.
package capability

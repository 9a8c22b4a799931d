// Package event hands out what happened, in order, to whoever listens, now or later.
//
// An Event is a small immutable value: something (Action) happened to some thing (Type, ID). The Bus numbers events and gives each a
// time of its own, later than that of the one before. It remembers the last ones in memory and, with a Journal, many more on disk. A
// Subscription is a place in that row: it reads on from there at its own pace, from the journal where it is far behind, and never
// delays the publisher. Only what is no longer kept anywhere is lost to it, and it can tell how many these were.
//
// The Journal is a directory of bounded size. It is written behind: an event is in the kernel's hands a moment after it was published,
// so that it survives the death of the process, and on the disk within about a second. Its format stands in journal.go.
//
// The package knows no wire format and never refuses an event: where the disk is full, memory keeps what it can.
package event

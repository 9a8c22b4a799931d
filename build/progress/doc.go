// Package progress carries what a build tells while it runs: which vertices started, ended or were found in the
// cache, the bytes a step has moved, what it printed, and warnings.
//
// Words. An event is one value of Vertex, Status, Log or Warning. A Sink takes events; a Hub is the sink of one build
// that keeps them and lets any number of readers follow from the beginning, also after the end.
//
// A hub's life: NewHub when the build is announced (a reader may come before the first event), events while it runs,
// Close when it has ended. Readers that came late are given first what was kept. What is kept is bounded: of a vertex
// its newest state, of a transfer its newest numbers, of what is printed the last megabytes, with a line that says
// what was dropped.
//
// The package never formats for people and knows no wire; api/buildkit translates events into BuildKit's messages.
package progress

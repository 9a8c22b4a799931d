// Package wait knows what is under way: who does what to what, since when, and at which step. It is what a person looks at when
// something hangs.
//
// A Wait is one piece of work: a verb on a container, a request, somebody who wants to begin and cannot yet. It is in its registry from
// Begin to End. Work that goes in steps names the one it is at; a context carries the Wait to where the steps are.
//
// The package bounds nothing and cancels nothing: whoever waits has a context and a time of his own. A nil *Registry and a nil *Wait are
// fine and do nothing.
package wait

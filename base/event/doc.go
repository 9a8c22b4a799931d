// Package event hands out what happened, in order, to whoever listens.
//
// An Event is a small immutable value: something (Action) happened to some thing (Type, ID). The Bus keeps the last 256 of them,
// so that a listener may ask for what happened since a moment; each listener has a bounded queue of its own, and one that does
// not read loses its oldest events, never delays the publisher.
//
// The package writes nothing to disk and knows no wire format.
package event

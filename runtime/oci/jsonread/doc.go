// Package jsonread walks JSON text without reflection and without building a tree: the caller says
// what it expects next and gets it. Reading a file of a few kilobytes costs microseconds instead of
// the millisecond that encoding/json needs in a process that has just been started, which is most of
// what a command of berth-oci does.
//
// A Reader's life: New → Object, Array, Text, … in the order of the text → End. The first mistake
// sticks: everything after it yields zero values, so that callers check once, at the end.
//
// It is strict as RFC 8259 is, except that a byte order mark is no error and bytes that are no UTF-8
// become the replacement character, as in encoding/json. It never writes JSON.
package jsonread

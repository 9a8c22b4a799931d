// Package access says what a client of one socket may do, and keeps the sockets for which that is less than everything.
//
// A plain socket of the engine makes whoever opens it root on the machine. An access socket is for one program that needs less: a
// reverse proxy that reads labels, a CI job that owns one compose project, a person who restarts one service. Words:
//
//	policy  what one access socket allows, a value that prints and compares
//	verb    a class of requests: every route of the API belongs to one (read, logs, create, start, …)
//	reach   what a route is about (one container, one volume, lists, the engine), so that a scope can narrow it
//	scope   a label: only what carries it exists for the socket's clients, and what they make gets it
//	lift    a danger that a policy allows by name although access sockets refuse it (bind, privileged, …)
//	audit   one line of JSON for each request of an access socket, allowed or not (Log)
//
// The life of a socket:
//
//	Create ─▶ definition in DATA-ROOT/access/NAME.json ─▶ socket EXEC-ROOT/access/NAME.sock ─▶ Remove, or its expiry
//	                        └── Open at each start of the engine makes the socket again
//
// Policies decide; they look at nothing but the value they are given. Which container is meant by a name, and what carries a label, is
// the door's to find out (package server). The package never speaks HTTP.
package access

// Package server is the door for Docker's HTTP API and for Berth's own: one route table, one file per noun.
//
// Words. A route is one method and path with its handler, or with the sentence that says why this build has none; the table
// (routes.go) has every route of Docker's newest API. A call is one request on its way through a handler: its name from the path,
// its query, its API version. A handler reads the call, asks a room through a small interface that its file declares, and
// answers through wire's shapes; it returns an error and lets the door turn its kind into a status code (respond.go), the only
// place that knows codes.
//
// Life of a call: the path is split into version and rest, the route is found, the version is judged, the handler runs with
// a context that ends with the client or the server, and an error becomes Docker's JSON. A stream (logs, events, wait) flushes
// what it writes at once; an attached terminal takes the connection over (hijack.go) until both ends have said their last word.
//
// The package keeps no state about containers and never touches the machine but for its sockets and a few files of /proc that
// `info` shows.
package server

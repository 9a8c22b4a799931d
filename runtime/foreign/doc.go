// Package foreign starts containers that another OCI runtime than ours makes: runc, crun, runsc, anything with their command line.
//
// A Program says which commands make a process and where its id and its terminal are found. It is the engine's to write and the keeper's
// to run, in place of a launch program: the keeper gives the first command the container's standard streams, which it hands on to the
// container, and is the parent of what comes out of it.
//
//	keeper                              runtime                         container
//	──────                              ───────                         ─────────
//	listen on the console socket
//	create: fork, exec ───────────────▶ create --pid-file P [--console-socket C]
//	                                    fork ─────────────────────────▶ init, with the keeper's pipes or a new terminal
//	accept, receive the terminal ◀───── send its master
//	wait ◀───────────────────────────── exits; init becomes the keeper's child (it is a subreaper)
//	read P, pidfd_open
//	start: fork, exec ────────────────▶ start ────────────────────────▶ execve
//	wait ◀───────────────────────────── exits
//
// Every command has until the Program's deadline; one that is still there then is killed, what it made is undone by the Program's undo
// commands, and the launch has failed with the runtime's own words from its log.
//
// The package knows no container and reads no config.json.
package foreign

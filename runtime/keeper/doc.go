// Package keeper is the engine's side of berth-keeper: it starts that process, talks to it, and holds
// the insurance with which a killed keeper's processes go on under a new one.
//
// The keeper is the one small parent of all containers of an engine. It launches them, holds their
// pipes and terminals, writes their logs, serves their attachments, and remembers how they ended.
// The engine may die at any time; nothing of that notices.
//
//	engine ── Client ──keeper.sock──▶ keeper ──▶ container init, exec'd processes
//	            │  holds, unread:       │ reads stdout, stderr, terminals
//	            │  pidfds, pipe ends,   │ writes logs, attachments, journal
//	            │  masters, the slate   ▼
//	            └───── Adopt ──────▶ next keeper, should this one be killed
//
// Words:
//
//	process      a container's init (Proc "") or one executed in it, named by ID and Proc
//	attachment   a stream socket to a process: output (framed or raw) out of it, stdin into it
//	insurance    duplicates of a process's descriptors, and of the slate; never used while the keeper
//	             lives
//	slate        the keeper's memory of what it took from a pipe and has not yet logged (package slate)
//	acknowledge  say that an exit is known for good; until then it is told to every new connection
//	gate         a launched process waits there before execve, until Release
//
// The life of a Client made by Open:
//
//	Start ─▶ dial, hello ─▶ serving ─▶ (connection breaks) ─▶ dial again ─▶ serving ─▶ Close
//	                           ▲                                  │ nobody answers: Start, hello, adopt
//	                           └──────────────────────────────────┘
//
// What each death costs:
//
//	the engine's        nothing. A process with StdinOnce keeps its stdin, though the client is gone.
//	the keeper's        no line of a log, no byte of a terminal. An attachment whose client lagged by
//	                    more than its socket holds is cut. A launch under way fails, or its first
//	                    output fails. Parked descriptors are gone. An exit status is known from
//	                    /proc or, since Linux 6.15, from the pidfd; else Exit.Unknown says so.
//	both at once        terminals hang up, stdin ends, and who writes before a new keeper is there gets
//	                    SIGPIPE. Who does not write then goes on: its pipes are found through /proc.
//	the machine's       what ran is told as ended in an unknown way, where exec-root is on a disk.
//
// The package never launches anything itself, keeps no file, and decides no policy.
package keeper

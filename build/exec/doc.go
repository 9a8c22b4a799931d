// Package exec runs the processes of builds: RUN steps, containers of frontends, frontends that are images, and the shell
// on a step that failed.
//
// Words. A step is a pb.ExecOp. Its mounts are made into places: a root, binds of inputs, caches, secrets, sockets of ssh
// agents, tmpfs, each prepared as a detached mount. A box is a prepared container: places, network, cgroup, and the
// OCI specification that its processes are compiled from. A cache mount is a directory that outlives builds.
//
// Life of a step: Op gives a solver.Op; Run prepares the box, compiles a launch program and starts it with a launcher
// of the engine's own process (docs/decisions says why not in the keeper), streams its output, waits, takes the box down and seals
// the drafts that are outputs. If it fails the drafts stay, in a Failed, until the build ends: a shell can be opened in
// them.
//
// Life of a container: Container prepares the box; the first Start makes its process 1, with which all others end; further ones
// enter it; Release takes it down.
//
// Steps die with the engine, whoever they have become by then: their pid namespaces lie in one whose first process ends when the engine's
// socket to it does (launch.Launcher.Enclosed). What is left over (cgroups, a tmpfs for secrets) goes when the next engine
// calls Open. Nothing of a step is ever adopted.
//
// A secret is written to a tmpfs of its own step and nowhere else: not into a draft, a record, a key or a log of ours.
//
// The package decides nothing about caching beyond the key of a step and what it reads, and knows no Dockerfile.
package exec

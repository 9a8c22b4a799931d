// Package host runs programs of the host's own, such as git, on what nobody vouches for: somebody's repository, somebody's server.
//
// Such a program is the engine's with the engine's rights, and reads what an attacker wrote. Its own settings (no hooks, no helpers) are the first
// wall; this package is the second, for the day on which the first has a hole: a box like that of a step, from the same launcher, but of
// the host's own files instead of an image's.
//
//	files      the host's programs and libraries, certificates and names of hosts, read-only; what the command names; an empty /tmp
//	processes  its own (a pid namespace): it sees, signals and traces nobody, and nothing of it stays behind
//	rights     no capability, none to be had from files (no_new_privs), and the seccomp filter of containers
//	network    the engine's where the command needs one, else none
//	user       the engine's own, so that what it writes belongs to whom it should. Without capabilities and without the host's other files, the
//	           number gives nothing; an ordinary user would have to be given each file tree, and all of it taken back
//	memory     half of the machine's, 1,024 processes and threads: a cgroup of its own. Where the machine is out of memory nevertheless it is
//	           ended before anything else (oom_score_adj)
//
// The life of a run: Run lists the mounts, makes an empty directory to be the root and a cgroup, compiles a launch program, starts it, copies its output, waits.
// When the context ends the first process is killed, and with it all others; when the engine ends, in whatever way, the kernel kills them
// (launch.Launcher.Enclosed).
//
// The package knows no git and no Dockerfile.
package host

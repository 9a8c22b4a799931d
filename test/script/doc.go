// Package script holds what a user sees, as scripts: command lines against a real engine and what they
// print. testdata/cli is run with berth and, where it is on PATH, with the stock docker command line;
// testdata/crash has an engine for each script, which the script may kill; so have testdata/net and testdata/registry, with a host whose firewall the script
// may change, and the image peer, whose program tells its clients how it sees them. testdata/access has one engine with certificates, testdata/runtimes one that knows
// every OCI runtime of this machine, whose scripts are run with each.
//
// testdata/flags observes the effect of every flag of docker run, create and update, each in a section that is marked with
//
//	# flags: run --memory --memory-swap
//
// up to the next empty line. TestEveryFlagIsObserved fails for a flag without one; see flags_test.go.
//
// Scripts are testscript's (github.com/rogpeppe/go-internal/testscript). Beyond its commands they have
//
//	exec code N PROGRAM ARGS…       runs PROGRAM, succeeds when its exit code is N
//	exec within TIME PROGRAM ARGS…  runs PROGRAM again and again until it succeeds
//	exec pty DIALOGUE PROGRAM ARGS… runs PROGRAM in a terminal and holds a dialogue with it, see pty.go
//	engine kill | run | kill-keeper | restart   (crash and net scripts)
//	daemon [plugins=DIR | subids=USER:START:COUNT] FLAGS…   goes on with another engine, which has those flags, on another host (net scripts);
//	                                it may see plugins or subordinate ids of its own where others see the machine's
//	host PROGRAM ARGS…              runs PROGRAM on the engine's host
//	outside PROGRAM ARGS…           runs PROGRAM on the host beside it
//	registry start NAME HOST:PORT FLAGS…, registry kill|stop NAME   a registry of ours on the engine's host (registry scripts)
//	intro IMAGE NAME                imports an image of introductions (registry scripts)
//	ask tcp|udp HOST:PORT [TEXT]    a program for those two: sends a line, prints the answer
//
// and the variables CLI (berth or docker), N (a suffix that makes names unique) and, as conditions,
// [berth] and [docker].
//
// Scripts run beside each other, beside other packages' tests, and on machines that are busy with something else. So they wait with "within 60s" for
// what comes by itself; a state that passes by itself (a health that is still "starting", the pause before a restart) is made to last for seconds
// before it is looked at; what a process makes step by step is looked at when its last step is seen; a question that must be answered may take
// half a minute, and one that must not be, three seconds. What is the machine's, not the engine's host's, has $N in its name.
//
// The expectations are Docker's. To ask Docker itself whether they are, run the scripts against it:
//
//	go test ./test/script -against unix:///run/docker.sock
package script

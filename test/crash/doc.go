// Package crash rehearses the death of the engine: it kills berthd with SIGKILL at random moments, again and again, while clients
// create, start, exec in, stop and remove containers, and then looks for everything that must not have happened: a container that
// died or was lost, a log line or an exit code that is missing, a process, mount, cgroup or directory that belongs to nobody.
//
// It runs the real binaries. BERTH_SOAK=1 makes a thousand kills of the usual few; BERTH_SEED repeats a run's choices.
package crash

// Command bench measures Berth beside its peers and its budgets.
//
//	bench [-only REGEXP] [-n COUNT] [-docker HOST] [-bin DIR] [-list]
//
// Every figure is a pair of things done alternately in one run on one machine, because machines differ
// and are busy; what is compared is processor time first (the whole stack's: client, engine, keeper,
// runtime and container as the line says) and wall time second. Ratios are medians of the pairs'
// ratios. A peer that is not installed is left out by name. Figures beyond their budget are marked,
// and make the exit code 1 only with -strict: a busy machine is no defect.
//
// berth-oci, crun and runc run the same bundle (the docker-like default of runtime/spec, seccomp
// profile included) in a mount namespace without the hybrid cgroup v2 mount, which crun refuses; what
// the container sees of its isolation is compared first. The engine's part starts an engine of its own.
package main

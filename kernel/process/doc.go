// Package process names, watches, signals and reaps Linux processes: pidfds, /proc/PID/stat, signal
// names, exit statuses and the process attributes that prctl(2) sets.
//
// Words. A process number may be used again once its process is reaped; a pidfd and the pair of number
// and start time cannot. A pidfd here is a plain descriptor (int) that the caller closes. Exit is how a
// process ended.
//
// The life of a pidfd: Open (or made by clone3) → Ended (readable is the end) → WaitBlocking, when it is our
// child → close. The package starts no process and keeps no table.
// Aside is for threads that are changed for good.
package process

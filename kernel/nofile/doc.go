// Package nofile knows the limit of open files that the process was started with. Go's runtime raises the soft
// limit to the hard one as the program begins, and would hand that on: to programs that walk all descriptors
// they might have, or that use select(2), which ends at 1024.
//
// The package imports nothing, and so is initialised before package syscall, which does the raising (the
// language specification, "Program initialization": packages without uninitialised imports come first, in
// the order of their paths; a test holds Go to it). It reads the limit with a system call of its own.
package nofile

// atStart is what the kernel said: soft and hard limit. It is never written again.
var atStart = read()

// AtStart gives the limits as they were when the process began. changed is false where the soft limit was
// the hard one to begin with, or could not be read: then there is nothing to restore.
func AtStart() (soft, hard uint64, changed bool) {
	return atStart[0], atStart[1], atStart[0] < atStart[1]
}

func read() (limits [2]uint64) {
	if getNoFile(&limits) != 0 {
		return [2]uint64{}
	}
	return limits
}

// getNoFile is prlimit64(0, RLIMIT_NOFILE, NULL, limits); implemented in assembly.
//
//go:noescape
func getNoFile(limits *[2]uint64) (errno uintptr)

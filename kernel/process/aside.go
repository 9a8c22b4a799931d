package process

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Aside runs f in a goroutine of its own on a thread that may be changed for good (unshare(2), setns(2), prctl(2)): it is f's alone, ends with
// f unless f unlocks it (runtime.UnlockOSThread), and is never the process's first thread. That one never ends, and its namespaces are what
// /proc/self shows, to ourselves and to everybody who looks at the process.
func Aside(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		defer runtime.UnlockOSThread()
		moved := make(chan struct{})
		go func() { // elsewhere, since the first thread is taken
			runtime.LockOSThread()
			close(moved)
			f()
		}()
		<-moved
	}()
}

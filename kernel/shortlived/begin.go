package shortlived

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// variable is what the entry point puts behind the environment.
const variable = "GOMAXPROCS=1"

// Begin is to be called first thing in main. It keeps the main goroutine on the main thread, gives that
// thread punctual timers again (programs that it starts inherit them) and takes the entry point's
// variable out of the environment.
func Begin() {
	runtime.LockOSThread()                             // other threads of the runtime still have late timers
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // 0: what this thread was born with
	if env := os.Environ(); len(env) > 0 && env[len(env)-1] == variable {
		_ = os.Unsetenv("GOMAXPROCS")
	}
}

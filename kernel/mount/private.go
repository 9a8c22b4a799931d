package mount

import (
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/process"
)

// Private runs do in a mount namespace made for it, which sees this process's mounts and whose own mounts nobody else sees. The
// namespace lives until release is called, so descriptors that do opened keep showing what is mounted there. do runs on a thread of its
// own: it must not hand work to other goroutines that use paths. unshare(2), mount_namespaces(7).
func Private(do func() error) (release func(), err error) {
	ready, done := make(chan error), make(chan struct{})
	process.Aside(func() { // a thread with another mount namespace must end with this
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err != nil {
			err = fault.Wrap(kindOf(err), err, "unshare a mount namespace")
		} else if err = failed(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), "make private", "/"); err == nil {
			err = do()
		}
		ready <- err
		if err == nil {
			<-done
		}
	})
	if err := <-ready; err != nil {
		return nil, err
	}
	return func() { close(done) }, nil
}

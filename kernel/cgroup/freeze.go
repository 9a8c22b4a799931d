package cgroup

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/probe"
)

// How long freezing may take: a task in an uninterruptible sleep is frozen only once it wakes.
const (
	freezeTimeout = 10 * time.Second
	killRounds    = 50
)

// Freeze stops every process of the cgroup, and returns when all have stopped. When that takes more than
// ten seconds the cgroup is thawed again and the error's kind is Deadline.
func (c *Cgroup) Freeze() error {
	if dir := c.Dir("freezer"); dir != "" {
		return c.freezeV1(dir)
	}
	dir := c.V2Dir()
	if dir == "" {
		return fault.New(fault.NotImplemented, "cannot pause: neither cgroup v2 nor v1's freezer is mounted")
	}
	if err := writeFile(dir+"/cgroup.freeze", "1"); err != nil {
		return c.gone(err, "freeze")
	}
	if err := waitEvent(dir+"/cgroup.events", "frozen", "1", freezeTimeout); err != nil {
		_ = writeFile(dir+"/cgroup.freeze", "0")
		return fault.Wrap(fault.Deadline, err, "freeze cgroup %s", dir)
	}
	return nil
}

// freezeV1: the state says FREEZING until all tasks have stopped. A task that forks or is in a vfork at
// the wrong moment can hold it there; thawing for an instant and asking again lets it pass.
func (c *Cgroup) freezeV1(dir string) error {
	file := dir + "/freezer.state"
	deadline := time.Now().Add(freezeTimeout)
	for try := 1; ; try++ {
		if err := writeFile(file, "FROZEN"); err != nil {
			return c.gone(err, "freeze")
		}
		switch state := trimmed(file); state {
		case "FROZEN":
			return nil
		case "FREEZING":
		default:
			return c.gone(fault.New(fault.Internal, "its freezer is in the state %q", state), "freeze")
		}
		if time.Now().After(deadline) {
			_ = writeFile(file, "THAWED")
			return fault.New(fault.Deadline, "freeze cgroup %s: a process did not stop within %v", dir, freezeTimeout)
		}
		time.Sleep(time.Duration(min(try, 20)) * 100 * time.Microsecond)
		if try%25 == 0 {
			_ = writeFile(file, "THAWED")
		}
	}
}

// Thaw lets the processes go on. Thawing what is not frozen is fine.
func (c *Cgroup) Thaw() error {
	if dir := c.Dir("freezer"); dir != "" {
		if err := writeFile(dir+"/freezer.state", "THAWED"); err != nil {
			return c.gone(err, "thaw")
		}
		return nil
	}
	dir := c.V2Dir()
	if dir == "" {
		return nil
	}
	if err := writeFile(dir+"/cgroup.freeze", "0"); err != nil {
		return c.gone(err, "thaw")
	}
	if err := waitEvent(dir+"/cgroup.events", "frozen", "0", freezeTimeout); err != nil {
		return fault.Wrap(fault.Deadline, err, "thaw cgroup %s", dir)
	}
	return nil
}

// Frozen reports whether the cgroup is frozen or about to be. A cgroup that is gone is not.
func (c *Cgroup) Frozen() (bool, error) {
	if dir := c.Dir("freezer"); dir != "" {
		b, err := readFile(dir + "/freezer.state")
		switch {
		case err == unix.ENOENT || err == unix.ENODEV:
			return false, nil
		case err != nil:
			return false, fault.Wrap(fault.Internal, err, "read %s/freezer.state", dir)
		}
		return !strings.HasPrefix(string(b), "THAWED"), nil
	}
	dir := c.V2Dir()
	if dir == "" {
		return false, nil
	}
	// What counts is what was asked: cgroup.events lags behind.
	return trimmed(dir+"/cgroup.freeze") == "1", nil
}

// Kill sends SIGKILL to every process of the cgroup and the cgroups below it, also to frozen ones and to
// those that are being forked meanwhile, and thaws it. It does not wait for their end. A cgroup that is
// gone has nothing to kill.
func (c *Cgroup) Kill() error {
	if dir := c.V2Dir(); dir != "" && c.holdsProcs(dir) && c.have.Has(probe.CgroupKill) {
		switch err := writeFile(dir+"/cgroup.kill", "1"); err {
		case nil:
			// On hybrid the v1 freezer holds its tasks even against SIGKILL.
			if f := c.Dir("freezer"); f != "" {
				_ = writeFile(f+"/freezer.state", "THAWED")
				return c.killLoop()
			}
			if trimmed(dir+"/cgroup.freeze") == "1" {
				_ = writeFile(dir+"/cgroup.freeze", "0")
			}
			return nil
		case unix.ENOENT, unix.ENODEV, unix.EOPNOTSUPP: // before Linux 5.14, or threaded
			if !exists(dir) {
				return nil
			}
		default:
			return c.gone(err, "kill")
		}
	}
	return c.killLoop()
}

// holdsProcs reports whether the v2 directory holds the container's processes. On hybrid it may be empty,
// with the processes in v1 hierarchies alone.
func (c *Cgroup) holdsProcs(dir string) bool {
	return c.layout.Mode == V2 || eventIs(dir+"/cgroup.events", "populated", "1")
}

// killLoop kills what it lists until a list has nobody new: a process with a pending SIGKILL forks no
// more. From the third round on it freezes first, for the sake of fork bombs.
func (c *Cgroup) killLoop() error {
	killed := make(map[int]bool)
	for round := range killRounds {
		if round >= 2 {
			c.quickFreeze()
		}
		pids, err := c.Procs()
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		fresh := 0
		for _, pid := range pids {
			if !killed[pid] {
				killed[pid] = true
				fresh++
			}
			if pid > 1 { // 0 is a process that this pid namespace cannot name
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if err := c.Thaw(); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if fresh == 0 {
			return nil
		}
	}
	return fault.New(fault.Deadline, "kill cgroup %s: new processes still appear after %d rounds", c.path, killRounds)
}

// quickFreeze tries to freeze for a few milliseconds only.
func (c *Cgroup) quickFreeze() bool {
	if dir := c.Dir("freezer"); dir != "" {
		for range 20 {
			if writeFile(dir+"/freezer.state", "FROZEN") != nil {
				return false
			}
			if trimmed(dir+"/freezer.state") == "FROZEN" {
				return true
			}
			time.Sleep(200 * time.Microsecond)
		}
		return false
	}
	dir := c.V2Dir()
	return dir != "" && writeFile(dir+"/cgroup.freeze", "1") == nil &&
		waitEvent(dir+"/cgroup.events", "frozen", "1", 5*time.Millisecond) == nil
}

// waitEvent waits until a line "key value" stands in a cgroup.events file, which the kernel announces
// with POLLPRI.
func waitEvent(file, key, value string, timeout time.Duration) error {
	fd, err := open(file, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(timeout)
	buf := make([]byte, 256)
	for {
		n, err := unix.Pread(fd, buf, 0)
		if err != nil && err != unix.EINTR {
			return err
		}
		if keyed(buf[:max(n, 0)], key) == value {
			return nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return unix.ETIMEDOUT
		}
		ms := int(min(left, 100*time.Millisecond)/time.Millisecond) + 1
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, ms)
	}
}

func eventIs(file, key, value string) bool {
	b, err := readFile(file)
	return err == nil && keyed(b, key) == value
}

// keyed finds a "key value" line's value.
func keyed(b []byte, key string) string {
	for line := range strings.SplitSeq(string(b), "\n") {
		if k, v, ok := strings.Cut(line, " "); ok && k == key {
			return v
		}
	}
	return ""
}

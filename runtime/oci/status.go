package oci

import (
	"golang.org/x/sys/unix"

	"berth/kernel/process"
)

// status is a container's state in the words of the runtime specification, and "paused".
type status string

const (
	creating status = "creating"
	created  status = "created"
	running  status = "running"
	paused   status = "paused"
	stopped  status = "stopped"
)

// status derives the state from the process, the fifo and the freezer.
func (c *container) status() status {
	if !c.alive() {
		return stopped
	}
	if unix.Access(c.dir+"/"+fifoFile, unix.F_OK) == nil {
		return created
	}
	if cg, err := c.cgroup(); err == nil && cg != nil {
		if frozen, err := cg.Frozen(); err == nil && frozen {
			return paused
		}
	}
	return running
}

// alive reports whether the container's first process exists, is the one that was started, and is no zombie.
func (c *container) alive() bool {
	return c.rec.PID > 0 && process.Same(c.rec.PID, c.rec.StartTime)
}

package oci

import (
	"berth/base/fault"
)

// pause freezes a container.
func (t *tool) pause(f *flagSet) (int, error) {
	c, err := t.loadLocked(f.arg(0))
	if err != nil {
		return 1, err
	}
	switch s := c.status(); s {
	case running, created:
	case paused:
		return 1, fault.New(fault.Conflict, "container paused")
	default:
		return 1, errNotRunning
	}
	cg, err := c.mustCgroup("pause")
	if err != nil {
		return 1, err
	}
	return 0, cg.Freeze()
}

// resume thaws a container.
func (t *tool) resume(f *flagSet) (int, error) {
	c, err := t.loadLocked(f.arg(0))
	if err != nil {
		return 1, err
	}
	if c.status() != paused {
		return 1, fault.New(fault.Conflict, "container not paused")
	}
	cg, err := c.mustCgroup("resume")
	if err != nil {
		return 1, err
	}
	return 0, cg.Thaw()
}

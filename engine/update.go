package engine

import (
	"context"
	"errors"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/engine/bundle"
	"berth/engine/container"
	"berth/engine/restart"
)

// Update changes limits, and the restart policy where p is not nil: durably, and at once where the container runs; all of it or nothing.
// What is zero in r stays as it is; a list of devices that is not nil takes the place of the old one.
func (e *Engine) Update(ctx context.Context, ref string, r container.Resources, p *container.Restart) (warnings []string, err error) {
	c, err := e.index.find(ref)
	if err != nil {
		return nil, err
	}
	end, err := c.begin(ctx, "update")
	if err != nil {
		return nil, err
	}
	defer end()
	if err := c.mayChange("update"); err != nil {
		return nil, err
	}
	old := c.record()
	spec := *old.Spec
	if !reflect.ValueOf(r).IsZero() {
		if spec.Resources, err = mergeResources(spec.Resources, r); err != nil {
			return nil, fault.In(err, "Cannot update container %s", c.id)
		}
		if warnings, err = CheckResources(&spec.Resources, e.layout); err != nil {
			return nil, err
		}
	}
	if p != nil {
		if err := restart.Check(*p); err != nil {
			return nil, err
		}
		if spec.AutoRemove && p.Name != "" && p.Name != "no" {
			return nil, fault.New(fault.Conflict, "Restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		spec.Restart = *p
	}
	rec := *old
	rec.Spec = &spec
	undo, err := e.applyLimits(ctx, c, &old.Spec.Resources, &spec.Resources)
	if err != nil {
		return nil, fault.In(err, "Cannot update container %s", c.id)
	}
	if err := e.store.Write(&rec); err != nil {
		return nil, errors.Join(err, undo())
	}
	c.setRecord(&rec)
	if old.Spec.Resources.Memory == 0 && spec.Resources.Memory != 0 {
		e.watchOOM(c) // it may not have been worth watching before
	}
	if p != nil {
		e.callOffRestart(c, *p)
	}
	e.tell(c, "update", nil)
	return warnings, nil
}

// applyLimits changes the limits of a container that runs. undo takes the change back.
func (e *Engine) applyLimits(ctx context.Context, c *entry, old, now *container.Resources) (undo func() error, err error) {
	cg := c.cgroup()
	if cg == nil || !c.snapshot().State.Running || reflect.DeepEqual(old, now) {
		return func() error { return nil }, nil
	}
	before, err := bundle.Limits(old)
	if err != nil {
		before = &specs.LinuxResources{} // a disk that is gone; the cgroup itself still knows what held
	}
	limits, err := bundle.Limits(lifting(old, now))
	if err != nil {
		return nil, err
	}
	return e.groups.update(ctx, c.record().Cgroup, cg, limits, before)
}

// lifting gives now, with a line that lifts the limit of each device that old has and now has not.
func lifting(old, now *container.Resources) *container.Resources {
	out := *now
	out.BlkioWeightDevice = slices.Clone(now.BlkioWeightDevice)
	for _, o := range old.BlkioWeightDevice {
		if !slices.ContainsFunc(now.BlkioWeightDevice, func(n container.WeightDevice) bool { return n.Path == o.Path }) {
			out.BlkioWeightDevice = append(out.BlkioWeightDevice, container.WeightDevice{Path: o.Path})
		}
	}
	for _, l := range []struct{ to, old *[]container.ThrottleDevice }{
		{&out.BlkioDeviceReadBps, &old.BlkioDeviceReadBps}, {&out.BlkioDeviceWriteBps, &old.BlkioDeviceWriteBps},
		{&out.BlkioDeviceReadIOps, &old.BlkioDeviceReadIOps}, {&out.BlkioDeviceWriteIOps, &old.BlkioDeviceWriteIOps},
	} {
		*l.to = slices.Clone(*l.to)
		for _, o := range *l.old {
			if !slices.ContainsFunc(*l.to, func(n container.ThrottleDevice) bool { return n.Path == o.Path }) {
				*l.to = append(*l.to, container.ThrottleDevice{Path: o.Path})
			}
		}
	}
	return &out
}

// callOffRestart ends the wait of a container for its next start when its new policy would not start it. c's op is held.
func (e *Engine) callOffRestart(c *entry, p container.Restart) {
	at := c.standing()
	if at.State.Status != container.Restarting {
		return
	}
	// The start that it waits for is counted already.
	before := restart.Ended{Code: at.State.ExitCode, Manually: at.State.ManuallyStopped, Restarts: at.RestartCount - 1}
	if p.Name == restart.OnUnhealthy || restart.Decide(p, before).Restart {
		return
	}
	c.cancelRestart()
	if err := c.become(container.Exited); err != nil {
		e.log.Error("cannot note that a restart was called off", "container", c.id, "error", err)
	}
}

// mergeResources gives old with what is set in r.
func mergeResources(old, r container.Resources) (container.Resources, error) {
	n := old
	if r.NanoCPUs != 0 && (n.CPUPeriod != 0 || n.CPUQuota != 0) {
		return n, fault.New(fault.Invalid, "Conflicting options: Nano CPUs cannot be updated as CPU Period or CPU Quota has already been set")
	}
	if (r.CPUPeriod != 0 || r.CPUQuota != 0) && n.NanoCPUs != 0 {
		return n, fault.New(fault.Invalid, "Conflicting options: CPU Period or CPU Quota cannot be updated as NanoCPUs has already been set")
	}
	if r.Memory != 0 && r.MemorySwap == 0 && n.MemorySwap > 0 && r.Memory > n.MemorySwap {
		return n, fault.New(fault.Invalid, "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	for _, v := range []struct{ to, from *int64 }{
		{&n.Memory, &r.Memory}, {&n.MemoryReservation, &r.MemoryReservation}, {&n.MemorySwap, &r.MemorySwap}, {&n.KernelMemoryTCP, &r.KernelMemoryTCP},
		{&n.NanoCPUs, &r.NanoCPUs}, {&n.CPUShares, &r.CPUShares}, {&n.CPUPeriod, &r.CPUPeriod}, {&n.CPUQuota, &r.CPUQuota},
		{&n.CPURealtimePeriod, &r.CPURealtimePeriod}, {&n.CPURealtimeRuntime, &r.CPURealtimeRuntime},
	} {
		if *v.from != 0 {
			*v.to = *v.from
		}
	}
	if r.CpusetCpus != "" {
		n.CpusetCpus = r.CpusetCpus
	}
	if r.CpusetMems != "" {
		n.CpusetMems = r.CpusetMems
	}
	if r.PidsLimit != nil {
		n.PidsLimit = r.PidsLimit
	}
	if r.BlkioWeight != 0 {
		n.BlkioWeight = r.BlkioWeight
	}
	if r.BlkioWeightDevice != nil {
		n.BlkioWeightDevice = r.BlkioWeightDevice
	}
	for _, l := range []struct{ to, from *[]container.ThrottleDevice }{
		{&n.BlkioDeviceReadBps, &r.BlkioDeviceReadBps}, {&n.BlkioDeviceWriteBps, &r.BlkioDeviceWriteBps},
		{&n.BlkioDeviceReadIOps, &r.BlkioDeviceReadIOps}, {&n.BlkioDeviceWriteIOps, &r.BlkioDeviceWriteIOps},
	} {
		if *l.from != nil {
			*l.to = *l.from
		}
	}
	return n, nil
}

// Stats reads the container's cgroup. A container that does not run gives zeros and Running false.
func (e *Engine) Stats(ctx context.Context, ref string) (Stats, error) {
	c, err := e.index.find(ref)
	if err != nil {
		return Stats{}, err
	}
	i := c.snapshot()
	s := Stats{ID: i.ID, Name: i.Name, Read: time.Now(), CPUs: runtime.NumCPU(), Memory: hostMemory(), Running: i.State.Status.Alive()}
	cg := c.cgroup()
	if !s.Running || cg == nil {
		s.Running = false
		return s, nil
	}
	if s.Cgroup, err = cg.Stats(); err != nil {
		if ended := c.endedChan(); closed(ended) {
			s.Running = false
			return s, nil
		}
		return s, fault.In(err, "reading the figures of container %s", c.id)
	}
	if i.Spec.Network.Name() != "host" {
		s.NetDev = e.netDev(c, i.State.Pid)
	}
	return s, nil
}

// netDev reads /proc/net/dev of the container's first process; nil where the number is not, or not any more, that process's: by then it may be
// somebody else's, in another network.
func (e *Engine) netDev(c *entry, pid int) []byte {
	if pid <= 0 {
		return nil
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/dev")
	if err != nil || !e.keeper.Holds(c.id, pid) {
		return nil
	}
	return text
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

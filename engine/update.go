package engine

import (
	"context"
	"errors"
	"runtime"
	"time"

	"berth/base/fault"
	"berth/engine/bundle"
	"berth/engine/container"
	"berth/engine/restart"
)

// Update changes limits, durably, and at once where the container runs. What is zero in r stays as it is.
func (e *Engine) Update(ctx context.Context, ref string, r container.Resources) ([]string, error) {
	return e.update(ctx, ref, &r, nil)
}

// UpdateRestart changes the restart policy.
func (e *Engine) UpdateRestart(ctx context.Context, ref string, p container.Restart) error {
	_, err := e.update(ctx, ref, nil, &p)
	return err
}

func (e *Engine) update(ctx context.Context, ref string, r *container.Resources, p *container.Restart) ([]string, error) {
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
	var warnings []string
	if r != nil {
		if spec.Resources, err = mergeResources(spec.Resources, *r); err != nil {
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
	cg := c.cgroup()
	live := r != nil && cg != nil && c.snapshot().State.Running
	if live {
		limits, err := bundle.Limits(&spec.Resources)
		if err != nil {
			return nil, err
		}
		if err := e.groups.update(ctx, rec.Cgroup, cg, limits); err != nil {
			return nil, fault.In(err, "Cannot update container %s", c.id)
		}
	}
	if err := e.store.Write(&rec); err != nil {
		if live { // put back what held before, as far as the kernel lets us
			if limits, lerr := bundle.Limits(&old.Spec.Resources); lerr == nil {
				err = errors.Join(err, e.groups.update(ctx, rec.Cgroup, cg, limits))
			}
		}
		return nil, err
	}
	c.setRecord(&rec)
	e.tell(c, "update", nil)
	return warnings, nil
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
	return s, nil
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

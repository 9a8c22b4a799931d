package store

import "berth/engine/container"

// healthOutput bounds, in bytes, what the journal keeps of a probe's output.
const healthOutput = 512

// SetHealth notes a standing of which only the health changed. It is there after a crash of the engine, with the beginning of each output;
// not after one of the machine, which no process survives either.
func (s *Store) SetHealth(cid string, at Standing) error {
	if s.now.bloated() { // the flush to disk rewrites it
		return s.SetStanding(cid, at)
	}
	at.State.Health = shortened(at.State.Health)
	l, err := encode(line{ID: cid, Boot: s.boot, Time: s.stamp.next(), Standing: &at})
	if err != nil {
		return err
	}
	return s.now.append(l)
}

func shortened(h *container.Health) *container.Health {
	if h == nil {
		return nil
	}
	n := *h
	n.Log = make([]container.HealthResult, len(h.Log))
	for i, r := range h.Log {
		if len(r.Output) > healthOutput {
			r.Output = r.Output[:healthOutput] + "..."
		}
		n.Log[i] = r
	}
	return &n
}

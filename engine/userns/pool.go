package userns

import (
	"slices"
	"sync"

	"berth/base/fault"
	"berth/kernel/idmap"
)

// Pool gives host ids out. It may be used by several goroutines at once.
type Pool struct {
	blocks []idmap.Block // that may be given, in order, none touching another

	mu    sync.Mutex
	held  map[string]idmap.Pair // by container
	taken []idmap.Block         // all host ids of held, sorted by start; some twice
	where uint32                // where the search goes on: what was given back last comes last
}

// NewPool makes a pool of the ids that are in both lists, of users and of groups: a container's users and groups get the
// same numbers on the host, which whoever looks at the host can read.
func NewPool(users, groups []idmap.Block) *Pool {
	return &Pool{blocks: both(merge(users), merge(groups)), held: map[string]idmap.Pair{}}
}

// Keep notes what a container holds that exists already.
func (p *Pool) Keep(id string, m idmap.Pair) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold(id, m)
	for _, r := range m.Users { // so that a new engine does not give out first what was given back last
		if end := r.Outside + r.Size; p.has(r.Outside) && end > p.where {
			p.where = end
		}
	}
}

// Meets says whether somebody holds ids of a mapping.
func (p *Pool) Meets(m idmap.Pair) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range blocksOf(m) {
		if slices.ContainsFunc(p.taken, func(t idmap.Block) bool { return crosses(b, t) }) {
			return true
		}
	}
	return false
}

// Release gives back what a container held. One that held nothing is no error.
func (p *Pool) Release(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(id)
}

// hold enters what a container holds.
func (p *Pool) hold(id string, m idmap.Pair) {
	p.drop(id)
	p.held[id] = m
	for _, b := range blocksOf(m) {
		i, _ := slices.BinarySearchFunc(p.taken, b, byStart)
		p.taken = slices.Insert(p.taken, i, b)
	}
}

func (p *Pool) drop(id string) {
	for _, b := range blocksOf(p.held[id]) {
		i, _ := slices.BinarySearchFunc(p.taken, b, byStart)
		for p.taken[i] != b { // another one's of the same start
			i++
		}
		p.taken = slices.Delete(p.taken, i, i+1)
	}
	delete(p.held, id)
}

// blocksOf lists the host ids of a mapping, users' and groups' together.
func blocksOf(m idmap.Pair) (all []idmap.Block) {
	for _, r := range slices.Concat(m.Users, m.Groups) {
		if b := (idmap.Block{Start: r.Outside, Size: r.Size}); !slices.Contains(all, b) {
			all = append(all, b)
		}
	}
	return all
}

// Take gives a container ids of its own.
func (p *Pool) Take(id string, w Wish) (idmap.Pair, error) {
	size := w.Size
	if size == 0 {
		size = DefaultSize
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var asked []idmap.Block
	for _, r := range slices.Concat(w.Users, w.Groups) {
		b := idmap.Block{Start: r.Outside, Size: r.Size}
		if slices.ContainsFunc(p.taken, func(t idmap.Block) bool { return crosses(b, t) }) {
			return idmap.Pair{}, fault.New(fault.Conflict, "userns: the host ids of mapping %v are another container's", r)
		}
		asked = append(asked, b)
	}
	taken := p.taken
	if len(asked) > 0 {
		taken = slices.Concat(taken, asked)
		slices.SortFunc(taken, byStart)
	}
	start, ok := p.find(size, taken)
	if !ok {
		return idmap.Pair{}, fault.New(fault.Conflict, "userns: no %d host ids in a row are left for another container: give the pool more (--userns-pool), or containers less (--userns=auto:size=N)", size)
	}
	m := idmap.Pair{Users: fill(w.Users, start, size), Groups: fill(w.Groups, start, size)}
	if err := m.Check(); err != nil {
		return idmap.Pair{}, err
	}
	p.hold(id, m)
	p.where = start + size
	return m, nil
}

// find gives the first range from where on, or from the beginning, with nothing in it of taken, which is sorted.
func (p *Pool) find(size uint32, taken []idmap.Block) (uint32, bool) {
	free := subtract(p.blocks, taken)
	for _, b := range free {
		if end := b.Start + b.Size; b.Start < p.where && end > p.where {
			b = idmap.Block{Start: p.where, Size: end - p.where}
		} else if b.Start < p.where {
			continue
		}
		if b.Size >= size {
			return b.Start, true
		}
	}
	for _, b := range free {
		if b.Size >= size {
			return b.Start, true
		}
	}
	return 0, false
}

// Left gives how many ids nobody holds.
func (p *Pool) Left() (n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range subtract(p.blocks, p.taken) {
		n += uint64(b.Size)
	}
	return n
}

func (p *Pool) has(id uint32) bool {
	return slices.ContainsFunc(p.blocks, func(b idmap.Block) bool { return id >= b.Start && id-b.Start < b.Size })
}

// fill maps what a wish leaves open of the ids from 0 to size onto a range.
func fill(asked idmap.Map, start, size uint32) idmap.Map {
	m := slices.Clone(asked)
	slices.SortFunc(m, func(a, b idmap.Range) int { return compare(a.Inside, b.Inside) })
	var out idmap.Map
	next := uint32(0)
	for _, r := range m {
		if r.Inside > next && next < size {
			n := min(r.Inside, size) - next
			out = append(out, idmap.Range{Inside: next, Outside: start + next, Size: n})
		}
		out = append(out, r)
		next = r.Inside + r.Size
	}
	if next < size {
		out = append(out, idmap.Range{Inside: next, Outside: start + next, Size: size - next})
	}
	return out
}

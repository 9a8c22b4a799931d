package bridge

import (
	"strconv"

	"berth/base/fault"
	"berth/kernel/link"
	"berth/network/driver"
)

// How bandwidth is limited and shared.
//
// The rate of an endpoint is a token bucket each way: on the host's end of its pair for what goes in, and on an ifb link,
// to which all that comes out of the host's end is led, for what leaves. Where the kernel has no ifb, what leaves beyond
// the rate is dropped instead of made to wait.
//
// The weight of an endpoint is its share of the network's bandwidth, which is said by the network's option berth.rate:
// without it there is nothing to divide. What passes between the network and the rest of the world passes the bridge's own
// link; a hierarchical bucket there, and one on an ifb for the other direction, have a class for each endpoint:
//
//	1:1  all of it, berth.rate
//	├─ 1:2 …  one for each endpoint: its part is its own, and what others leave it may take, by weight
//	└─ 1:7fff anybody else
//
// Traffic between containers of the network stays within the bridge and is not counted.

// Keys of what an endpoint keeps.
const (
	keepClass  = "class"
	keepWeight = "weight"
	keepRate   = "rate" // it has a limit
)

const (
	allClass     = 1
	firstClass   = 2
	restClass    = 0x7FFF
	usualWeight  = 100
	leastQuantum = 64 << 10 // as large as a segment that the card will cut: turns are not fair with less
)

// shares is how one network's bandwidth is divided.
type shares struct {
	total   uint64
	links   [2]int // the bridge, for what goes in; the ifb, for what comes out
	classes map[string]class
}

type class struct {
	minor  uint16
	weight uint64
}

func shareLink(networkID string) string { return "ifb-" + networkID[:min(11, len(networkID))] }
func rateLink(endpointID string) string { return "ifb" + endpointID[:min(7, len(endpointID))] }

// shapeNetwork makes what a network with a bandwidth needs.
func (d *Driver) shapeNetwork(n driver.Network, bridge int) error {
	v := n.Options[driver.OptRate]
	if v == "" {
		return nil
	}
	total, err := driver.Rate(v)
	if err != nil {
		return err
	}
	ifb, err := d.makeIFB(shareLink(n.ID), mark(n))
	if err != nil {
		return fault.In(err, "share the bandwidth of network %s", n.Name)
	}
	var ops []link.Op
	for _, l := range []int{bridge, ifb} {
		ops = append(ops, link.HTB(l, restClass).OrExists(), link.HTBClass(l, 0, allClass, total, total, leastQuantum),
			link.HTBClass(l, link.Handle(1, allClass), restClass, total/100, total, leastQuantum))
	}
	ops = append(ops, link.ClsAct(bridge).OrExists(), link.RedirectIn(bridge, ifb).OrExists())
	if err := d.conn.Do(ops...); err != nil {
		return fault.In(err, "share the bandwidth of network %s", n.Name)
	}
	d.mu.Lock()
	d.shares[n.ID] = &shares{total: total, links: [2]int{bridge, ifb}, classes: map[string]class{}}
	d.mu.Unlock()
	return nil
}

// makeIFB makes an ifb link, up, or gives the one that there is.
func (d *Driver) makeIFB(name, alias string) (int, error) {
	err := d.conn.Do(link.Add(link.Link{Name: name, Kind: "ifb", Up: true, TxQueue: 32}).OrExists(), link.SetNamed(name, link.Change{Alias: alias}))
	if err != nil {
		return 0, err
	}
	l, err := d.conn.ByName(name)
	return l.Index, err
}

// rememberShares knows the classes of containers that run since before.
func (d *Driver) rememberShares(n driver.Network, all []driver.Left) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.shares[n.ID]
	if s == nil {
		return
	}
	for _, e := range all {
		minor, err := strconv.ParseUint(e.Keep[keepClass], 10, 16)
		weight, werr := strconv.ParseUint(e.Keep[keepWeight], 10, 16)
		if err == nil && werr == nil {
			s.classes[e.EndpointID] = class{uint16(minor), weight}
		}
	}
}

// shapeEndpoint limits an endpoint and gives it its share.
func (d *Driver) shapeEndpoint(n driver.Network, r driver.Request, a *driver.Attachment) error {
	if r.Rate > 0 {
		if err := d.limit(n, r, a); err != nil {
			return fault.In(err, "limit the bandwidth of %s on network %s", r.ContainerName, n.Name)
		}
	}
	return fault.In(d.share(n, r, a), "share the bandwidth of network %s", n.Name)
}

// limit caps an endpoint both ways.
func (d *Driver) limit(n driver.Network, r driver.Request, a *driver.Attachment) error {
	host, err := d.conn.ByName(a.HostLink)
	if err != nil {
		return err
	}
	a.Keep = map[string]string{keepRate: strconv.FormatUint(r.Rate, 10)}
	burst, queue := driver.Burst(r.Rate)
	if err := d.conn.Do(link.TBF(host.Index, r.Rate, burst, queue), link.ClsAct(host.Index)); err != nil {
		return err
	}
	ifb, err := d.makeIFB(rateLink(r.EndpointID), mark(n)+" "+r.EndpointID)
	if fault.Is(err, fault.NotImplemented) {
		return d.conn.Do(link.PoliceIn(host.Index, r.Rate, max(4*burst, 256<<10)))
	}
	if err != nil {
		return err
	}
	return d.conn.Do(link.TBF(ifb, r.Rate, burst, queue), link.RedirectIn(host.Index, ifb))
}

// unlimit deletes an endpoint's ifb. Its filter goes with the host's end.
func (d *Driver) unlimit(l driver.Left) {
	if l.Keep[keepRate] != "" {
		if err := d.conn.Do(link.DeleteNamed(rateLink(l.EndpointID)).IfThere()); err != nil {
			d.cfg.Log.Error("a link stays that limited a container's bandwidth", "link", rateLink(l.EndpointID), "err", err)
		}
	}
}

// share gives an endpoint a class of its network's bandwidth; all classes' parts change.
func (d *Driver) share(n driver.Network, r driver.Request, a *driver.Attachment) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.shares[n.ID]
	if s == nil {
		return nil
	}
	c := class{s.free(), uint64(r.Weight)}
	if c.weight == 0 {
		c.weight = usualWeight
	}
	if c.minor == restClass {
		return nil // more containers than there are classes: it shares what the rest has
	}
	s.classes[r.EndpointID] = c
	ops := s.divide()
	for i, l := range s.links {
		if r.IPv4.IsValid() {
			ops = append(ops, link.Classify(l, link.Match{Address: r.IPv4.Addr().AsSlice(), Source: i == 1}, c.minor))
		}
		if r.IPv6.IsValid() {
			ops = append(ops, link.Classify(l, link.Match{Address: r.IPv6.Addr().AsSlice(), Source: i == 1}, c.minor))
		}
	}
	if err := d.conn.Do(ops...); err != nil {
		s.drop(d.conn, r.EndpointID)
		return err
	}
	// Within a class flows take turns where the kernel has fair queueing, else the first comes first.
	_ = d.conn.Do(link.FairQueue(s.links[0], c.minor), link.FairQueue(s.links[1], c.minor))
	if a.Keep == nil {
		a.Keep = map[string]string{}
	}
	a.Keep[keepClass], a.Keep[keepWeight] = strconv.Itoa(int(c.minor)), strconv.FormatUint(c.weight, 10)
	return nil
}

// unshape takes an endpoint's class away; the others' parts grow.
func (d *Driver) unshape(n driver.Network, l driver.Left) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.shares[n.ID]
	if s == nil {
		return
	}
	if _, ok := s.classes[l.EndpointID]; !ok {
		return
	}
	if err := s.drop(d.conn, l.EndpointID); err != nil {
		d.cfg.Log.Error("a container's share of a network's bandwidth stays", "network", n.Name, "err", err)
	}
}

// free gives the lowest class that nobody has; restClass when all are taken.
func (s *shares) free() uint16 {
	used := map[uint16]bool{}
	for _, c := range s.classes {
		used[c.minor] = true
	}
	for m := uint16(firstClass); m < restClass; m++ {
		if !used[m] {
			return m
		}
	}
	return restClass
}

// divide gives each class its part of the bandwidth, in proportion to the weights.
func (s *shares) divide() (ops []link.Op) {
	var sum uint64
	for _, c := range s.classes {
		sum += c.weight
	}
	for _, c := range s.classes {
		part := uint64(float64(s.total) * float64(c.weight) / float64(sum))
		for _, l := range s.links {
			ops = append(ops, link.HTBClass(l, link.Handle(1, allClass), c.minor, part, s.total, max(leastQuantum, uint32(c.weight*700))))
		}
	}
	return ops
}

// drop takes a class with its filters away.
func (s *shares) drop(conn *link.Conn, endpointID string) error {
	c := s.classes[endpointID]
	delete(s.classes, endpointID)
	var ops []link.Op
	for _, l := range s.links {
		ops = append(ops, link.Unclassify(l, c.minor, false).IfThere(), link.Unclassify(l, c.minor, true).IfThere(), link.DeleteClass(l, c.minor).IfThere())
	}
	return conn.Do(append(ops, s.divide()...)...)
}

package firewall

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"

	"berth/base/fault"
	"berth/kernel/nft"
)

// Config is what a Firewall is made with.
type Config struct {
	Table  string // "berth", or "berth-ID" for an engine that has an id; "" is "berth"
	Policy Policy
	Log    *slog.Logger // nil: the default one
}

// Firewall keeps the rules of one engine loaded in the network namespace in which it was opened.
type Firewall struct {
	config Config
	conn   *nft.Conn
	links  []string      // the host's interfaces at Open, where the policy needs them
	turn   chan struct{} // holds one token; whoever changes rules has it meanwhile
	stop   context.CancelFunc
	wait   sync.WaitGroup // of the watcher

	unheard chan struct{} // holds one token when a manager could not be asked, for the watcher

	mu       sync.Mutex // guards what follows, which is what the kernel has
	networks map[string]Network
	ports    map[Port]struct{}
	members  map[string]*used // elements that ports have put into sets, by their ids
	managers []Manager
	asked    []Ask // what others were asked for
	loaded   bool  // by us, since Open
}

// used is an element of a set and how many ports need it.
type used struct {
	member
	ports int
}

// Open makes a Firewall with nothing in it yet: what an earlier engine has left in the kernel works on until the first
// Replace puts the new rules in its place. It watches for others who change the host's firewall, and puts back what they take away
// (`nft flush ruleset`, `ufw reload`). It needs CAP_NET_ADMIN; NotImplemented: the kernel has no nftables, or (before Linux 5.2) no NAT in its inet family.
func Open(ctx context.Context, c Config) (*Firewall, error) {
	c.Table = cmp.Or(c.Table, "berth")
	if c.Log == nil {
		c.Log = slog.Default()
	}
	conn, err := nft.Dial(nil)
	if err != nil {
		return nil, fault.In(err, "open the firewall")
	}
	if err := probe(conn, c.Table); err != nil {
		conn.Close()
		return nil, err
	}
	f := &Firewall{config: c, conn: conn, turn: make(chan struct{}, 1), unheard: make(chan struct{}, 1), networks: map[string]Network{}, ports: map[Port]struct{}{}, members: map[string]*used{}}
	if c.Policy.OnlyOurs {
		if f.links, err = hostLinks(); err != nil {
			conn.Close()
			return nil, fault.Wrap(fault.Internal, err, "open the firewall")
		}
	}
	if err := f.watch(); err != nil {
		conn.Close()
		return nil, fault.In(err, "open the firewall")
	}
	return f, nil
}

// hostLinks are the names of all interfaces but the loopback.
func hostLinks() (names []string, err error) {
	all, err := net.Interfaces()
	for _, i := range all {
		if i.Flags&net.FlagLoopback == 0 {
			names = append(names, i.Name)
		}
	}
	return names, err
}

// probe loads a table with a chain that translates, and takes it away.
func probe(conn *nft.Conn, name string) error {
	t := nft.Table{Family: nft.Inet, Name: name + "-probe", Chains: []nft.Chain{{Name: "output", Hook: nft.Hook{Type: nft.NAT, Point: nft.Output, Priority: destination}}}}
	err := conn.Load(nft.NewBatch().Add(t).Delete(t.Family, t.Name))
	if err != nil && (fault.Is(err, fault.NotImplemented) || fault.Is(err, fault.NotFound)) {
		return fault.Wrap(fault.NotImplemented, err, "the kernel has no nftables with NAT for inet tables (CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT)")
	}
	return fault.In(err, "open the firewall")
}

// Replace makes the rules be those of the state, at one instant. Connections that exist stay. The state's Table, Policy, Managers and Links are not looked at:
// they are the Firewall's own.
func (f *Firewall) Replace(ctx context.Context, s State) error {
	if err := f.take(ctx); err != nil {
		return err
	}
	defer f.give()
	networks, ports := map[string]Network{}, map[Port]struct{}{}
	for _, n := range s.Networks {
		networks[n.ID] = n
	}
	for _, p := range s.Ports {
		ports[p.normal()] = struct{}{}
	}
	return f.replace(ctx, networks, ports)
}

// SetNetwork makes or changes a network. Its bridge should be there already.
func (f *Firewall) SetNetwork(ctx context.Context, n Network) error {
	if err := f.take(ctx); err != nil {
		return err
	}
	defer f.give()
	f.mu.Lock()
	networks, ports := maps.Clone(f.networks), maps.Clone(f.ports)
	f.mu.Unlock()
	networks[n.ID] = n
	return f.replace(ctx, networks, ports)
}

// RemoveNetwork takes a network away, with what is published of it. One that is not there is no error.
func (f *Firewall) RemoveNetwork(ctx context.Context, id string) error {
	if err := f.take(ctx); err != nil {
		return err
	}
	defer f.give()
	f.mu.Lock()
	networks, ports := maps.Clone(f.networks), maps.Clone(f.ports)
	f.mu.Unlock()
	delete(networks, id)
	maps.DeleteFunc(ports, func(p Port, _ struct{}) bool { return p.NetworkID == id })
	return f.replace(ctx, networks, ports)
}

// replace loads all rules of a state, asks the managers that there are, and remembers it. The caller has the turn.
func (f *Firewall) replace(ctx context.Context, networks map[string]Network, ports map[Port]struct{}) error {
	if err := checkNetworks(networks); err != nil {
		return err
	}
	managers, err := f.observe(ctx)
	if err != nil {
		return err
	}
	s := State{Table: f.config.Table, Policy: f.config.Policy, Links: f.links, Managers: managers, Networks: slices.Collect(maps.Values(networks)), Ports: slices.Collect(maps.Keys(ports))}
	rules := Compile(s)
	if err := f.conn.Load(nft.NewBatch().Replace(rules.Table)); err != nil {
		return err
	}
	f.mu.Lock()
	before, was, loaded := f.asked, f.ports, f.loaded
	f.networks, f.ports, f.managers, f.asked, f.loaded = networks, ports, managers, rules.Asks, true
	f.members = map[string]*used{}
	c := compiler{State: s, byID: networks}
	delta := changes{}
	for p := range ports {
		c.ofPort(func(m member) { delta.at(m, f.members).take(m) }, p)
	}
	delta.apply(f.members)
	f.mu.Unlock()
	f.ask(ctx, before, rules.Asks)
	if loaded { // else an earlier engine's exchanges go on
		f.forget(difference(ports, was), difference(was, ports))
	}
	return f.localnet(networks)
}

// checkNetworks refuses what the maps cannot hold.
func checkNetworks(networks map[string]Network) error {
	ids := slices.Sorted(maps.Keys(networks))
	bridges := map[string]Network{}
	for i, id := range ids {
		n := networks[id]
		for _, name := range append([]string{n.Bridge}, n.Trusted...) {
			if !isInterface(name) {
				return fault.New(fault.Invalid, "network %s: %q is no name of an interface", n.Name, name)
			}
		}
		if other, ok := bridges[n.Bridge]; ok {
			return fault.New(fault.Conflict, "network %s: bridge %s is network %s's", n.Name, n.Bridge, other.Name)
		}
		bridges[n.Bridge] = n
		for _, other := range ids[:i] {
			if p, ok := overlaps(n.Subnets, networks[other].Subnets); ok {
				return fault.New(fault.Conflict, "network %s: subnet %s overlaps with one of network %s", n.Name, p, networks[other].Name)
			}
		}
	}
	return nil
}

// isInterface reports whether a name can be an interface's and means in iptables' and nft's words what it says: there "+" and "*" at the end stand for anything.
func isInterface(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= 15 && name[0] != '-' && name[0] != '!' && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`/:"'\\+*@`, r)
	})
}

// ask asks the managers, after it has taken back what is not asked for any more. A manager that refuses is no failure of ours: it is logged, with what to do by
// hand, and asked again later.
func (f *Firewall) ask(ctx context.Context, before, now []Ask) {
	for _, a := range before {
		same := func(b Ask) bool {
			return a.Kind == b.Kind && a.V4 == b.V4 && a.Point == b.Point && b.By == ""
		}
		if i := slices.IndexFunc(now, same); i >= 0 {
			a.Bridges = slices.DeleteFunc(slices.Clone(a.Bridges), func(br string) bool { return slices.Contains(now[i].Bridges, br) })
			if a.Kind != KindFirewalld || len(a.Bridges) == 0 {
				continue
			}
		}
		if err := a.undo(ctx); err != nil {
			f.config.Log.Warn("what another firewall was asked for could not be taken back", "error", err)
		}
	}
	for _, a := range now {
		told := slices.ContainsFunc(before, func(b Ask) bool { return reflect.DeepEqual(a, b) })
		if a.By != "" && !told {
			f.config.Log.Warn("another firewall of the host drops containers' traffic", "firewall", a.name(), "chain", a.Table+" "+a.Chain, "to allow it", strings.Join(a.lines(), "; "))
		} else if err := a.do(ctx); err != nil {
			f.config.Log.Warn("another firewall of the host drops containers' traffic", "error", err, "to allow it", strings.Join(a.lines(), "; "))
			select {
			case f.unheard <- struct{}{}:
			default: // it is known already
			}
		}
	}
}

// localnet lets the host's connections to 127.0.0.1 go out by the bridges, to containers. A bridge that is not there yet is the driver's matter.
func (f *Firewall) localnet(networks map[string]Network) error {
	for _, n := range networks {
		if !n.nats(true) || strings.ContainsAny(n.Bridge, "/") {
			continue
		}
		err := os.WriteFile("/proc/sys/net/ipv4/conf/"+n.Bridge+"/route_localnet", []byte("1"), 0)
		if err != nil && !os.IsNotExist(err) {
			f.config.Log.Warn("ports published on 127.0.0.1 do not answer there", "network", n.Name, "error", err)
		}
	}
	return nil
}

// Rules gives the rules as text: what is loaded, and what others were asked for.
func (f *Firewall) Rules() string { return Compile(f.state()).String() }

// state is what is loaded.
func (f *Firewall) state() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return State{Table: f.config.Table, Policy: f.config.Policy, Links: f.links, Managers: f.managers,
		Networks: slices.Collect(maps.Values(f.networks)), Ports: slices.Collect(maps.Keys(f.ports))}
}

// Close stops watching. All rules stay.
func (f *Firewall) Close() error {
	f.stop()
	f.wait.Wait()
	return f.conn.Close()
}

// Remove takes away our table and what others were asked for. The Firewall can be filled again by Replace.
func (f *Firewall) Remove(ctx context.Context) error {
	if err := f.take(ctx); err != nil {
		return err
	}
	defer f.give()
	managers, err := f.observe(ctx)
	if err != nil {
		return err
	}
	f.mu.Lock()
	asked := f.asked
	for _, m := range managers { // those that an earlier engine has asked, too
		if m.Kind == KindIptables || m.Kind == KindLegacy {
			asked = append(asked, Ask{Manager: m, Ours: strings.ToUpper(f.config.Table)})
		}
	}
	f.networks, f.ports, f.members, f.asked, f.loaded = map[string]Network{}, map[Port]struct{}{}, map[string]*used{}, nil, false
	f.mu.Unlock()
	f.ask(ctx, asked, nil)
	return f.conn.Load(nft.NewBatch().Delete(nft.Inet, f.config.Table))
}

// take waits for the turn to change rules.
func (f *Firewall) take(ctx context.Context) error {
	select {
	case f.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fault.In(ctx.Err(), "wait for the firewall")
	}
}

func (f *Firewall) give() { <-f.turn }

package network

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/id"
	"berth/network/driver"
	"berth/network/driver/bridge"
)

// Create makes a network: its options and subnets are checked, missing subnets chosen, its file written, its links and
// rules made. Nothing is left of one that fails. The warning is for the client, mostly "".
func (n *Networks) Create(ctx context.Context, r CreateRequest) (Network, string, error) {
	end, err := n.turn(ctx)
	if err != nil {
		return Network{}, "", err
	}
	defer end()
	x, warning, err := n.draft(ctx, r)
	if err != nil {
		return Network{}, "", err
	}
	if err := n.chooseSubnets(ctx, x); err != nil {
		n.releasePools(ctx, x)
		return Network{}, "", err
	}
	if x.driver != nil && !x.ConfigOnly {
		if err := x.driver.Check(x.view, n.siblings(x)); err != nil {
			n.releasePools(ctx, x)
			return Network{}, "", err
		}
	}
	if err := n.establish(ctx, x); err != nil {
		n.releasePools(ctx, x)
		return Network{}, "", err
	}
	n.cfg.emit("create", &x.Network, nil)
	return x.Network, warning, nil
}

// establish makes a network that is checked: its file first, so that what a crash leaves is known to the next Open.
func (n *Networks) establish(ctx context.Context, x *entry) error {
	if err := n.write(x); err != nil {
		return err
	}
	_ = failpoint.Hit("network/written")
	err := n.make(ctx, x)
	if err != nil {
		n.unmake(ctx, x)
		if rerr := atomicfile.Remove(n.networkPath(x.ID)); rerr != nil {
			n.log.Error("a network's file stays", "network", x.Name, "err", rerr)
		}
		return err
	}
	n.mu.Lock()
	n.nets[x.ID] = x
	n.mu.Unlock()
	return nil
}

// make makes what the host needs for a network, as far as it is not there.
func (n *Networks) make(ctx context.Context, x *entry) error {
	if x.ConfigOnly {
		return nil
	}
	if err := x.driver.Create(ctx, x.view); err != nil {
		return err
	}
	return n.setRules(ctx, x)
}

func (n *Networks) unmake(ctx context.Context, x *entry) {
	if x.ConfigOnly || x.driver == nil {
		return
	}
	ctx = context.WithoutCancel(ctx)
	if err := n.dropRules(ctx, x); err != nil {
		n.log.Error("a network's rules stay", "network", x.Name, "err", err)
	}
	if err := x.driver.Delete(ctx, x.view); err != nil {
		n.log.Error("a network's links stay", "network", x.Name, "err", err)
	}
}

// makeNet makes a network that was read; what cannot be made is told when somebody wants to join it.
func (n *Networks) makeNet(ctx context.Context, x *entry) {
	switch {
	case x.ConfigOnly:
		return
	default:
		x.broken = fault.In(x.driver.Create(ctx, x.view), "network %s", x.Name)
	}
	if x.broken != nil {
		n.log.Error("a network cannot be made", "network", x.Name, "driver", x.Driver, "err", x.broken)
	}
}

// makeAll makes all networks that were read.
func (n *Networks) makeAll(ctx context.Context) {
	for _, x := range n.sorted() {
		n.makeNet(ctx, x)
		if r, ok := x.driver.(interface {
			Repair(driver.Network, []driver.Left) error
		}); ok && x.broken == nil {
			if err := r.Repair(x.view, n.leftOf(x)); err != nil {
				n.log.Error("running containers are cut off their network", "network", x.Name, "err", err)
			}
		}
	}
}

// leftOf gives the endpoints of a network that were made before, as its driver knows them.
func (n *Networks) leftOf(x *entry) (list []driver.Left) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for cid, e := range x.endpoints {
		if b := n.boxes[cid]; b != nil {
			list = append(list, b.left(*e, nil, false))
		}
	}
	return list
}

// sorted gives all networks, the oldest first.
func (n *Networks) sorted() []*entry {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return slices.SortedFunc(maps.Values(n.nets), func(a, b *entry) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
}

// siblings gives the other networks of the same driver.
func (n *Networks) siblings(x *entry) (list []driver.Network) {
	for _, o := range n.sorted() {
		if o.Driver == x.Driver && o.ID != x.ID && !o.ConfigOnly {
			list = append(list, o.view)
		}
	}
	return list
}

// predefined are the networks that the engine makes itself.
var predefined = []string{"bridge", "host", "none"}

// IsPredefined reports whether the engine makes the network of that name itself.
func IsPredefined(name string) bool { return slices.Contains(predefined, name) || name == "default" }

// draft reads a request into a network that has no subnets yet.
func (n *Networks) draft(ctx context.Context, r CreateRequest) (*entry, string, error) {
	r.Driver = cmp.Or(r.Driver, "bridge")
	r.IPAM.Driver = cmp.Or(r.IPAM.Driver, "default")
	switch {
	case strings.TrimSpace(r.Name) == "":
		return nil, "", fault.New(fault.Invalid, "invalid name: name is empty")
	case IsPredefined(r.Name):
		return nil, "", fault.New(fault.Forbidden, "operation is not permitted on predefined %s network", r.Name)
	case r.Scope != "" && r.Scope != "local":
		return nil, "", fault.New(fault.NotImplemented, "network scope %q is not supported: this engine is not part of a cluster", r.Scope)
	case r.Ingress:
		return nil, "", fault.New(fault.Forbidden, "Ingress network can only be created when this node is a swarm manager")
	case r.ConfigOnly && r.ConfigFrom != "":
		return nil, "", fault.New(fault.Forbidden, "a configuration network cannot depend on another configuration network")
	}
	for _, o := range n.sorted() {
		if o.Name == r.Name {
			return nil, "", fault.New(fault.Conflict, "network with name %s already exists", r.Name)
		}
	}
	x := &entry{endpoints: map[string]*Endpoint{}, Network: Network{
		ID: id.New(), Name: r.Name, Created: time.Now().UTC(), Driver: r.Driver, Internal: r.Internal, Attachable: r.Attachable,
		ConfigOnly: r.ConfigOnly, IPAM: r.IPAM, Options: maps.Clone(r.Options), Labels: maps.Clone(r.Labels), ConfigFrom: r.ConfigFrom,
	}}
	if r.ConfigFrom != "" {
		if err := n.inherit(x, &r); err != nil {
			return nil, "", err
		}
	}
	x.IPAM.Pools = clonePools(r.IPAM.Pools)
	if r.ConfigOnly {
		x.Driver = "null"
	}
	n.defaults(x, &r)
	if err := families(x, r); err != nil {
		return nil, "", err
	}
	if err := validIPAM(x); err != nil {
		return nil, "", err
	}
	if r.ConfigOnly {
		x.view = n.viewOf(x.Network)
		return x, "", nil
	}
	d, err := n.findDriver(ctx, x.Driver)
	if err != nil {
		return nil, "", err
	}
	x.driver, x.traits = d, d.Traits()
	if x.traits.Single {
		return nil, "", fault.New(fault.Forbidden, `only one instance of "%s" network is allowed`, x.Driver)
	}
	x.view = n.viewOf(x.Network)
	if x.Driver == "bridge" {
		x.view.Bridge = cmp.Or(x.Options[bridge.OptName], "br-"+x.ID[:12])
	}
	return x, "", nil
}

// inherit takes a configuration network's settings. The request may set none of them itself.
func (n *Networks) inherit(x *entry, r *CreateRequest) error {
	from, err := n.find(r.ConfigFrom)
	switch {
	case err != nil:
		return fault.New(fault.NotFound, "configuration network %q does not exist", r.ConfigFrom)
	case !from.ConfigOnly:
		return fault.New(fault.Forbidden, "%q is not a configuration network", r.ConfigFrom)
	case len(r.IPAM.Pools) > 0 || len(r.IPAM.Options) > 0 || r.IPv6 != nil && *r.IPv6 || len(r.Options) > 0 || len(r.Labels) > 0:
		return fault.New(fault.Forbidden, "user specified configurations are not supported if the network depends on a configuration network")
	}
	x.ConfigFrom = from.Name
	x.Options, x.Labels = maps.Clone(from.Options), maps.Clone(from.Labels)
	x.IPAM = from.IPAM
	r.IPAM = from.IPAM
	r.IPv4, r.IPv6 = &from.IPv4, &from.IPv6
	return nil
}

// defaults adds what the daemon's configuration says of all networks of a driver.
func (n *Networks) defaults(x *entry, r *CreateRequest) {
	for k, v := range n.cfg.DefaultNetworkOpts[x.Driver] {
		if k == driver.OptEnableIPv4 && r.IPv4 != nil || k == driver.OptEnableIPv6 && r.IPv6 != nil {
			continue // it would be shown although it does not count
		}
		if _, ok := x.Options[k]; !ok {
			if x.Options == nil {
				x.Options = map[string]string{}
			}
			x.Options[k] = v
		}
	}
}

// families settles whether the network has IPv4 and IPv6: what the request says, else what its options say, else IPv4 alone.
func families(x *entry, r CreateRequest) (err error) {
	if x.IPv4, err = driver.Bool(x.Options, driver.OptEnableIPv4, true); err != nil {
		return err
	}
	if x.IPv6, err = driver.Bool(x.Options, driver.OptEnableIPv6, false); err != nil {
		return err
	}
	if r.IPv4 != nil {
		x.IPv4 = *r.IPv4
	}
	if r.IPv6 != nil {
		x.IPv6 = *r.IPv6
	}
	if !x.IPv4 && !x.IPv6 && !x.ConfigOnly && x.Driver != "null" {
		return fault.New(fault.Invalid, "IPv4 or IPv6 must be enabled")
	}
	return nil
}

// validIPAM checks subnets, ranges, gateways and addresses of others, in Docker's words.
func validIPAM(x *entry) error {
	var wrong []string
	for _, p := range x.IPAM.Pools {
		if !p.Subnet.IsValid() || p.Subnet.Addr().Is6() && !x.IPv6 {
			continue
		}
		wrong = append(wrong, checkPool(p)...)
	}
	if len(wrong) == 0 {
		return nil
	}
	return fault.New(fault.Invalid, "invalid network config:\n%s", strings.Join(wrong, "\n"))
}

func checkPool(p Pool) (wrong []string) {
	if p.Subnet != p.Subnet.Masked() {
		wrong = append(wrong, fmt.Sprintf("invalid subnet %s: it should be %s", p.Subnet, p.Subnet.Masked()))
	}
	family := "IPv4"
	if p.Subnet.Addr().Is6() {
		family = "IPv6"
	}
	if r := p.Range; r.IsValid() {
		switch {
		case r.Addr().Is4() != p.Subnet.Addr().Is4():
			wrong = append(wrong, fmt.Sprintf("invalid ip-range %s: parent subnet is an %s block", r, family))
		case r != r.Masked():
			wrong = append(wrong, fmt.Sprintf("invalid ip-range %s: it should be %s", r, r.Masked()))
		case r.Bits() < p.Subnet.Bits():
			wrong = append(wrong, fmt.Sprintf("invalid ip-range %s: CIDR block is bigger than its parent subnet %s", r, p.Subnet))
		case !p.Subnet.Contains(r.Addr()):
			wrong = append(wrong, fmt.Sprintf("invalid ip-range %s: parent subnet %s doesn't contain ip-range", r, p.Subnet))
		}
	}
	within := func(a netip.Addr, what string) {
		switch {
		case a.Is4() != p.Subnet.Addr().Is4():
			wrong = append(wrong, fmt.Sprintf("%s: parent subnet is an %s block", what, family))
		case !p.Subnet.Contains(a):
			wrong = append(wrong, fmt.Sprintf("%s: parent subnet %s doesn't contain this address", what, p.Subnet))
		}
	}
	if p.Gateway.IsValid() {
		within(p.Gateway, fmt.Sprintf("invalid gateway %s", p.Gateway))
	}
	for _, name := range slices.Sorted(maps.Keys(p.Aux)) {
		within(p.Aux[name], fmt.Sprintf("invalid auxiliary address %s", name))
	}
	return wrong
}

func clonePools(list []Pool) []Pool {
	list = slices.Clone(list)
	for i := range list {
		list[i].Aux = maps.Clone(list[i].Aux)
	}
	return list
}

// viewOf is a network as its driver sees it.
func (n *Networks) viewOf(x Network) driver.Network {
	v := driver.Network{
		ID: x.ID, Name: x.Name, IPv4: x.IPv4, IPv6: x.IPv6, Internal: x.Internal, Options: x.Options, Labels: x.Labels,
		MTU: n.mtu(), Default: x.Name == "bridge" && x.Driver == "bridge", IPAMOptions: x.IPAM.Options,
	}
	for _, p := range x.IPAM.Pools {
		if p.Subnet.IsValid() && (p.Subnet.Addr().Is4() && x.IPv4 || p.Subnet.Addr().Is6() && x.IPv6) {
			v.Pools = append(v.Pools, driver.Pool{Subnet: p.Subnet, Range: p.Range, Gateway: p.Gateway, Aux: p.Aux})
		}
	}
	return v
}

// mtu is what networks without a size of their own have: the daemon's setting, else the host's default route's link's, so
// that packets of containers need no cutting on their way out.
func (n *Networks) mtu() int {
	if n.cfg.MTU > 0 {
		return n.cfg.MTU
	}
	routes, err := n.conn.Routes()
	if err != nil {
		return 0
	}
	best := -1
	for i, r := range routes {
		if r.To.Bits() == 0 && r.Index > 0 && (best < 0 || r.Metric < routes[best].Metric) {
			best = i
		}
	}
	if best < 0 {
		return 0
	}
	l, err := n.conn.ByIndex(routes[best].Index)
	if err != nil || l.MTU < 576 || l.MTU > 65535 {
		return 0
	}
	return l.MTU
}

package engine

import (
	"bytes"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"berth/base/fault"
	"berth/engine/container"
	"berth/network"
)

// The three files of /etc that are made for each container, in its directory, and bound into it.
type etcFiles struct{ Hostname, Hosts, ResolvConf string }

func (e *Engine) etcOf(cid string) etcFiles {
	dir := e.store.Dir(cid)
	return etcFiles{filepath.Join(dir, "hostname"), filepath.Join(dir, "hosts"), filepath.Join(dir, "resolv.conf")}
}

// writeEtc makes the files anew for a run, or for a change of its networks. A container that lives in another's network uses that one's.
func (e *Engine) writeEtc(r *container.Record, n network.Sandbox) error {
	hostHosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		hostHosts = nil // a host without one is in order
	}
	linked, err := e.linked(r, n)
	if err != nil {
		return err
	}
	s := r.Spec
	paths := e.etcOf(r.ID)
	for path, text := range map[string][]byte{
		paths.Hostname:   []byte(s.Hostname + "\n"),
		paths.Hosts:      hostsFile(s, hostHosts, n, linked),
		paths.ResolvConf: e.resolvConf(s, n),
	} {
		if err := rewrite(path, text); err != nil {
			return fault.Wrap(fault.Internal, err, "writing the container's %s", filepath.Base(path))
		}
	}
	return nil
}

// linked gives the lines of /etc/hosts for the containers that the default bridge's links name.
func (e *Engine) linked(r *container.Record, n network.Sandbox) (lines []string, err error) {
	for _, l := range r.Spec.Network.Links {
		ref, alias := splitLink(l)
		other, err := e.index.find(ref)
		if err != nil {
			return nil, fault.In(err, "could not get container for %s", ref)
		}
		i := other.snapshot()
		if !i.State.Status.Alive() {
			return nil, fault.New(fault.Conflict, "Cannot link to a non running container: /%s AS /%s/%s", i.Name, r.Name, alias)
		}
		for _, p := range i.Sandbox.Endpoints {
			if !slices.ContainsFunc(n.Endpoints, func(o network.Endpoint) bool { return o.NetworkID == p.NetworkID }) {
				continue
			}
			names := []string{alias, i.Spec.Hostname}
			if i.Name != alias {
				names = append(names, i.Name)
			}
			lines = append(lines, p.IPv4.Addr().String()+"\t"+strings.Join(names, " ")+"\n")
		}
	}
	return lines, nil
}

// rewrite leaves a file alone that is as it should be. Else it keeps the inode, which the container may have changed but not replaced.
func rewrite(path string, text []byte) error {
	same, err := holds(path, text)
	if err == nil && same {
		return nil
	}
	return os.WriteFile(path, text, 0o644)
}

// holds reports whether a file is exactly text. The container may have made it of any size: no more of it is read than can be of use.
func holds(path string, text []byte) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	have, err := io.ReadAll(io.LimitReader(f, int64(len(text))+1))
	return bytes.Equal(have, text), err
}

const localHosts = `127.0.0.1	localhost
` + localHosts6

const localHosts6 = `::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
`

// hostsFile gives /etc/hosts: the host's own for the host's network, else the loopback names; then the extra ones, then the container's
// own addresses, in Docker's order.
func hostsFile(s *container.Spec, host []byte, n network.Sandbox, linked []string) []byte {
	text := []byte(localHosts)
	if s.Security.Sysctls["net.ipv6.conf.all.disable_ipv6"] == "1" {
		text = []byte(strings.TrimSuffix(localHosts, localHosts6))
	}
	if s.Network.Name() == "host" && len(host) > 0 {
		text = bytes.TrimRight(bytes.Clone(host), "\n")
		text = append(text, '\n')
	}
	for _, h := range s.Network.ExtraHosts {
		name, addr, _ := strings.Cut(h, ":")
		if addr = strings.Trim(addr, "[]"); addr != "host-gateway" {
			text = append(text, addr+"\t"+name+"\n"...)
			continue
		}
		for _, a := range hostAddresses(n) {
			text = append(text, a.String()+"\t"+name+"\n"...)
		}
	}
	for _, l := range linked {
		text = append(text, l...)
	}
	names := s.Hostname
	if s.Domainname != "" {
		names = s.Hostname + "." + s.Domainname + " " + s.Hostname
	}
	for _, p := range n.Endpoints {
		for _, a := range []netip.Prefix{p.IPv4, p.IPv6} {
			if a.IsValid() {
				text = append(text, a.Addr().String()+"\t"+names+"\n"...)
			}
		}
	}
	return text
}

// hostAddresses gives the addresses by which a container reaches the host: those of the network that has its default route. In the
// host's own network it is loopback.
func hostAddresses(n network.Sandbox) (all []netip.Addr) {
	for _, p := range n.Endpoints {
		for _, a := range []netip.Addr{p.Gateway4, p.Gateway6} {
			if a.IsValid() {
				all = append(all, a)
			}
		}
		if len(all) > 0 {
			return all
		}
	}
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
}

// resolvConf gives /etc/resolv.conf. The host's servers are taken as they are in the host's own network and where there is none; a network
// of its own cannot reach those that listen on the host's loopback, and where Berth answers names the only server is its own.
func (e *Engine) resolvConf(s *container.Spec, n network.Sandbox) []byte {
	asked := container.Network{
		DNS: orElse(s.Network.DNS, e.cfg.DNS), DNSSearch: orElse(s.Network.DNSSearch, e.cfg.DNSSearch), DNSOptions: orElse(s.Network.DNSOptions, e.cfg.DNSOptions),
	}
	file := readHostResolv("/etc/resolv.conf")
	if len(n.Endpoints) == 0 {
		return resolvFile(asked, file)
	}
	if onlyLoopback(file) { // systemd-resolved's stub: what it forwards to stands beside
		if behind := readHostResolv("/run/systemd/resolve/resolv.conf"); behind != nil {
			file = behind
		}
	}
	if n.Resolver {
		asked.DNS = []string{resolverAddress}
		if len(asked.DNSOptions) == 0 {
			asked.DNSOptions = append(hostOptions(file), "ndots:0")
		}
		return resolvFile(asked, file)
	}
	if len(asked.DNS) == 0 {
		asked.DNS = reachable(file)
	}
	return resolvFile(asked, file)
}

// ResolvConf gives /etc/resolv.conf for something else than a container that runs in a network of its own: a step of a build.
func (e *Engine) ResolvConf(n network.Sandbox) []byte { return e.resolvConf(&container.Spec{}, n) }

// resolverAddress is where Berth's resolver answers in a container's network, as Docker's does.
const resolverAddress = "127.0.0.11"

func readHostResolv(path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return b
}

// nameservers gives the servers of a resolv.conf.
func nameservers(file []byte) (all []netip.Addr) {
	for line := range strings.Lines(string(file)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			if a, err := netip.ParseAddr(f[1]); err == nil {
				all = append(all, a)
			}
		}
	}
	return all
}

func onlyLoopback(file []byte) bool {
	all := nameservers(file)
	return len(all) > 0 && !slices.ContainsFunc(all, func(a netip.Addr) bool { return !a.IsLoopback() })
}

// reachable gives the servers that a container can ask itself; where there is none, the public ones that Docker falls back to.
func reachable(file []byte) (all []string) {
	for _, a := range nameservers(file) {
		if !a.IsLoopback() {
			all = append(all, a.String())
		}
	}
	if len(all) == 0 {
		return []string{"8.8.8.8", "8.8.4.4"}
	}
	return all
}

// hostOptions gives a resolv.conf's options but ndots.
func hostOptions(file []byte) (all []string) {
	for line := range strings.Lines(string(file)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "options" {
			for _, o := range f[1:] {
				if !strings.HasPrefix(o, "ndots:") {
					all = append(all, o)
				}
			}
		}
	}
	return all
}

// resolvFile gives /etc/resolv.conf: the host's, with what was asked for in place of its lines.
func resolvFile(n container.Network, host []byte) []byte {
	var b strings.Builder
	replaced := map[string]bool{"nameserver": len(n.DNS) > 0, "search": len(n.DNSSearch) > 0, "domain": len(n.DNSSearch) > 0, "options": len(n.DNSOptions) > 0}
	for line := range strings.Lines(string(host)) {
		f := strings.Fields(line)
		if len(f) > 0 && replaced[f[0]] {
			continue
		}
		b.WriteString(strings.TrimRight(line, "\n") + "\n")
	}
	for _, a := range n.DNS {
		b.WriteString("nameserver " + a + "\n")
	}
	if len(n.DNSSearch) > 0 && !(len(n.DNSSearch) == 1 && n.DNSSearch[0] == ".") {
		b.WriteString("search " + strings.Join(n.DNSSearch, " ") + "\n")
	}
	if len(n.DNSOptions) > 0 {
		b.WriteString("options " + strings.Join(n.DNSOptions, " ") + "\n")
	}
	return []byte(b.String())
}

// checkAddresses refuses what would make the files unreadable.
func checkAddresses(s *container.Spec) error {
	for _, a := range s.Network.DNS {
		if _, err := netip.ParseAddr(a); err != nil {
			return fault.New(fault.Invalid, "invalid DNS address: %s", a)
		}
	}
	for _, h := range s.Network.ExtraHosts {
		_, addr, _ := strings.Cut(h, ":")
		if addr == "host-gateway" {
			continue
		}
		if _, err := netip.ParseAddr(strings.Trim(addr, "[]")); err != nil {
			return fault.New(fault.Invalid, "invalid IP address in add-host: %q", addr)
		}
	}
	for _, w := range append(append([]string{}, s.Network.DNSSearch...), s.Network.DNSOptions...) {
		if strings.ContainsAny(w, " \t\n") {
			return fault.New(fault.Invalid, "invalid DNS search domain or option: %q", w)
		}
	}
	return nil
}

func orElse(asked, fallback []string) []string {
	if len(asked) > 0 {
		return asked
	}
	return fallback
}

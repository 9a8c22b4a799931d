package engine

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"berth/base/fault"
	"berth/engine/container"
)

// The three files of /etc that are made for each container, in its directory, and bound into it.
type etcFiles struct{ Hostname, Hosts, ResolvConf string }

func (e *Engine) etcOf(cid string) etcFiles {
	dir := e.store.Dir(cid)
	return etcFiles{filepath.Join(dir, "hostname"), filepath.Join(dir, "hosts"), filepath.Join(dir, "resolv.conf")}
}

// writeEtc makes the files anew for a run. A container that lives in another's network uses that one's.
func (e *Engine) writeEtc(r *container.Record) error {
	hostHosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		hostHosts = nil // a host without one is in order
	}
	hostResolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		hostResolv = nil
	}
	s := r.Spec
	paths := e.etcOf(r.ID)
	dns := container.Network{DNS: orElse(s.Network.DNS, e.cfg.DNS), DNSSearch: orElse(s.Network.DNSSearch, e.cfg.DNSSearch), DNSOptions: orElse(s.Network.DNSOptions, e.cfg.DNSOptions)}
	for path, text := range map[string][]byte{
		paths.Hostname:   []byte(s.Hostname + "\n"),
		paths.Hosts:      hostsFile(s.Network, hostHosts),
		paths.ResolvConf: resolvFile(dns, hostResolv),
	} {
		if err := rewrite(path, text); err != nil {
			return fault.Wrap(fault.Internal, err, "writing the container's %s", filepath.Base(path))
		}
	}
	return nil
}

// rewrite leaves a file alone that is as it should be. Else it keeps the inode, which the container may have changed but not replaced.
func rewrite(path string, text []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	return os.WriteFile(path, text, 0o644)
}

const localHosts = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
`

// hostsFile gives /etc/hosts: the host's own for the host's network, else the loopback names; then the extra ones.
func hostsFile(n container.Network, host []byte) []byte {
	text := []byte(localHosts)
	if n.Name() == "host" && len(host) > 0 {
		text = bytes.TrimRight(bytes.Clone(host), "\n")
		text = append(text, '\n')
	}
	for _, h := range n.ExtraHosts {
		name, addr, _ := strings.Cut(h, ":")
		addr = strings.Trim(addr, "[]")
		if addr == "host-gateway" {
			addr = "127.0.0.1" // only the host's own network has a way to it in this build
		}
		text = append(text, addr+"\t"+name+"\n"...)
	}
	return text
}

// resolvFile gives /etc/resolv.conf: the host's, with what was asked for in place of its lines. Loopback servers of the host are of no
// use in a network of its own, but there is none to reach in such a network of this build either, so they stay.
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
		if addr == "host-gateway" && s.Network.Name() == "host" {
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

package network

import (
	"encoding/json"
	"strings"
	"testing"

	"berth/network/driver"
	"berth/network/driver/bridge"
	"berth/network/driver/parent"
)

// FuzzWords feeds what users write: settings of interfaces, rates, names of links and VLANs.
func FuzzWords(f *testing.F) {
	for _, s := range []string{"net.ipv4.conf.IFNAME.log_martians=1", "10mbit", "2.5gbit", "eth0.10", "br-0123456789ab", "1e400", "net.ipv6.conf.IFNAME.x=1,", "-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if list, err := readSettings(s); err == nil {
			for _, x := range list {
				p := x.path("eth0")
				if strings.Contains(p, "..") || strings.Count(p, "/") != 4 || !strings.HasPrefix(p, "net/") {
					t.Errorf("%q leads to %q", s, p)
				}
			}
		}
		if r, err := driver.Rate(s); err == nil && (r < 8 || r > 1e13) {
			t.Errorf("%q is %d", s, r)
		}
		if checkIfname(s) == nil && bridge.CheckName(s) != nil {
			t.Errorf("%q is taken for an interface's name", s)
		}
		if base, id, err := parent.VLAN(s); err == nil && (base == "" || id < 1 || id > 4094) {
			t.Errorf("%q is VLAN %d of %q", s, id, base)
		}
	})
}

// FuzzFiles feeds damaged files of networks.
func FuzzFiles(f *testing.F) {
	good, _ := json.Marshal(networkFile{Version: 1, Network: Network{ID: strings.Repeat("a", 64), Name: "x", Driver: "bridge", IPv4: true, IPAM: subnet("10.1.0.0/24")}})
	f.Add(good)
	f.Add([]byte(`{"version":1,"network":{"ipv4":true,"ipam":{"pools":[{"subnet":"10.0.0.0/31","gateway":"10.0.0.9"}]}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var file networkFile
		if json.Unmarshal(b, &file) != nil {
			return
		}
		n := &Networks{}
		x := &entry{Network: file.Network, traits: driver.Traits{Addresses: true, Gateway: true, HostSide: true}}
		for _, p := range file.Network.IPAM.Pools {
			if p.Subnet.IsValid() {
				checkPool(p)
				x.view.Pools = append(x.view.Pools, driver.Pool{Subnet: p.Subnet, Range: p.Range, Gateway: p.Gateway, Aux: p.Aux})
			}
		}
		n.fillPools(x)
	})
}

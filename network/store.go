package network

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/base/id"
	"berth/network/ipam"
)

// formatVersion is of the files of Root and RunRoot: docs/formats-network.md.
const formatVersion = 1

// networkFile is Root/ID.json.
type networkFile struct {
	Version int      `json:"version"`
	Network Network  `json:"network"`
	Bridge  string   `json:"bridge,omitempty"` // the link's name, where it was chosen by us
	Chosen  bool     `json:"chosen,omitempty"` // its subnets were chosen by us
	Lent    []string `json:"lent,omitempty"`   // ids of its subnets at an IPAM plugin
}

func (n *Networks) networkPath(id string) string { return filepath.Join(n.cfg.Root, id+".json") }

// write makes a network durable.
func (n *Networks) write(x *entry) error {
	b, err := n.encode(x)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(n.networkPath(x.ID)); err == nil && bytes.Equal(old, b) {
		return nil // at every start: a full disk does not keep an engine from starting
	}
	return fault.In(atomicfile.Write(n.networkPath(x.ID), b, 0o600), "write network %s", x.Name)
}

// encode gives the content of a network's file.
func (n *Networks) encode(x *entry) ([]byte, error) {
	b, err := json.MarshalIndent(networkFile{formatVersion, x.Network, x.view.Bridge, x.view.DefaultAlloc, x.lent}, "", "\t")
	return append(b, '\n'), err
}

// readNetworks reads all networks. A file that cannot be read is told and left alone: its network is not there.
func (n *Networks) readNetworks() error {
	files, err := os.ReadDir(n.cfg.Root)
	if err != nil {
		return err
	}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok || !id.Valid(name) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(n.cfg.Root, f.Name()))
		if err != nil {
			return err
		}
		x, err := n.parseNetwork(b)
		if err != nil || x.ID != name {
			n.log.Error("a network's file is not readable; the network is ignored", "file", f.Name(), "err", err)
			continue
		}
		n.nets[x.ID] = x
	}
	return nil
}

func (n *Networks) parseNetwork(b []byte) (*entry, error) {
	var f networkFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	if f.Version != formatVersion {
		return nil, fault.New(fault.Invalid, "version %d", f.Version)
	}
	x := &entry{Network: f.Network, endpoints: map[string]*Endpoint{}}
	x.driver = n.drivers[x.Driver]
	if x.driver == nil {
		x.driver = later{n.finder, x.Driver}
	}
	x.traits = x.driver.Traits()
	x.view = n.viewOf(x.Network)
	x.view.Bridge, x.view.DefaultAlloc, x.lent = f.Bridge, f.Chosen, f.Lent
	return x, n.fillPools(x)
}

// openPools settles where subnets come from. IPv6 ones are of the engine's own part of fd00::/8, drawn once (RFC 4193).
func (n *Networks) openPools() error {
	n.pools = n.cfg.DefaultPools
	for _, p := range n.pools {
		if err := p.Check(); err != nil {
			return err
		}
	}
	six := false
	for _, p := range n.pools {
		six = six || p.Base.Addr().Is6()
	}
	if len(n.pools) > 0 && six {
		return nil
	}
	ula, err := n.ownPrefix()
	if err != nil {
		return err
	}
	if len(n.pools) == 0 {
		n.pools = ipam.Default(ula)
		return nil
	}
	n.pools = append(n.pools[:len(n.pools):len(n.pools)], ipam.PoolSpec{Base: ula, Size: 64})
	return nil
}

// ownPrefix reads the engine's own /48, or draws it.
func (n *Networks) ownPrefix() (netip.Prefix, error) {
	path := filepath.Join(n.cfg.Root, "prefix6")
	b, err := os.ReadFile(path)
	if err == nil {
		if p, err := netip.ParsePrefix(strings.TrimSpace(string(b))); err == nil && p.Bits() == 48 {
			return p, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return netip.Prefix{}, err
	}
	a := [16]byte{0xfd}
	rand.Read(a[1:6])
	p := netip.PrefixFrom(netip.AddrFrom16(a), 48)
	return p, atomicfile.Write(path, []byte(p.String()+"\n"), 0o600)
}

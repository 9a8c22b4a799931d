package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"

	"berth/base/fault"
	"berth/network/driver"
)

const maxConf = 1 << 20 // bytes of a configuration

// oldest is the version from which results tell which interface an address is on.
const oldest = "0.3.1"

// read finds a network's configuration: as JSON in the option, in the file that it names, or under the network's name.
func (d *Driver) read(n driver.Network) ([]byte, error) {
	conf := strings.TrimSpace(n.Options[OptConf])
	if strings.HasPrefix(conf, "{") {
		return []byte(conf), nil
	}
	if strings.Contains(conf, "/") {
		text, err := readFile(conf)
		return text, fault.Wrap(fault.Invalid, err, "network %s: option %s", n.Name, OptConf)
	}
	name := conf
	if name == "" {
		name = n.Name
	}
	list, err := libcni.LoadNetworkConf(d.cfg.ConfDir, name)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "network %s: no CNI configuration %q (option %s=FILE names one)", n.Name, name, OptConf)
	}
	return list.Bytes, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConf+1))
	if err == nil && len(text) > maxConf {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxConf)
	}
	return text, err
}

// parse reads a list of plugins, or one plugin, which is a list of one.
func parse(text []byte) (*libcni.NetworkConfigList, error) {
	list, err := parseAny(text)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "CNI configuration")
	}
	if list.CNIVersion == "" {
		list.CNIVersion = "0.1.0" // what a configuration without a version has always meant
	}
	old, err := version.GreaterThan(oldest, list.CNIVersion)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "CNI configuration")
	}
	if newer, _ := version.GreaterThan(list.CNIVersion, version.Current()); old || newer {
		return nil, fault.New(fault.Invalid, "CNI configuration: version %s; known are %s to %s", list.CNIVersion, oldest, version.Current())
	}
	for _, p := range list.Plugins {
		if p.Network.Type == "" || strings.Contains(p.Network.Type, "/") {
			return nil, fault.New(fault.Invalid, "CNI configuration: %q is no name of a plugin", p.Network.Type)
		}
	}
	return list, nil
}

func parseAny(text []byte) (*libcni.NetworkConfigList, error) {
	var shape struct {
		Plugins json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(text, &shape); err != nil {
		return nil, err
	}
	if shape.Plugins != nil {
		list, err := libcni.NetworkConfFromBytes(text)
		if err == nil && len(list.Plugins) == 0 {
			err = errors.New("it names no plugin")
		}
		return list, err
	}
	one, err := libcni.NetworkPluginConfFromBytes(text)
	if err != nil {
		return nil, err
	}
	if one.Network.Name == "" {
		return nil, errors.New("it has no name")
	}
	list, err := json.Marshal(map[string]any{"name": one.Network.Name, "cniVersion": one.Network.CNIVersion, "plugins": []json.RawMessage{text}})
	if err != nil {
		return nil, err
	}
	return libcni.NetworkConfFromBytes(list)
}

package bridge

import (
	"berth/network/driver"
)

type shape struct{}

func shareLink(id string) string { return "ifb-" + id[:min(11, len(id))] }

func (d *Driver) shapeNetwork(n driver.Network, bridge int) error { return nil }

func (d *Driver) shares(n driver.Network, r driver.Request) bool { return false }

func (d *Driver) shapeEndpoint(n driver.Network, r driver.Request, host int) error { return nil }

func (d *Driver) unshape(n driver.Network, l driver.Left) {}

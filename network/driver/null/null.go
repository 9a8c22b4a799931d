// Package null is the network "none": its containers have a namespace of their own with nothing but lo in it.
package null

import (
	"context"

	"berth/base/fault"
	"berth/network/driver"
)

// Driver is the driver "null".
type Driver struct{}

var _ driver.Driver = Driver{}

// Traits: the engine makes the one network.
func (Driver) Traits() driver.Traits { return driver.Traits{Single: true} }

// Check refuses a second network.
func (Driver) Check(_ driver.Network, others []driver.Network) error {
	if len(others) > 0 {
		return fault.New(fault.Forbidden, `only one instance of "null" network is allowed`)
	}
	return nil
}

// Create has nothing to do.
func (Driver) Create(context.Context, driver.Network) error { return nil }

// Delete has nothing to do.
func (Driver) Delete(context.Context, driver.Network) error { return nil }

// Join has nothing to do.
func (Driver) Join(context.Context, driver.Network, driver.Request) (driver.Attachment, error) {
	return driver.Attachment{Done: true}, nil
}

// Leave has nothing to do.
func (Driver) Leave(context.Context, driver.Network, driver.Left) error { return nil }

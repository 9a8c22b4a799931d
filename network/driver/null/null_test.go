package null

import (
	"os"
	"strings"
	"testing"

	"berth/base/fault"
	"berth/kernel/netns/alone"
	"berth/network/driver"
	"berth/network/driver/suite"
)

func TestMain(m *testing.M) { os.Exit(alone.Main(m)) }

func TestSuite(t *testing.T) {
	suite.Run(t, func(*testing.T) suite.Setup {
		return suite.Setup{Driver: Driver{}, Network: driver.Network{ID: strings.Repeat("a1", 32), Name: "one"}}
	})
	if err := (Driver{}).Check(driver.Network{}, []driver.Network{{}}); !fault.Is(err, fault.Forbidden) {
		t.Errorf("a second network: %v", err)
	}
}

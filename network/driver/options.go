package driver

import (
	"net"
	"net/netip"
	"strconv"

	"berth/base/fault"
)

// Options of Docker's that more than one driver knows, and ours.
const (
	OptMTU        = "com.docker.network.driver.mtu"
	OptPrefix     = "com.docker.network.container_iface_prefix"
	OptIfname     = "com.docker.network.endpoint.ifname"
	OptSysctls    = "com.docker.network.endpoint.sysctls"
	OptEnableIPv4 = "com.docker.network.enable_ipv4"
	OptEnableIPv6 = "com.docker.network.enable_ipv6"
	OptParent     = "parent"

	OptRate   = "berth.rate"   // of an endpoint: its limit; of a network: the bandwidth that its containers share
	OptWeight = "berth.weight" // of an endpoint
)

// Bool reads an option; absent gives the default.
func Bool(options map[string]string, key string, def bool) (bool, error) {
	v, ok := options[key]
	if !ok {
		return def, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return def, fault.New(fault.Invalid, "failed to parse %s value: %s (%v)", key, v, err)
	}
	return b, nil
}

// Int reads an option; absent or empty gives 0.
func Int(options map[string]string, key string) (int, error) {
	v, ok := options[key]
	if !ok || v == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		return 0, fault.New(fault.Invalid, "failed to parse %s value: %s (%v)", key, v, err)
	}
	return n, nil
}

// MTU reads the option of that name; 0 means that the network has no size of its own.
func MTU(options map[string]string) (int, error) {
	n, err := Int(options, OptMTU)
	if err == nil && (n < 0 || n != 0 && n < 68 || n > 65535) {
		err = fault.New(fault.Invalid, "invalid value for option %s: %d: an MTU is 68 to 65535", OptMTU, n)
	}
	return n, err
}

// Rate reads a bandwidth: "10mbit", "1gbit", "500kbit", "2.5mbit" or bits a second. Units are powers of ten.
func Rate(s string) (uint64, error) {
	digits := len(s)
	for digits > 0 && (s[digits-1] < '0' || s[digits-1] > '9') {
		digits--
	}
	units := map[string]float64{"": 1, "bit": 1, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9, "k": 1e3, "m": 1e6, "g": 1e9, "bps": 8, "kbps": 8e3, "mbps": 8e6, "gbps": 8e9}
	unit, ok := units[lower(s[digits:])]
	n, err := strconv.ParseFloat(s[:digits], 64)
	if !ok || err != nil || !(n > 0) || n*unit > 1e13 {
		return 0, fault.New(fault.Invalid, "invalid network rate %q: want a number and kbit, mbit or gbit, as in 10mbit", s)
	}
	if n*unit < 8 {
		return 0, fault.New(fault.Invalid, "invalid network rate %q: at least 8 bit per second", s)
	}
	return uint64(n * unit), nil
}

func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// MACOf makes the address that Docker gives to a link: 02:42 and the four bytes of its IPv4 address, or the last four of
// an IPv6 address where there is no other.
func MACOf(v4, v6 netip.Addr) net.HardwareAddr {
	mac := net.HardwareAddr{0x02, 0x42, 0, 0, 0, 0}
	switch {
	case v4.IsValid():
		copy(mac[2:], v4.AsSlice())
	case v6.IsValid():
		mac[0], mac[1] = 0x02, 0x46
		copy(mac[2:], v6.AsSlice()[12:])
	}
	return mac
}

// Burst gives the bytes that a limit lets through at once, and those that it lets wait: a timer's worth of the rate, room
// for a few segments that the card cuts, and 50 ms of waiting.
func Burst(rate uint64) (burst, queue uint32) {
	bytes := rate / 8
	burst = uint32(min(max(bytes/250, 32<<10), 16<<20))
	queue = uint32(min(max(bytes/20, 64<<10), 64<<20))
	return burst, queue + burst
}

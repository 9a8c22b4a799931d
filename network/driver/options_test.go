package driver

import (
	"net/netip"
	"testing"
)

func TestRates(t *testing.T) {
	for text, want := range map[string]uint64{
		"10mbit": 10e6, "1gbit": 1e9, "2.5Mbit": 2.5e6, "500kbit": 500e3, "1000000": 1e6, "64bit": 64, "1mbps": 8e6, "10M": 10e6,
		"": 0, "mbit": 0, "-1mbit": 0, "0": 0, "1": 0, "10 mbit": 0, "1e3mbit": 1e9, "fast": 0, "NaN": 0, "Inf": 0, "100000gbit": 0, "10mib": 0,
	} {
		got, err := Rate(text)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d %v, want %d", text, got, err, want)
		}
	}
}

func TestMACs(t *testing.T) {
	four, six := netip.MustParseAddr("172.17.0.2"), netip.MustParseAddr("fd00::1:2")
	for _, c := range []struct {
		four, six netip.Addr
		want      string
	}{{four, six, "02:42:ac:11:00:02"}, {netip.Addr{}, six, "02:46:00:01:00:02"}} {
		if got := MACOf(c.four, c.six).String(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestBurst(t *testing.T) {
	for _, rate := range []uint64{8, 1e6, 1e7, 1e9, 1e11, 1e13} {
		burst, queue := Burst(rate)
		if burst < 32<<10 || queue < burst {
			t.Errorf("%d: %d %d", rate, burst, queue)
		}
	}
}

package parent

import "testing"

func TestVLAN(t *testing.T) {
	for name, want := range map[string]uint16{"eth0.10": 10, "bond0.4094": 4094, "a.b.7": 7, "eth0": 0, "eth0.": 0, ".10": 0, "eth0.0": 0, "eth0.4095": 0, "eth0.x": 0, "eth0.-1": 0} {
		base, id, err := VLAN(name)
		if (err == nil) != (want > 0) || err == nil && (id != want || base+"."+name[len(base)+1:] != name) {
			t.Errorf("%s: %s %d %v", name, base, id, err)
		}
	}
}

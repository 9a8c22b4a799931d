package exec

import (
	"os"
	"testing"
)

// TestCgroupNamespace: steps are in the cgroup namespace that containers of this engine are in.
func TestCgroupNamespace(t *testing.T) {
	ours, err := os.Readlink("/proc/self/ns/cgroup")
	if err != nil {
		t.Skip("needs cgroup namespaces: ", err)
	}
	for mode, private := range map[string]bool{"private": true, "host": false} {
		r := newRoom(t, func(c *Config) { c.CgroupNS = mode })
		o := r.run(shell("readlink /proc/self/ns/cgroup"))
		must(t, o.failure)
		if (o.out != ours+"\n") != private {
			t.Errorf("%s: %q, the engine's is %q", mode, o.out, ours)
		}
	}
}

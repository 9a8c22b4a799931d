package main

import (
	"slices"
	"strings"
	"testing"

	"berth/engine"
)

func TestFieldOptions(t *testing.T) {
	for _, c := range []struct {
		name, file string
		args       []string
		check      func(engine.Config) bool
		err        string
	}{
		{name: "defaults", check: func(c engine.Config) bool {
			return slices.Equal(c.CDIDirs, []string{"/etc/cdi", "/var/run/cdi"}) && c.LayerSize == 0 && c.CPURealtimePeriod == 0 && c.CPURealtimeRuntime == 0
		}},
		{name: "flags", args: []string{"--cdi-spec-dir", "/a", "--cdi-spec-dir", "/b", "--storage-opt", "overlay2.size=10G", "--cpu-rt-period", "500000", "--cpu-rt-runtime", "1000"},
			check: func(c engine.Config) bool {
				return slices.Equal(c.CDIDirs, []string{"/a", "/b"}) && c.LayerSize == 10<<30 && c.CPURealtimePeriod == 500000 && c.CPURealtimeRuntime == 1000
			}},
		{name: "file", file: `{"cdi-spec-dirs": ["/c"], "storage-opts": ["overlay2.override_kernel_check=true", "overlay2.size=1m"], "cpu-rt-runtime": 5}`,
			check: func(c engine.Config) bool {
				return slices.Equal(c.CDIDirs, []string{"/c"}) && c.LayerSize == 1<<20 && c.CPURealtimeRuntime == 5
			}},
		{name: "off", args: []string{"--cdi-spec-dir", ""}, check: func(c engine.Config) bool { return len(c.CDIDirs) == 0 }},
		{name: "another driver's", args: []string{"--storage-opt", "dm.basesize=1G"}, err: "overlay2: unknown option dm.basesize"},
		{name: "no size", args: []string{"--storage-opt", "overlay2.size=much"}, err: "invalid size"},
		{name: "no value", args: []string{"--storage-opt", "overlay2.size"}, err: "unable to parse storage-opt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := load(t, c.file, c.args...)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var e engine.Config
			cfg.Fields.into(&e)
			if !c.check(e) {
				t.Errorf("%+v", e)
			}
		})
	}
}

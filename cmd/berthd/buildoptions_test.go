package main

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"berth/build"
	"berth/build/cache"
)

func TestBuilderObject(t *testing.T) {
	for text, want := range map[string]buildConfig{
		`{}`: {Entitlements: []string{"network.host", "device"}},
		`{"gc":{"enabled":false},"entitlements":{"network-host":false,"security-insecure":true}}`: {Entitlements: []string{"security.insecure", "device"}, NoGC: true},
		`{"history":{"maxEntries":0}}`: {Entitlements: []string{"network.host", "device"}, MaxRecords: build.NoRecords},
		`{"gc":{"enabled":true,"defaultKeepStorage":"20GB"}}`: {Entitlements: []string{"network.host", "device"}, Policy: []cache.PruneOptions{
			{ReservedSpace: 20 << 30, MaxUsedSpace: 20 << 30}, {All: true, ReservedSpace: 20 << 30, MaxUsedSpace: 20 << 30}}},
		`{"gc":{"policy":[{"maxUsedSpace":"512MB","filter":["type=source.local","unused-for=48h"]},{"all":true,"minFreeSpace":"1GB"}]},"history":{"maxEntries":5,"maxAge":"24h"}}`: {
			Entitlements: []string{"network.host", "device"}, MaxRecords: 5, MaxAge: 24 * time.Hour, Policy: []cache.PruneOptions{
				{Filters: []string{"type==source.local"}, KeepDuration: 48 * time.Hour, MaxUsedSpace: 512 << 20}, {All: true, MinFreeSpace: 1 << 30}}},
	} {
		var got buildConfig
		if err := (&builderValue{to: &got}).setJSON(json.RawMessage(text)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{`[]`, `{"gcc":{}}`, `{"gc":{"defaultKeepStorage":"much"}}`, `{"gc":{"policy":[{"filter":["x"]}]}}`, `{"gc":{"policy":[{"filter":["until=soon"]}]}}`, `{"history":{"maxAge":"old"}}`, `{"history":{"maxEntries":-1}}`} {
		if err := (&builderValue{to: &buildConfig{}}).setJSON(json.RawMessage(text)); err == nil {
			t.Errorf("%s: accepted", text)
		}
	}
	for text, ok := range map[string]bool{`{"buildkit":true}`: true, `{"cdi":true}`: true, `{"buildkit":false}`: false, `{"containerd-snapshotter":true}`: false, `{"x":1}`: false} {
		if err := (&features{}).setJSON(json.RawMessage(text)); (err == nil) != ok {
			t.Errorf("features %s: %v", text, err)
		}
	}
}

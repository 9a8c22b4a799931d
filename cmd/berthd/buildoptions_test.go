package main

import (
	"encoding/json"
	"os"
	"path/filepath"
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
		`{"maxParallelism":2}`:         {Entitlements: []string{"network.host", "device"}, Parallel: 2},
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
	for _, text := range []string{`[]`, `{"gcc":{}}`, `{"gc":{"defaultKeepStorage":"much"}}`, `{"gc":{"policy":[{"filter":["x"]}]}}`, `{"gc":{"policy":[{"filter":["until=soon"]}]}}`, `{"history":{"maxAge":"old"}}`, `{"history":{"maxEntries":-1}}`, `{"maxParallelism":-1}`} {
		if err := (&builderValue{to: &buildConfig{}}).setJSON(json.RawMessage(text)); err == nil {
			t.Errorf("%s: accepted", text)
		}
	}
	for text, ok := range map[string]bool{`{"buildkit":true}`: true, `{"cdi":true}`: true, `{"buildkit":false}`: false, `{"containerd-snapshotter":true}`: true, `{"containerd-snapshotter":false}`: true, `{"x":1}`: false} {
		if err := (&features{}).setJSON(json.RawMessage(text)); (err == nil) != ok {
			t.Errorf("features %s: %v", text, err)
		}
	}
}

// What the files of a directory say goes into provenance.
func TestProvenanceFacts(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a.json": `{"site":"one","n":[1,2]}`, "b.json": `{"site":"two"}`, "c.txt": `{"no":1}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func(dir string) (map[string]any, error) {
		var got buildConfig
		err := (&builderValue{to: &got}).setJSON(json.RawMessage(`{"provenanceEnvDir":"` + dir + `"}`))
		return got.Facts, err
	}
	got, err := read(dir)
	if want := map[string]any{"site": "two", "n": []any{1.0, 2.0}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := read(filepath.Join(dir, "missing")); err != nil || got != nil {
		t.Errorf("of no directory: %v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "d.json"), []byte(`[1]`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := read(dir); err == nil {
		t.Error("a file that is no object is accepted")
	}
}

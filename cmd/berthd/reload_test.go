package main

import (
	"slices"
	"testing"

	"berth/api/server"
)

func TestChanges(t *testing.T) {
	read := func(file string) config {
		t.Helper()
		c, err := load(t, file)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	old := read(`{"labels": ["a=b"], "dns": ["192.0.2.1"], "debug": false, "proxies": {"http-proxy": "http://me:secret@p/"}}`)
	next := read(`{"labels":["a=b"], "dns": ["192.0.2.2"], "log-level": "warn", "proxies": {"http-proxy": "http://me:other@p/"}}`)
	got := changes(old.File, next.File)
	want := []server.Setting{
		{Key: "debug", Old: "false", New: "", Live: true},
		{Key: "dns", Old: `["192.0.2.1"]`, New: `["192.0.2.2"]`},
		{Key: "log-level", Old: "", New: `"warn"`, Live: true},
		{Key: "proxies", Old: "(not shown)", New: "(not shown)"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if same := changes(old.File, read(`{"debug":false,"dns":["192.0.2.1"],"labels":["a=b"],"proxies":{"http-proxy":"http://me:secret@p/"}}`).File); len(same) != 0 {
		t.Errorf("another order and other spaces are no change: %+v", same)
	}
}

// TestLiveSettingsExist fails for a key that is said to be live and that no option has.
func TestLiveSettingsExist(t *testing.T) {
	keys := map[string]bool{}
	for _, o := range table(&config{}) {
		keys[o.key] = !o.refused()
	}
	for k := range live {
		if !keys[k] {
			t.Errorf("%s is no setting", k)
		}
	}
}

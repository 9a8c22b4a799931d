package main

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"berth/api/server"
	"berth/base/event"
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

// TestLiveSettingsAreDocumented compares them with the table in docs/observing.md.
func TestLiveSettingsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/observing.md")
	if err != nil {
		t.Fatal(err)
	}
	_, row, _ := strings.Cut(string(text), "| at once |")
	row, _, _ = strings.Cut(row, "\n")
	var told []string
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row, -1) {
		told = append(told, m[1])
	}
	if want := slices.Sorted(maps.Keys(live)); !slices.Equal(told, want) {
		t.Errorf("docs/observing.md says that these take effect at once:\n%q\nwhat does:\n%q", told, want)
	}
}

// TestReload reads a file that changed, with a setting that takes effect, one that waits and one that fails.
func TestReload(t *testing.T) {
	first, err := load(t, `{"log-bound": "1m", "labels": ["a=b"]}`)
	if err != nil {
		t.Fatal(err)
	}
	next, err := load(t, `{"log-bound": "2m", "labels": ["a=c"], "trash-window": "1h", "shutdown-timeout": 7}`)
	if err != nil {
		t.Fatal(err)
	}
	var said server.About
	r := &reloader{
		rooms: &rooms{events: event.New(nil)}, log: slog.New(slog.DiscardHandler), tell: func(a server.About) { said = a }, cfg: first,
		read: func() (config, error) { return next, nil },
	}
	r.rooms.removal.Store(&first.Removal)
	was := live["shutdown-timeout"]
	live["shutdown-timeout"] = func(*reloader, config) error { return errors.New("no") }
	defer func() { live["shutdown-timeout"] = was }()
	all, err := r.reload(true)
	if err != nil || len(all) != 4 {
		t.Fatalf("%+v %v", all, err)
	}
	if got := strings.Join(said.Labels, " "); got != "a=c berth.log-bound=1MiB berth.trash-window=1h0m0s" {
		t.Errorf("info shows what is not in force: %s", got)
	}
	if r.rooms.trashWindow().String() != "1h0m0s" {
		t.Error(r.rooms.trashWindow())
	}
	again, err := r.reload(false)
	var keys []string
	for _, s := range again {
		keys = append(keys, s.Key)
	}
	if err != nil || strings.Join(keys, " ") != "log-bound shutdown-timeout" {
		t.Errorf("what is not in force yet: %q %v", keys, err)
	}
}

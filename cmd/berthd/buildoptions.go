package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/go-units"

	"berth/build"
	"berth/build/cache"
)

// buildConfig is what "builder" in daemon.json says, in dockerd's words.
type buildConfig struct {
	Entitlements []string             // what builds may ask for; nil: the builder's default
	Policy       []cache.PruneOptions // what is removed from the cache by itself; nil: the builder's default
	NoGC         bool                 // nothing is
	MaxRecords   int                  // of builds that are over; 0: the default; build.NoRecords: none are made
	MaxAge       time.Duration        // likewise
	Parallel     int                  // steps that run at once, of all builds; 0: as many as want to
	Facts        map[string]any       // that provenance tells of the engine's surroundings
}

// buildOptions lists them.
func buildOptions(c *buildConfig) []option {
	return []option{{key: "builder", value: &builderValue{to: c}}, {key: "features", value: &features{}}}
}

// builderValue reads dockerd's object.
type builderValue struct {
	to  *buildConfig
	set bool
}

func (v *builderValue) String() string   { return "" }
func (v *builderValue) Type() string     { return "builder" }
func (v *builderValue) given() bool      { return v.set }
func (v *builderValue) Set(string) error { return fmt.Errorf("only in daemon.json") }

func (v *builderValue) setJSON(raw json.RawMessage) error {
	var c struct {
		GC struct {
			Enabled                                                                            *bool
			DefaultKeepStorage, DefaultReservedSpace, DefaultMaxUsedSpace, DefaultMinFreeSpace string
			Policy                                                                             []gcRule
		}
		Entitlements struct {
			NetworkHost      *bool `json:"network-host"`
			SecurityInsecure *bool `json:"security-insecure"`
			Device           *bool `json:"device"`
		}
		History struct {
			MaxAge     string
			MaxEntries *int
		}
		ProvenanceEnvDir string
		MaxParallelism   int
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return err
	}
	allowed := func(asked *bool, byDefault bool) bool {
		if asked != nil {
			return *asked
		}
		return byDefault
	}
	v.to.Entitlements = []string{}
	for _, e := range []struct {
		name string
		is   bool
	}{
		{"network.host", allowed(c.Entitlements.NetworkHost, true)},
		{"security.insecure", allowed(c.Entitlements.SecurityInsecure, false)},
		{"device", allowed(c.Entitlements.Device, true)},
	} {
		if e.is {
			v.to.Entitlements = append(v.to.Entitlements, e.name)
		}
	}
	v.to.NoGC = c.GC.Enabled != nil && !*c.GC.Enabled
	all := append([]gcRule{}, c.GC.Policy...)
	whole := gcRule{All: true, KeepStorage: c.GC.DefaultKeepStorage, ReservedSpace: c.GC.DefaultReservedSpace, MaxUsedSpace: c.GC.DefaultMaxUsedSpace, MinFreeSpace: c.GC.DefaultMinFreeSpace}
	if len(all) == 0 && (whole.KeepStorage+whole.ReservedSpace+whole.MaxUsedSpace+whole.MinFreeSpace) != "" {
		shared := whole
		shared.All = false
		all = []gcRule{shared, whole}
	}
	for i, r := range all {
		o, err := r.options()
		if err != nil {
			return fmt.Errorf("gc rule %d: %w", i+1, err)
		}
		v.to.Policy = append(v.to.Policy, o)
	}
	if n := c.History.MaxEntries; n != nil {
		if *n < 0 {
			return fmt.Errorf("history: maxEntries: %d is less than none", *n)
		}
		if v.to.MaxRecords = *n; *n == 0 {
			v.to.MaxRecords = build.NoRecords
		}
	}
	if v.to.Parallel = c.MaxParallelism; c.MaxParallelism < 0 {
		return fmt.Errorf("maxParallelism: %d is less than none", c.MaxParallelism)
	}
	if c.History.MaxAge != "" {
		age, err := time.ParseDuration(c.History.MaxAge)
		if err != nil {
			return fmt.Errorf("history: maxAge: %w", err)
		}
		v.to.MaxAge = age
	}
	var err error
	if v.to.Facts, err = readFacts(c.ProvenanceEnvDir); err != nil {
		return fmt.Errorf("provenanceEnvDir: %w", err)
	}
	v.set = true
	return nil
}

// readFacts reads the JSON objects in the files of a directory that are called *.json, as BuildKit's provenanceEnvDir: of two that say the same the later name counts.
// No directory, and one that is not there, is none.
func readFacts(dir string) (map[string]any, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	facts := map[string]any{}
	for _, e := range entries {
		if e.IsDir() || filepath.Ext(e.Name()) != ".json" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &facts); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	return facts, nil
}

// gcRule is one rule of dockerd's garbage collection. KeepStorage is the old name of ReservedSpace.
type gcRule struct {
	All                                                    bool
	Filter                                                 []string
	KeepStorage, ReservedSpace, MaxUsedSpace, MinFreeSpace string
}

func (r gcRule) options() (o cache.PruneOptions, err error) {
	o.All = r.All
	for _, s := range []struct {
		text string
		to   *int64
	}{{r.KeepStorage, &o.ReservedSpace}, {r.ReservedSpace, &o.ReservedSpace}, {r.MaxUsedSpace, &o.MaxUsedSpace}, {r.MinFreeSpace, &o.MinFreeSpace}} {
		if s.text == "" {
			continue
		}
		if *s.to, err = units.RAMInBytes(s.text); err != nil {
			return o, err
		}
	}
	if r.KeepStorage != "" && r.MaxUsedSpace == "" {
		o.MaxUsedSpace = o.ReservedSpace // as keepStorage was understood
	}
	var terms []string
	for _, f := range r.Filter {
		key, value, ok := strings.Cut(f, "=")
		switch {
		case ok && (key == "unused-for" || key == "until"):
			if o.KeepDuration, err = time.ParseDuration(strings.TrimPrefix(value, "=")); err != nil {
				return o, err
			}
		case ok && (key == "inuse" || key == "shared" || key == "private"):
			terms = append(terms, key)
		case ok:
			terms = append(terms, key+"=="+strings.TrimPrefix(value, "="))
		default:
			return o, fmt.Errorf("invalid filter %q: write NAME=VALUE", f)
		}
	}
	if len(terms) > 0 {
		o.Filters = []string{strings.Join(terms, ",")}
	}
	return o, nil
}

// features are switches of dockerd's. Those that say what is always so are accepted, and either word on where images are kept: there is one store, which can
// what both of dockerd's can.
type features struct{ set bool }

func (f *features) String() string   { return "" }
func (f *features) Type() string     { return "features" }
func (f *features) given() bool      { return f.set }
func (f *features) Set(string) error { return fmt.Errorf("only in daemon.json") }

func (f *features) setJSON(raw json.RawMessage) error {
	fields, err := objectFields(raw)
	if err != nil {
		return err
	}
	always := map[string]bool{"buildkit": true, "cdi": true}
	for _, one := range fields {
		var on bool
		if err := json.Unmarshal(one.value, &on); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
		if one.name == "containerd-snapshotter" {
			continue
		}
		if want, known := always[one.name]; !known || on != want {
			return fmt.Errorf("%s cannot be switched: builds always have BuildKit's language and protocol, devices CDI, and there are no other features", one.name)
		}
	}
	f.set = true
	return nil
}

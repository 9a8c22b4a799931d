package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"berth/engine/runtimes"
)

// runtimeOptions are the runtimes beside the built-in one.
type runtimeOptions struct {
	Added   []string // NAME=PATH
	File    []runtimes.Runtime
	Default string
}

func runtimeFlags(o *runtimeOptions) []option {
	return []option{
		{"add-runtime", "", "", "Another OCI runtime, NAME=PATH, for containers that ask for it by name; may be repeated", &list{to: &o.Added, check: checkRuntime}},
		{key: "runtimes", value: &runtimeFile{to: &o.File}},
		{"default-runtime", "", "default-runtime", "Runtime of containers that ask for none", newText(&o.Default, runtimes.Builtin)},
	}
}

// reloadRuntimes takes up runtimes that were added or taken away.
func reloadRuntimes(r *reloader, c config) error {
	set, err := c.Runtimes.set()
	if err == nil {
		r.rooms.runtimes.Become(set)
	}
	return err
}

func checkRuntime(s string) error {
	if name, path, ok := strings.Cut(s, "="); !ok || name == "" || path == "" {
		return fmt.Errorf("invalid runtime %q: write NAME=PATH", s)
	}
	return nil
}

// set checks all of it.
func (o *runtimeOptions) set() (*runtimes.Set, error) {
	all := slices.Clone(o.File)
	for _, s := range o.Added {
		name, path, _ := strings.Cut(s, "=")
		all = append(all, runtimes.Runtime{Name: strings.TrimSpace(name), Path: strings.TrimSpace(path)})
	}
	return runtimes.New(all, o.Default)
}

// runtimeFile reads dockerd's "runtimes".
type runtimeFile struct {
	to  *[]runtimes.Runtime
	was bool
}

func (f *runtimeFile) String() string   { return "" }
func (f *runtimeFile) Type() string     { return "map" }
func (f *runtimeFile) given() bool      { return f.was }
func (f *runtimeFile) Set(string) error { return fmt.Errorf("only in daemon.json") }

func (f *runtimeFile) setJSON(raw json.RawMessage) error {
	var all map[string]struct {
		Path        string         `json:"path"`
		RuntimeArgs []string       `json:"runtimeArgs"`
		RuntimeType string         `json:"runtimeType"`
		Options     map[string]any `json:"options"`
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		r := all[name]
		one := runtimes.Runtime{Name: name, Path: r.Path, Args: r.RuntimeArgs}
		switch r.RuntimeType {
		case "":
			if len(r.Options) > 0 {
				return fmt.Errorf("runtime %s: options are of a runtimeType", name)
			}
		case "io.containerd.runc.v2": // containerd's shim for runc: what it would execute is executed
			if r.Path != "" || len(r.RuntimeArgs) > 0 {
				return fmt.Errorf("runtime %s: path and runtimeArgs cannot be given with a runtimeType", name)
			}
			one.Path = "runc"
			for key, v := range r.Options {
				text, is := v.(string)
				switch {
				case key == "BinaryName" && is && text != "":
					one.Path = text
				case key == "SystemdCgroup" && v == false:
				default:
					return fmt.Errorf("runtime %s: the option %s is not in this build; BinaryName is", name, key)
				}
			}
		default:
			return fmt.Errorf("runtime %s: the runtimeType %s needs containerd, which Berth has not; give a path, or io.containerd.runc.v2", name, r.RuntimeType)
		}
		*f.to = append(*f.to, one)
	}
	f.was = true
	return nil
}

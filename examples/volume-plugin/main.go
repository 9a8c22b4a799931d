// Command volume-plugin is a Docker volume plugin in one file: each volume is a tmpfs, made when the first container mounts it and
// gone with the last. It listens where managed plugins must, in /run/docker/plugins, and mounts below /mnt, its propagated mount, where
// the host sees it.
//
//	CGO_ENABLED=0 go build -o plugin/rootfs/volume-plugin . && mkdir -p plugin/rootfs/run plugin/rootfs/mnt && cp config.json plugin
//	berth plugin create tmp plugin && berth plugin enable tmp
//	berth volume create -d tmp -o size=10m scratch && berth run --rm -v scratch:/s busybox df /s
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

const (
	socket = "/run/docker/plugins/tmp.sock"
	root   = "/mnt"
)

type volume struct {
	Name       string
	Mountpoint string            `json:",omitempty"`
	Options    map[string]string `json:"-"`
	users      map[string]bool
}

type request struct {
	Name, ID string
	Opts     map[string]string
}

type answer struct {
	Err        string         `json:",omitempty"`
	Mountpoint string         `json:",omitempty"`
	Volume     *volume        `json:",omitempty"`
	Volumes    []*volume      `json:",omitempty"`
	Implements []string       `json:",omitempty"`
	Details    map[string]any `json:"Capabilities,omitempty"`
}

type driver struct {
	mu      sync.Mutex
	volumes map[string]*volume
}

func main() {
	d := &driver{volumes: map[string]*volume{}}
	for path, verb := range map[string]func(request) answer{
		"/Plugin.Activate":           func(request) answer { return answer{Implements: []string{"VolumeDriver"}} },
		"/VolumeDriver.Capabilities": func(request) answer { return answer{Details: map[string]any{"Scope": "local"}} },
		"/VolumeDriver.Create":       d.create,
		"/VolumeDriver.Remove":       d.remove,
		"/VolumeDriver.Get":          d.get,
		"/VolumeDriver.Path":         d.get,
		"/VolumeDriver.List":         d.list,
		"/VolumeDriver.Mount":        d.mount,
		"/VolumeDriver.Unmount":      d.unmount,
	} {
		http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			var in request
			_ = json.NewDecoder(r.Body).Decode(&in) // some requests have no body
			d.mu.Lock()
			defer d.mu.Unlock()
			out := verb(in)
			if out.Err != "" {
				w.WriteHeader(http.StatusInternalServerError)
			}
			_ = json.NewEncoder(w).Encode(out) // the engine went away
		})
	}
	_ = os.Remove(socket) // left by an earlier run
	l, err := net.Listen("unix", socket)
	if err == nil {
		err = http.Serve(l, nil)
	}
	fmt.Fprintln(os.Stderr, "volume-plugin:", err)
	os.Exit(1)
}

func (d *driver) find(name string) (*volume, answer) {
	if v := d.volumes[name]; v != nil {
		return v, answer{}
	}
	return nil, answer{Err: "no volume " + name}
}

func (d *driver) create(r request) answer {
	if d.volumes[r.Name] == nil {
		d.volumes[r.Name] = &volume{Name: r.Name, Options: r.Opts, users: map[string]bool{}}
	}
	return answer{}
}

func (d *driver) get(r request) answer {
	v, no := d.find(r.Name)
	if v == nil {
		return no
	}
	return answer{Volume: v, Mountpoint: v.Mountpoint}
}

func (d *driver) list(request) (out answer) {
	for _, v := range d.volumes {
		out.Volumes = append(out.Volumes, v)
	}
	return out
}

func (d *driver) remove(r request) answer {
	v, no := d.find(r.Name)
	if v == nil {
		return no
	}
	if len(v.users) > 0 {
		return answer{Err: "volume " + r.Name + " is mounted"}
	}
	delete(d.volumes, r.Name)
	return answer{}
}

func (d *driver) mount(r request) answer {
	v, no := d.find(r.Name)
	if v == nil {
		return no
	}
	at := filepath.Join(root, filepath.Base(r.Name))
	if len(v.users) == 0 {
		if err := os.MkdirAll(at, 0o755); err != nil {
			return answer{Err: err.Error()}
		}
		options := ""
		if size := v.Options["size"]; size != "" {
			options = "size=" + size
		}
		if err := syscall.Mount("volume-plugin", at, "tmpfs", 0, options); err != nil {
			return answer{Err: "mount: " + err.Error()}
		}
		v.Mountpoint = at
	}
	v.users[r.ID] = true
	return answer{Mountpoint: at}
}

func (d *driver) unmount(r request) answer {
	v, no := d.find(r.Name)
	if v == nil {
		return no
	}
	if delete(v.users, r.ID); len(v.users) > 0 || v.Mountpoint == "" {
		return answer{}
	}
	if err := syscall.Unmount(v.Mountpoint, 0); err != nil {
		v.users[r.ID] = true
		return answer{Err: "unmount: " + err.Error()}
	}
	v.Mountpoint = ""
	return answer{}
}

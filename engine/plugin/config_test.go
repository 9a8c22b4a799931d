package plugin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"berth/engine/container"
)

const full = `{
	"description": "d", "entrypoint": ["/p", "-v"], "workdir": "/w", "user": {"uid": 7, "gid": 8},
	"interface": {"types": ["docker.volumedriver/1.0", "docker.authz/1.0"], "socket": "p.sock"},
	"network": {"type": "host"}, "PropagatedMount": "/mnt/v", "ipchost": true, "PidHost": true,
	"mounts": [{"name": "state", "source": "/var/s", "destination": "/s", "type": "bind", "options": ["rbind", "ro"], "settable": ["source"]}],
	"env": [{"name": "A", "value": "1", "settable": ["value"]}, {"name": "B", "settable": null}, {"name": "C", "value": "", "settable": []}],
	"args": {"name": "args", "value": ["x"], "settable": ["value"]},
	"linux": {"capabilities": ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"], "allowAllDevices": true, "devices": [{"name": "card", "path": "/dev/fuse", "settable": ["path"]}]},
	"rootfs": {"type": "layers", "diff_ids": ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}
}`

func parsed(t *testing.T, text string) *Config {
	t.Helper()
	c, err := ParseConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPrivileges(t *testing.T) {
	c := parsed(t, full)
	got, _ := json.Marshal(c.Privileges())
	want := `[{"Name":"network","Description":"permissions to access a network","Value":["host"]},` +
		`{"Name":"host ipc namespace","Description":"allow access to host ipc namespace","Value":["true"]},` +
		`{"Name":"host pid namespace","Description":"allow access to host pid namespace","Value":["true"]},` +
		`{"Name":"mount","Description":"host path to mount","Value":["/var/s"]},` +
		`{"Name":"device","Description":"host device to access","Value":["/dev/fuse"]},` +
		`{"Name":"allow-all-devices","Description":"allow 'rwm' access to all devices","Value":["true"]},` +
		`{"Name":"capabilities","Description":"list of additional capabilities required","Value":["CAP_SYS_ADMIN","CAP_NET_ADMIN"]}]`
	if string(got) != want {
		t.Errorf("privileges\n%s\nwant\n%s", got, want)
	}
	if n := len(parsed(t, `{"entrypoint": ["/p"], "network": {"type": "none"}}`).Privileges()); n != 0 {
		t.Errorf("a plugin that wants nothing asks for %d privileges", n)
	}
}

// What is granted must be what is asked for: neither less, nor more, nor something else. The order does not matter.
func TestGranted(t *testing.T) {
	c := parsed(t, full)
	all := c.Privileges()
	turned := append([]Privilege{all[len(all)-1]}, all[:len(all)-1]...)
	turned[0].Value = []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"}
	for _, tt := range []struct {
		name  string
		given []Privilege
		ok    bool
	}{
		{"all", all, true},
		{"in another order", turned, true},
		{"less", all[1:], false},
		{"none", nil, false},
		{"more", append(all[:len(all):len(all)], Privilege{Name: "device", Value: []string{"/dev/kmsg"}}), false},
		{"another mount", append(all[:len(all)-1:len(all)-1], Privilege{Name: "capabilities", Value: []string{"CAP_SYS_ADMIN"}}), false},
	} {
		if err := c.granted(tt.given); (err == nil) != tt.ok || err != nil && err.Error() != "incorrect privileges" {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestSet(t *testing.T) {
	c := parsed(t, full)
	for _, tt := range []struct {
		change string
		want   func(Settings) any
		is     any
		err    string
	}{
		{change: "A=2", want: func(s Settings) any { return s.Env }, is: []string{"C=", "A=2"}},
		{change: "A.value=2=3", want: func(s Settings) any { return s.Env }, is: []string{"C=", "A=2=3"}},
		{change: "state.source=/elsewhere", want: func(s Settings) any { return s.Mounts[0].Source }, is: "/elsewhere"},
		{change: "state=/elsewhere", want: func(s Settings) any { return s.Mounts[0].Source }, is: "/elsewhere"},
		{change: "card.path=/dev/null", want: func(s Settings) any { return s.Devices[0].Path }, is: "/dev/null"},
		{change: "args=a b", want: func(s Settings) any { return s.Args }, is: []string{"a", "b"}},
		{change: "B=1", err: `"B" is not settable`},
		{change: "C=1", err: `"C" is not settable`},
		{change: "state.options=rw", err: `"state.options" is not settable`},
		{change: "state.destination=/etc", err: `"state.destination" is not settable`},
		{change: "nobody=1", err: "not found in the plugin configuration"},
		{change: "A", err: "write KEY=VALUE"},
	} {
		before := c.defaults()
		s, err := before.Set(c, tt.change)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v, want %q", tt.change, err, tt.err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(tt.want(s), tt.is) {
			t.Errorf("%s: %v, %v; want %v", tt.change, tt.want(s), err, tt.is)
		}
		if !reflect.DeepEqual(before, c.defaults()) {
			t.Errorf("%s changed the settings it was given", tt.change)
		}
	}
}

func TestRefusedConfigurations(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "entrypoint is missing",
		`[]`: "reading the plugin's configuration",
		`{"entrypoint": ["/p"], "interface": {"types": ["docker.authz/1.0"], "socket": "../x"}}`: "is no file name",
		`{"entrypoint": ["/p"], "network": {"type": "container:x"}}`:                             "is not host, bridge or none",
		`{"entrypoint": ["/p"], "propagatedMount": "/"}`:                                         "propagatedMount",
		`{"entrypoint": ["/p"], "workdir": "here"}`:                                              "workdir",
		`{"entrypoint": ["/p"], "mounts": [{"name": "m", "destination": "etc"}]}`:                "destination of mount",
		`{"entrypoint": ["/p"], "env": [{"name": "A=B"}]}`:                                       "name of a variable",
	} {
		if _, err := ParseConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestSpec(t *testing.T) {
	m := &Manager{cfg: ManagerConfig{Root: "/data", Run: "/run/p"}}
	c := parsed(t, full)
	s := m.spec(&Plugin{ID: "abc", Name: "n:latest", Config: c, Settings: c.defaults()})
	want := []container.Mount{
		{Type: "bind", Source: "/run/p/abc", Target: "/run/docker/plugins", FromBinds: true, Propagation: "rprivate"},
		{Type: "bind", Source: "/data/p/abc/propagated", Target: "/mnt/v", Propagation: "rshared"},
		{Type: "bind", Source: "/var/s", Target: "/s", ReadOnly: true},
	}
	if !reflect.DeepEqual(s.Mounts, want) {
		t.Errorf("mounts %+v", s.Mounts)
	}
	if s.Plugin != "abc" || s.Process.User != "7:8" || s.Network.Mode != "host" || s.Namespaces.PID != "host" || s.Namespaces.IPC != "host" ||
		s.Resources.DeviceCgroupRules[0] != "a *:* rwm" || s.Resources.Devices[0].Source != "/dev/fuse" || s.Security.Privileged || s.Restart.Name != "always" {
		t.Errorf("%+v", s)
	}
	if got := s.Process.Entrypoint; !reflect.DeepEqual(got, []string{"/p", "-v"}) || !reflect.DeepEqual(s.Process.Cmd, []string{"x"}) {
		t.Errorf("runs %v %v", got, s.Process.Cmd)
	}
}

func TestHostPath(t *testing.T) {
	p := &Plugin{ID: "abc", Name: "n:latest", Config: parsed(t, full)}
	m := &Manager{cfg: ManagerConfig{Root: "/data"}, plugins: map[string]*Plugin{"abc": p}}
	for path, want := range map[string]string{
		"/mnt/v/one":           "/data/p/abc/propagated/one",
		"/mnt/v":               "/data/p/abc/propagated",
		"/mnt/v/../../../etc":  "/data/p/abc/propagated/etc",
		"/mnt/vv/one":          "/data/p/abc/c/fs/mnt/vv/one",
		"/../../../etc/passwd": "/data/p/abc/c/fs/etc/passwd",
		"":                     "",
	} {
		if got := m.HostPath("n", path); got != want {
			t.Errorf("%q is %q on the host, want %q", path, got, want)
		}
	}
	if got := m.HostPath("other", "/x"); got != "/x" {
		t.Errorf("another plugin's path became %q", got)
	}
}

// A plugin's links lead within what is its own.
func TestHostPathLinks(t *testing.T) {
	p := &Plugin{ID: "abc", Name: "n:latest", Config: parsed(t, full)}
	m := &Manager{cfg: ManagerConfig{Root: t.TempDir()}, plugins: map[string]*Plugin{"abc": p}}
	base := m.propagated(p)
	if err := os.MkdirAll(filepath.Join(base, "real", "v"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"host": "/", "up": "../../../../../../../..", "in": "/real", "gone": "/etc/nowhere", "etc": "/etc"} {
		if err := os.Symlink(target, filepath.Join(base, name)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		"/mnt/v/in/v":     base + "/real/v",
		"/mnt/v/host":     base,
		"/mnt/v/up/real":  base + "/real",
		"/mnt/v/etc":      base + "/.no-such-place",
		"/mnt/v/gone":     base + "/.no-such-place",
		"/mnt/v/real/v":   base + "/real/v",
		"/mnt/v/host/new": base + "/new",
	} {
		if got := m.HostPath("n", path); got != want {
			t.Errorf("%q is %q on the host, want %q", path, got, want)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(`{"entrypoint":["/p"]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := ParseConfig(raw)
		if err != nil {
			return
		}
		if err := c.granted(c.Privileges()); err != nil {
			t.Error("what is asked for is not what is granted")
		}
		m := &Manager{cfg: ManagerConfig{Root: "/data", Run: "/run/p"}}
		m.spec(&Plugin{ID: "abc", Config: c, Settings: c.defaults()})
	})
}

package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"

	"berth/cli/runline"
)

func TestToolbox(t *testing.T) {
	base := func() *container.InspectResponse {
		return &container.InspectResponse{ID: "abc", Name: "/web", State: &container.State{Pid: 77}, HostConfig: &container.HostConfig{NetworkMode: "front", IpcMode: "private"}}
	}
	for _, c := range []struct {
		name      string
		change    func(*container.HostConfig)
		has, lack []string
	}{
		{"own namespaces", func(*container.HostConfig) {}, []string{"--pid=container:abc", "--network=container:abc", "/proc/1/root"}, []string{"--ipc=container:abc", "--privileged"}},
		{"the host's", func(h *container.HostConfig) {
			h.PidMode, h.NetworkMode, h.IpcMode, h.UsernsMode = "host", "host", "host", "host"
		},
			[]string{"--pid=host", "--network=host", "--ipc=host", "--userns=host", "/proc/77/root"}, []string{"/proc/1/root"}},
		{"shared memory", func(h *container.HostConfig) { h.IpcMode = "shareable" }, []string{"--ipc=container:abc"}, nil},
		{"a user namespace", func(h *container.HostConfig) { h.UsernsMode = "auto" }, []string{"--userns=container:abc"}, nil},
		{"what it may do", func(h *container.HostConfig) { h.Privileged, h.CapAdd = true, []string{"NET_ADMIN"} }, []string{"--privileged", "--cap-add=NET_ADMIN"}, nil},
	} {
		r := base()
		c.change(r.HostConfig)
		args := toolbox(r, "tools", "0", false, nil)
		for _, a := range c.has {
			if !slices.Contains(args, a) {
				t.Errorf("%s: no %s in %q", c.name, a, args)
			}
		}
		for _, a := range c.lack {
			if slices.Contains(args, a) {
				t.Errorf("%s: %s in %q", c.name, a, args)
			}
		}
		if i := slices.Index(args, "tools"); i < 0 || args[len(args)-1] != "sh" || slices.Contains(args, "--tty") {
			t.Errorf("%s: %q", c.name, args)
		}
	}
	if args := toolbox(base(), "tools", "0", true, []string{"ps", "-ef"}); !slices.Contains(args, "--tty") || strings.Join(args[len(args)-2:], " ") != "ps -ef" {
		t.Errorf("%q", args)
	}
}

func TestNamesVolume(t *testing.T) {
	for text, want := range map[string]bool{
		"volume=v:/x": true, "volume=vv:/x": false, "volume=/v:/x": false, "mount=type=volume,source=v,target=/x": true, "mount=type=volume,src=v,dst=/x": true, "mount=type=volume,source=w,target=/v": false, "env=v:": false,
	} {
		flag, value, _ := strings.Cut(text, "=")
		if names(runline.Option{Flag: flag, Value: value}, "v") != want {
			t.Errorf("%s: want %v", text, want)
		}
	}
}

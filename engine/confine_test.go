package engine

import (
	"slices"
	"testing"

	"berth/engine/container"
)

func TestProfileOf(t *testing.T) {
	for _, c := range []struct {
		asked      string
		privileged bool
		want       string
	}{
		{"", false, "docker-default"},
		{"", true, "unconfined"},
		{"mine", false, "mine"},
		{"mine", true, "mine"},
		{"unconfined", false, "unconfined"},
	} {
		if got := profileOf(c.asked, c.privileged); got != c.want {
			t.Errorf("asked %q, privileged %t: %s, want %s", c.asked, c.privileged, got, c.want)
		}
	}
}

func TestLabelOptions(t *testing.T) {
	labels := map[string]string{"confined": "system_u:system_r:container_t:s0:c1,c2", "plain": ""}
	for _, c := range []struct {
		name string
		spec container.Spec
		own  []string
		want []string
	}{
		{"its own pair", container.Spec{}, nil, nil},
		{"its own options win", container.Spec{Security: container.Security{Privileged: true}}, []string{"type:svirt_t"}, []string{"type:svirt_t"}},
		{"privileged", container.Spec{Security: container.Security{Privileged: true}}, nil, []string{"disable"}},
		{"the host's processes", container.Spec{Namespaces: container.Namespaces{PID: "host"}}, nil, []string{"disable"}},
		{"the host's IPC", container.Spec{Namespaces: container.Namespaces{IPC: "host"}}, nil, []string{"disable"}},
		{"another's processes", container.Spec{Namespaces: container.Namespaces{PID: "container:confined"}}, nil, []string{"user:system_u", "role:system_r", "type:container_t", "level:s0:c1,c2"}},
		{"another's, who is not confined", container.Spec{Namespaces: container.Namespaces{IPC: "container:plain"}}, nil, []string{"disable"}},
	} {
		got := labelOptions(&c.spec, c.own, func(cid string) string { return labels[cid] })
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestConfineWithoutModules is about a kernel with neither: what was asked for is told, and nonsense refused all the same.
func TestConfineWithoutModules(t *testing.T) {
	e := &Engine{}
	for _, c := range []struct {
		opt      string
		warnings int
		fails    bool
	}{
		{"apparmor=mine", 1, false},
		{"apparmor=unconfined", 0, false},
		{"label=type:svirt_t", 0, false},
		{"label=disable", 0, false},
		{"label=nonsense", 0, true},
	} {
		r := &container.Record{Spec: &container.Spec{Security: container.Security{SecurityOpt: []string{c.opt}}}}
		warnings, err := e.confine(r)
		if len(warnings) != c.warnings || (err != nil) != c.fails {
			t.Errorf("%s: %q, %v", c.opt, warnings, err)
		}
		if r.AppArmorProfile+r.ProcessLabel+r.MountLabel != "" {
			t.Errorf("%s: the record names %q %q %q", c.opt, r.AppArmorProfile, r.ProcessLabel, r.MountLabel)
		}
	}
}

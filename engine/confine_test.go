package engine

import (
	"log/slog"
	"slices"
	"testing"

	"berth/base/fault"
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
		{"mine", true, "unconfined"},
		{"unconfined", false, "unconfined"},
	} {
		if got := profileOf(c.asked, c.privileged); got != c.want {
			t.Errorf("asked %q, privileged %t: %s, want %s", c.asked, c.privileged, got, c.want)
		}
	}
}

func TestLabelOptions(t *testing.T) {
	labels := map[string]string{"confined": "system_u:system_r:container_t:s0:c1,c2", "other": "system_u:system_r:container_t:s0:c3,c4", "plain": ""}
	as := []string{"user:system_u", "role:system_r", "type:container_t", "level:s0:c1,c2"}
	for _, c := range []struct {
		name string
		spec container.Spec
		want []string
	}{
		{"its own pair", container.Spec{}, nil},
		{"privileged", container.Spec{Security: container.Security{Privileged: true}}, []string{"disable"}},
		{"the host's processes", container.Spec{Namespaces: container.Namespaces{PID: "host"}}, []string{"disable"}},
		{"the host's IPC", container.Spec{Namespaces: container.Namespaces{IPC: "host"}}, []string{"disable"}},
		{"another's processes", container.Spec{Namespaces: container.Namespaces{PID: "container:confined"}}, as},
		{"another's IPC", container.Spec{Namespaces: container.Namespaces{IPC: "container:confined"}}, as},
		{"both of one", container.Spec{Namespaces: container.Namespaces{IPC: "container:confined", PID: "container:confined"}}, as},
		{"another's, who is not confined", container.Spec{Namespaces: container.Namespaces{IPC: "container:plain"}}, nil},
	} {
		got, err := labelOptions(&c.spec, func(cid string) string { return labels[cid] })
		if !slices.Equal(got, c.want) || err != nil {
			t.Errorf("%s: %q %v, want %q", c.name, got, err, c.want)
		}
	}
	two := container.Spec{Namespaces: container.Namespaces{IPC: "container:confined", PID: "container:other"}}
	if _, err := labelOptions(&two, func(cid string) string { return labels[cid] }); err == nil || err.Error() != "--ipc and --pid containers SELinux labels aren't the same" {
		t.Error("of two containers:", err)
	}
}

// What was decided about labels is part of the container from then on, and inspect shows it.
func TestDecidedLabelsAreKept(t *testing.T) {
	asked := []string{"no-new-privileges"}
	r := &container.Record{Spec: &container.Spec{Security: container.Security{Privileged: true, SecurityOpt: asked}}}
	if _, err := (&Engine{}).confine(r); err != nil {
		t.Fatal(err)
	}
	if want := []string{"no-new-privileges", "label=disable"}; !slices.Equal(r.Spec.Security.SecurityOpt, want) || len(asked) != 1 {
		t.Errorf("%q, want %q", r.Spec.Security.SecurityOpt, want)
	}
	r = &container.Record{Spec: &container.Spec{Security: container.Security{Privileged: true, SecurityOpt: []string{"label=type:spc_t"}}}}
	if _, err := (&Engine{}).confine(r); err != nil || len(r.Spec.Security.SecurityOpt) != 1 {
		t.Errorf("its own option: %q %v", r.Spec.Security.SecurityOpt, err)
	}
}

func TestWantAppArmor(t *testing.T) {
	e := &Engine{log: slog.New(slog.DiscardHandler)}
	for _, c := range []struct {
		err  error
		want bool
	}{{nil, true}, {fault.New(fault.Unavailable, "no apparmor_parser"), false}, {fault.New(fault.Internal, "syntax error"), true}} {
		if got := e.wantAppArmor(c.err); got != c.want {
			t.Errorf("%v: %t", c.err, got)
		}
	}
}

// A container that was made while the kernel had no AppArmor is confined once it has.
func TestReconfine(t *testing.T) {
	e := &Engine{confinement: confinement{apparmor: true}}
	for opt, want := range map[string]string{"no-new-privileges": "docker-default", "apparmor=mine": "mine", "apparmor=unconfined": "unconfined"} {
		r := &container.Record{Spec: &container.Spec{Security: container.Security{SecurityOpt: []string{opt}}}}
		if e.reconfine(r); r.AppArmorProfile != want {
			t.Errorf("%s: %s, want %s", opt, r.AppArmorProfile, want)
		}
	}
}

// TestConfineWithoutModules is about a kernel with neither: what was asked for and is not done is told.
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
		{"label=nonsense", 1, false},
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

package server

import (
	"slices"
	"testing"

	"berth/engine"
)

// What info says confines containers is what the engine does, not what the kernel could do.
func TestSecurityOptions(t *testing.T) {
	for _, c := range []struct {
		about About
		facts engine.Facts
		want  []string
	}{
		{About{}, engine.Facts{CgroupVersion: "1"}, []string{"name=seccomp,profile=builtin"}},
		{About{Seccomp: "unconfined", NoNewPrivs: true}, engine.Facts{AppArmor: true, SELinux: true, Userns: true, CgroupVersion: "2"},
			[]string{"name=apparmor", "name=seccomp,profile=unconfined", "name=selinux", "name=userns", "name=cgroupns", "name=no-new-privileges"}},
	} {
		s := New(Config{About: c.about})
		if got := s.security(&c.facts); !slices.Equal(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

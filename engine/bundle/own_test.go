package bundle

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/engine/container"
)

// TestWithoutRoot: what an engine of an ordinary user gives its containers differs in what it has.
func TestWithoutRoot(t *testing.T) {
	r := &Rules{cfg: Config{Own: &Own{LastUser: 10, LastGroup: 20, OOMScoreAdj: 100, Queues: true}}}
	rec := &container.Record{Spec: &container.Spec{}}
	if got := r.sysctls(rec)[pingGroups]; got != "0 20" {
		t.Errorf("ping groups: %q", got)
	}
	rec.Spec.Namespaces.PID, rec.Spec.Namespaces.IPC = "host", "host"
	for _, want := range []string{"/proc", "/dev/mqueue"} {
		if !slices.ContainsFunc(r.systemMounts(Input{Record: rec}, options{}), func(m specs.Mount) bool {
			return m.Destination == want && m.Source == want && m.Type == "bind"
		}) {
			t.Errorf("%s of the host is not passed on", want)
		}
	}
	for _, c := range []struct {
		user specs.User
		want string
	}{
		{specs.User{UID: 10, GID: 20}, ""},
		{specs.User{UID: 11}, "the user 11"},
		{specs.User{GID: 21}, "the group 21"},
		{specs.User{AdditionalGids: []uint32{1, 22}}, "the group 22"},
	} {
		err := r.cfg.Own.check(c.user)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.user, err, c.want)
		}
	}
	var root *Own
	if err := root.check(specs.User{UID: 4000000000}); err != nil {
		t.Errorf("root: %v", err)
	}
}

func TestOOMScoreWithoutRoot(t *testing.T) {
	r := &Rules{cfg: Config{Own: &Own{OOMScoreAdj: 100}}}
	for asked, want := range map[int]int{0: 100, 50: -1, 100: 100, 300: 300, -5: -1} {
		rec := &container.Record{Path: "x", Spec: &container.Spec{}}
		rec.Spec.Resources.OOMScoreAdj = asked
		out := &specs.Spec{}
		err := r.process(out, Input{Record: rec}, options{})
		switch {
		case want < 0 && err == nil:
			t.Errorf("%d was not refused", asked)
		case want >= 0 && err != nil:
			t.Errorf("%d: %v", asked, err)
		case want >= 0 && *out.Process.OOMScoreAdj != want:
			t.Errorf("%d: %d, want %d", asked, *out.Process.OOMScoreAdj, want)
		}
	}
}

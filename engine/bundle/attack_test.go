package bundle

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/base/userdb"
	"berth/engine/container"
)

type noNodes struct{}

func (noNodes) Expand(string, string) ([]specs.LinuxDevice, error) { return nil, nil }
func (noNodes) All() ([]specs.LinuxDevice, error)                  { return nil, nil }

func build(t *testing.T, cfg Config, user userdb.User, change func(*container.Record)) (*specs.Spec, error) {
	t.Helper()
	r, err := NewRules(cfg)
	if err != nil {
		t.Fatal(err)
	}
	rec := &container.Record{Path: "true", Spec: &container.Spec{}}
	change(rec)
	b, err := r.Build(Input{Record: rec, User: user, Devices: noNodes{}})
	return b.Spec, err
}

// A tmpfs with these words would be a bind of the host's files, or change a mount that is there.
func TestATmpfsStaysOne(t *testing.T) {
	for _, o := range []string{"bind", "rbind", "remount", "size=1m,rbind", "rw, bind", "idmap"} {
		_, err := build(t, Config{}, userdb.User{}, func(r *container.Record) {
			r.Spec.Mounts = []container.Mount{{Type: "tmpfs", Target: "/x", TmpfsOptions: o}}
		})
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", o, err)
		}
	}
	if _, err := build(t, Config{}, userdb.User{}, func(r *container.Record) {
		r.Spec.Mounts = []container.Mount{{Type: "tmpfs", Target: "/x", TmpfsOptions: "exec,size=1m,mode=1777,uid=5"}}
	}); err != nil {
		t.Error(err)
	}
}

// CVE-2022-36109: a process that gives up its primary group must not get around what files deny to that group.
func TestThePrimaryGroupIsSupplementaryToo(t *testing.T) {
	for _, c := range []struct{ groups, want []uint32 }{{nil, []uint32{7}}, {[]uint32{9, 7}, []uint32{7, 9}}} {
		u := ProcessUser(userdb.User{UID: 5, GID: 7, Groups: c.groups})
		if !slices.Equal(u.AdditionalGids, c.want) {
			t.Errorf("%v: %v, want %v", c.groups, u.AdditionalGids, c.want)
		}
	}
}

// CVE-2022-24769, CVE-2022-29162: inheritable capabilities survive the execve of a program with file capabilities.
func TestNoCapabilityIsInheritable(t *testing.T) {
	for _, privileged := range []bool{false, true} {
		s, err := build(t, Config{}, userdb.User{}, func(r *container.Record) { r.Spec.Security.Privileged = privileged })
		if err != nil {
			t.Fatal(err)
		}
		p := *s.Process
		for range 2 {
			if c := p.Capabilities; len(c.Inheritable)+len(c.Ambient) != 0 {
				t.Errorf("privileged %t: %v %v", privileged, c.Inheritable, c.Ambient)
			}
			ExecCapabilities(&p, true)
		}
	}
}

// What a container is not given must be denied: the rules begin with a denial of every device.
func TestDevicesAreDeniedFirst(t *testing.T) {
	for range 2 { // rules of one container do not go into the next one's
		s, err := build(t, Config{}, userdb.User{}, func(r *container.Record) { r.Spec.Resources.DeviceCgroupRules = []string{"b 8:* rwm"} })
		if err != nil {
			t.Fatal(err)
		}
		rules := s.Linux.Resources.Devices
		if len(rules) == 0 || rules[0].Allow || rules[0].Type != "" && rules[0].Type != "a" || rules[0].Access != "rwm" {
			t.Fatalf("the first rule is %+v", rules[0])
		}
		disks := 0
		for _, r := range rules {
			if r.Allow && r.Type == "b" && r.Access != "m" {
				disks++
			}
		}
		if disks != 1 {
			t.Errorf("%d rules allow block devices; one was asked for", disks)
		}
	}
}

// Labels and profiles of a record are applied where the kernel can, and privilege takes them away.
func TestConfinementInTheSpecification(t *testing.T) {
	rec := func(r *container.Record) {
		r.AppArmorProfile, r.ProcessLabel, r.MountLabel = "mine", "u:r:t:s0:c1,c2", "u:o:f:s0:c1,c2"
	}
	for _, c := range []struct {
		name                      string
		cfg                       Config
		privileged                bool
		apparmor, process, mounts string
	}{
		{"both", Config{AppArmor: true, SELinux: true}, false, "mine", "u:r:t:s0:c1,c2", "u:o:f:s0:c1,c2"},
		{"neither", Config{}, false, "", "", ""},
		{"privileged", Config{AppArmor: true, SELinux: true}, true, "mine", "", "u:o:f:s0:c1,c2"},
	} {
		s, err := build(t, c.cfg, userdb.User{}, func(r *container.Record) { rec(r); r.Spec.Security.Privileged = c.privileged })
		if err != nil {
			t.Fatal(err)
		}
		if p := s.Process; p.ApparmorProfile != c.apparmor || p.SelinuxLabel != c.process || s.Linux.MountLabel != c.mounts {
			t.Errorf("%s: %q %q %q", c.name, p.ApparmorProfile, p.SelinuxLabel, s.Linux.MountLabel)
		}
	}
}

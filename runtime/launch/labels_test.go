package launch

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/probe"
)

// A kernel without the module refuses what is to be confined by it, in runc's words, for first processes and for later ones;
// mount labels, which only decorate, are left out.
func TestConfinementWithoutTheModules(t *testing.T) {
	facts := probe.AssumeVersion(6, 12).Without(probe.AppArmor, probe.SELinux)
	for _, c := range []struct {
		change func(*specs.Process)
		want   string
	}{
		{func(p *specs.Process) { p.ApparmorProfile = "mine" }, "unable to apply apparmor profile: apparmor: config provided but apparmor not supported"},
		{func(p *specs.Process) { p.SelinuxLabel = "u:r:t:s0" }, "selinux label is specified in config, but selinux is disabled or not supported"},
		{func(p *specs.Process) { p.ApparmorProfile = "unconfined" }, ""},
		{func(p *specs.Process) {}, ""},
	} {
		s := plainSpec("/root", "true")
		c.change(s.Process)
		_, err := Compile(s, Options{Facts: facts})
		_, xerr := CompileExec(s.Process, s, Target{PID: 42}, Options{Facts: facts})
		for _, err := range []error{err, xerr} {
			if text := errText(err); text != c.want || err != nil && !fault.Is(err, fault.Invalid) {
				t.Errorf("%q, want %q", text, c.want)
			}
		}
	}
	s := plainSpec("/root", "true")
	s.Linux.MountLabel = "u:o:f:s0:c1,c2"
	p, err := Compile(s, Options{Facts: facts})
	if err != nil || strings.Contains(p.String(), "u:o:f") {
		t.Errorf("a mount label without SELinux: %v", err)
	}
}

// An exec'd process is confined as the first one is.
func TestExecIsConfined(t *testing.T) {
	s := plainSpec("/root", "true")
	s.Process.ApparmorProfile, s.Process.SelinuxLabel = "mine", "u:r:t:s0:c1,c2"
	p, err := CompileExec(s.Process, s, Target{PID: 42}, Options{Facts: probe.AssumeVersion(6, 12), NewKeyring: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`openat($host-proc, "self/attr/apparmor/exec", O_WRONLY|O_CLOEXEC, 00) = $own` + "\n" + `write($own, "exec mine", 9)`,
		`openat($host-proc, "self/attr/exec", O_WRONLY|O_CLOEXEC, 00) = $own` + "\n" + `write($own, "u:r:t:s0:c1,c2", 14)`,
	} {
		if !strings.Contains(p.String(), want) {
			t.Errorf("no %s in\n%s", want, p)
		}
	}
	text := p.String()
	if strings.Index(text, "self/attr/keycreate") > strings.Index(text, "keyctl(") {
		t.Error("the keyring is made before its label is set")
	}
	if strings.Index(text, "self/attr/exec") > strings.Index(text, "setns(") {
		t.Error("the label is written through the container's /proc")
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestAProfileThatIsNotLoaded(t *testing.T) {
	err := &Error{Step: applyProfile + "mine", Call: "write($own, \"exec mine\", 9)", Errno: unix.ENOENT}
	if want := "unable to apply apparmor profile: apparmor failed to apply profile mine: no such file or directory"; err.Error() != want {
		t.Errorf("%s, want %s", err, want)
	}
}

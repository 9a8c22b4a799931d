package probe

import (
	"os"
	"strings"
	"testing"
)

func TestParseVersion(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Version
		ok   bool
	}{
		{"6.18.44-fc-v669", Version{6, 18}, true},
		{"5.10", Version{5, 10}, true},
		{"6.1.0-32-amd64", Version{6, 1}, true},
		{"4.18.0-553.el8", Version{4, 18}, true},
		{"5.15-rc1", Version{5, 15}, true},
		{"", Version{}, false},
		{"6", Version{}, false},
		{"6.", Version{}, false},
		{".1", Version{}, false},
		{"99999999999999999999.1", Version{}, false},
	} {
		got, ok := ParseVersion(c.in)
		if got != c.want || ok != c.ok {
			t.Errorf("%q: %v %v, want %v %v", c.in, got, ok, c.want, c.ok)
		}
	}
}

func TestVersionOrder(t *testing.T) {
	if !(Version{5, 9}).Less(Version{5, 10}) || !(Version{5, 19}).Less(Version{6, 0}) || (Version{6, 1}).Less(Version{6, 1}) {
		t.Error("versions are not ordered by number")
	}
}

func TestTableIsComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Facilities() {
		row := table[f]
		if row.name == "" || row.use == "" || seen[row.name] {
			t.Errorf("facility %d: name %q, use %q (empty or twice)", f, row.name, row.use)
		}
		seen[row.name] = true
		if row.ask == nil && row.since == (Version{}) {
			t.Errorf("%s can be found neither by a call nor by version", row.name)
		}
		if row.needs != none && !row.since.Less(Version{99, 0}) {
			t.Errorf("%s: bad needs", row.name)
		}
	}
}

// The kernel's own answers must not contradict its version: a facility that mainline had earlier than
// this release, and that only its version decides, is present.
func TestHostAgreesWithVersion(t *testing.T) {
	f := Host()
	v := KernelVersion()
	if v == (Version{}) {
		t.Fatal("no kernel version")
	}
	for _, x := range []Facility{Clone3, PidfdOpen, MountFD, CloseRange, CloseRangeExec, MountSetattr, Openat2, Statmount, Fchmodat2, PidfdInfo} {
		want := !v.Less(x.Since())
		if got := f.Has(x); got != want {
			t.Errorf("%v: %v (%s), Linux %v should have it: %v", x, got, f.Why(x), v, want)
		}
	}
	if os.Getuid() == 0 && !f.Has(CloneIntoCgroup) {
		t.Errorf("clone-into-cgroup: %s", f.Why(CloneIntoCgroup))
	}
}

func TestKnobs(t *testing.T) {
	f := Host().Without(MountSetattr, Openat2)
	for _, x := range []Facility{MountSetattr, Openat2, IDMapMount, OverlayIDMap, NoSymFollow} {
		if f.Has(x) {
			t.Errorf("%v is still there", x)
		}
	}
	if got := f.Why(OverlayIDMap); !strings.Contains(got, "mount-setattr") {
		t.Errorf("the reason does not name the missing ground: %q", got)
	}
	if Host().Has(Clone3) != f.Has(Clone3) {
		t.Error("Without changed another facility")
	}

	a := new(answers)
	a.disable("openat2", "off")
	a.disable("nonsense", "off")
	g := Features{a}
	if g.Has(Openat2) || len(g.Unknown()) != 1 {
		t.Errorf("openat2 %v, unknown %v", g.Has(Openat2), g.Unknown())
	}
}

func TestAssumed(t *testing.T) {
	f := AssumeVersion(5, 10)
	if f.Has(MountSetattr) || !f.Has(Openat2) || f.Has(CgroupKill) {
		t.Error("5.10 is not what it was")
	}
	if err := f.CheckFloor(); err != nil {
		t.Errorf("5.10 is refused: %v", err)
	}
	if err := Assume(Openat2).CheckFloor(); err == nil || !strings.Contains(err.Error(), "clone3") {
		t.Errorf("a kernel without clone3 passes: %v", err)
	}
	if err := Host().CheckFloor(); err != nil {
		t.Errorf("this kernel: %v", err)
	}
}

func TestWriteTable(t *testing.T) {
	var b strings.Builder
	if err := Host().WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "\n"); n != int(facilityCount)+1 {
		t.Errorf("%d lines:\n%s", n, b.String())
	}
	if testing.Verbose() {
		t.Log("\n" + b.String())
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add("6.18.44-fc")
	f.Add("5.")
	f.Fuzz(func(t *testing.T, s string) {
		if v, ok := ParseVersion(s); ok && (v.Major < 0 || v.Minor < 0) {
			t.Errorf("%q: %v", s, v)
		}
	})
}

func BenchmarkAskAll(b *testing.B) {
	for b.Loop() {
		f := Features{new(answers)}
		for _, x := range Facilities() {
			f.Has(x)
		}
	}
}

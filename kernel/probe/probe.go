package probe

import (
	"os"
	"strings"
	"sync"
)

// DisableVariable names the environment variable that makes facilities look missing: names as Facility
// prints them, separated by commas.
const DisableVariable = "BERTH_KERNEL_DISABLE"

// Features answers which facilities the kernel has. The zero value is Host's answer. It may be copied
// and used from any goroutine.
type Features struct{ a *answers }

// answers keeps what was found. A facility is looked at once, at its first use.
type answers struct {
	fixed    bool                   // nothing is asked of the kernel: missing tells everything (golden tests)
	missing  [facilityCount]string  // given reasons: by a knob or by a test; "" is present
	unknown  []string               // names in the knob that are no facility
	probed   [facilityCount]outcome // what the kernel said
	override *answers               // the answers these are based on; nil asks the kernel
}

type outcome struct {
	once   sync.Once
	reason string
}

// host memoises facts of the kernel, which do not change while a process lives.
var host = sync.OnceValue(func() *answers {
	a := new(answers)
	for name := range strings.SplitSeq(os.Getenv(DisableVariable), ",") {
		if name = strings.TrimSpace(name); name != "" {
			a.disable(name, "switched off by "+DisableVariable)
		}
	}
	return a
})

// Host gives the running kernel's features, less those that BERTH_KERNEL_DISABLE names.
func Host() Features { return Features{} }

// Assume gives features that do not ask the kernel: exactly the given facilities are present. Plans made
// with it are the same on every machine, which golden tests need.
func Assume(present ...Facility) Features {
	a := &answers{fixed: true}
	for f := range facilityCount {
		a.missing[f] = "assumed missing"
	}
	for _, f := range present {
		a.missing[f] = ""
	}
	return Features{a}
}

// AssumeVersion gives features that do not ask the kernel: everything that Linux major.minor has when
// fully configured and used by root.
func AssumeVersion(major, minor int) Features {
	a := &answers{fixed: true}
	v := Version{Major: major, Minor: minor}
	for f := range facilityCount {
		if since := table[f].since; v.Less(since) {
			a.missing[f] = "Linux " + v.String() + " is older than " + since.String()
		}
	}
	return Features{a}
}

// Without gives the same features less the named facilities. An unknown name is an error, so that a test
// of a fallback cannot silently test nothing.
func (f Features) Without(fs ...Facility) Features {
	a := &answers{override: f.get()}
	for _, x := range fs {
		a.missing[x] = "switched off"
	}
	return Features{a}
}

// Has reports whether the facility can be used. The first call for a facility asks the kernel.
func (f Features) Has(x Facility) bool { return f.Why(x) == "" }

// Why gives the reason for which the facility is missing, or "" when it is present.
func (f Features) Why(x Facility) string {
	if x < 0 || x >= facilityCount {
		return "no such facility"
	}
	return f.get().why(x)
}

// Unknown lists the names in BERTH_KERNEL_DISABLE that are no facility; the caller warns about them.
func (f Features) Unknown() []string {
	for a := f.get(); a != nil; a = a.override {
		if len(a.unknown) > 0 {
			return a.unknown
		}
	}
	return nil
}

func (f Features) get() *answers {
	if f.a == nil {
		return host()
	}
	return f.a
}

func (a *answers) why(x Facility) string {
	if r := a.missing[x]; r != "" {
		return r
	}
	if n := table[x].needs; n != x && n != none {
		if r := a.why(n); r != "" {
			return "needs " + n.String() + ": " + r
		}
	}
	switch {
	case a.fixed:
		return ""
	case a.override != nil:
		return a.override.why(x)
	}
	o := &a.probed[x]
	o.once.Do(func() { o.reason = ask(x) })
	return o.reason
}

func (a *answers) disable(name, reason string) {
	for f := range facilityCount {
		if table[f].name == name {
			a.missing[f] = reason
			return
		}
	}
	a.unknown = append(a.unknown, name)
}

// ask looks at the kernel: by version where the table has no call to make.
func ask(x Facility) string {
	t := &table[x]
	if t.ask != nil {
		return t.ask()
	}
	if v := KernelVersion(); v.Less(t.since) {
		return "Linux " + v.String() + " is older than " + t.since.String()
	}
	return ""
}

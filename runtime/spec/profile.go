package spec

import (
	"encoding/json"
	"runtime"
	"slices"
	"strings"
	"sync"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/kernel/probe"
	"berth/kernel/seccomp"
)

// DefaultSeccomp resolves Docker's default profile for a container with these capabilities (its
// bounding set), on this machine.
func DefaultSeccomp(bounding []string) *specs.LinuxSeccomp {
	p, err := resolve(moby.DefaultProfile(), bounding, thisMachine())
	if err != nil {
		panic("spec: the built-in seccomp profile contradicts itself: " + err.Error())
	}
	return p
}

// ParseSeccomp reads a profile as `docker run --security-opt seccomp=FILE` takes it and resolves it for a
// container with these capabilities, on this machine. A plain OCI profile is one in Docker's format too.
// A profile that says nothing gives nil: no filter. Errors are of kind Invalid.
func ParseSeccomp(text string, bounding []string) (*specs.LinuxSeccomp, error) {
	var p moby.Seccomp
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "Decoding seccomp profile failed")
	}
	return resolve(&p, bounding, thisMachine())
}

// machine is what rules of a profile may depend on.
type machine struct {
	arch   string // as rules name it: Go's word for most
	native specs.Arch
	kernel moby.KernelVersion
}

func thisMachine() machine {
	v := probe.KernelVersion()
	return machine{
		arch: ruleArch(runtime.GOARCH), native: seccomp.Native(),
		kernel: moby.KernelVersion{Kernel: uint64(v.Major), Major: uint64(v.Minor)},
	}
}

// ruleArch gives the word for an architecture in a rule's "arches".
func ruleArch(goarch string) string {
	switch goarch {
	case "386":
		return "x86"
	case "mips64le":
		return "mipsel64"
	case "mipsle":
		return "mipsel"
	case "loong64":
		return "loongarch64"
	}
	return goarch
}

// resolve picks the rules that apply and gives the plain profile.
func resolve(p *moby.Seccomp, bounding []string, m machine) (*specs.LinuxSeccomp, error) {
	if p.DefaultAction == "" && len(p.Syscalls) == 0 {
		return nil, nil
	}
	if len(p.Architectures) != 0 && len(p.ArchMap) != 0 {
		return nil, fault.New(fault.Invalid, "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'")
	}
	out := p.LinuxSeccomp
	out.Syscalls = nil
	for _, a := range p.ArchMap {
		if a.Arch == m.native {
			out.Architectures = append([]specs.Arch{a.Arch}, a.SubArches...)
			break
		}
	}
	for i, call := range p.Syscalls {
		if call == nil {
			return nil, fault.New(fault.Invalid, "seccomp profile: syscalls[%d] is null", i)
		}
		//lint:ignore SA1019 profiles of Docker's first years name one call in each rule
		single := call.Name
		if single != "" && len(call.Names) != 0 {
			return nil, fault.New(fault.Invalid, "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'")
		}
		if !applies(call, bounding, m) {
			continue
		}
		rule := call.LinuxSyscall
		if single != "" {
			rule.Names = []string{single}
		}
		out.Syscalls = append(out.Syscalls, rule)
	}
	return &out, nil
}

// applies reports whether a rule is for this container: none of what it excludes is there, and all of
// what it includes (of architectures one).
func applies(call *moby.Syscall, bounding []string, m machine) bool {
	has := func(c string) bool { return slices.Contains(bounding, c) }
	if x := call.Excludes; x != nil {
		if slices.Contains(x.Arches, m.arch) || slices.ContainsFunc(x.Caps, has) || x.MinKernel != nil && m.atLeast(*x.MinKernel) {
			return false
		}
	}
	if in := call.Includes; in != nil {
		if len(in.Arches) > 0 && !slices.Contains(in.Arches, m.arch) {
			return false
		}
		if slices.ContainsFunc(in.Caps, func(c string) bool { return !has(c) }) || in.MinKernel != nil && !m.atLeast(*in.MinKernel) {
			return false
		}
	}
	return true
}

func (m machine) atLeast(v moby.KernelVersion) bool {
	return m.kernel.Kernel > v.Kernel || m.kernel.Kernel == v.Kernel && m.kernel.Major >= v.Major
}

// Profile is a seccomp profile ready for use. Both parts are shared: nobody may change them. Both are
// nil for no filter.
type Profile struct {
	Spec   *specs.LinuxSeccomp
	Filter *seccomp.Filter
}

// Profiles keeps resolved and compiled profiles: most containers of a machine share two or three. The
// zero value is ready; it may be used by several goroutines.
type Profiles struct {
	mu   sync.Mutex
	kept map[string]Profile // by capabilities and text
}

// maxProfiles is when everything kept is dropped: programs that write a profile for each container
// must not fill the memory.
const maxProfiles = 64

// Words that stand for a profile in Docker's settings.
const (
	Builtin    = "builtin"    // the default profile
	Unconfined = "unconfined" // none
)

// Get gives the profile named by text, Builtin or "" for the default, Unconfined, or a profile in
// Docker's format, for a container with these capabilities (its bounding set).
func (p *Profiles) Get(text string, bounding []string) (Profile, error) {
	if text == Unconfined {
		return Profile{}, nil
	}
	if text == Builtin {
		text = ""
	}
	key := strings.Join(bounding, " ") + "\n" + text
	p.mu.Lock()
	got, ok := p.kept[key]
	p.mu.Unlock()
	if ok {
		return got, nil
	}
	made, err := makeProfile(text, bounding)
	if err != nil {
		return Profile{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept == nil || len(p.kept) >= maxProfiles {
		p.kept = map[string]Profile{}
	}
	p.kept[key] = made
	return made, nil
}

func makeProfile(text string, bounding []string) (made Profile, err error) {
	if text == "" {
		made.Spec = DefaultSeccomp(bounding)
	} else if made.Spec, err = ParseSeccomp(text, bounding); err != nil || made.Spec == nil {
		return Profile{}, err
	}
	made.Filter, err = seccomp.Compile(made.Spec)
	return made, err
}

package spec

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

func ofLibrary(t *testing.T, bounding []string) *specs.LinuxSeccomp {
	t.Helper()
	p, err := moby.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: bounding}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDefaultProfileIsDockers(t *testing.T) {
	sets := [][]string{nil, DefaultCapabilities(), AllCapabilities()}
	for _, c := range AllCapabilities() {
		sets = append(sets, []string{c}, append(DefaultCapabilities(), c))
	}
	for _, set := range sets {
		if got, want := DefaultSeccomp(set), ofLibrary(t, set); !reflect.DeepEqual(got, want) {
			t.Fatalf("%v:\ngot  %+v\nwant %+v", set, got, want)
		}
	}
}

// Profiles from files go through Docker's own reader and ours.
func TestProfileFilesAreReadAsByDocker(t *testing.T) {
	whole, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		string(whole),
		`{}`,
		`{"defaultAction":"SCMP_ACT_ALLOW"}`,
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO","args":[]}]}`,
		`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["a","b"],"action":"SCMP_ACT_ALLOW","comment":"x","includes":{},"excludes":{}}]}`,
		`{"defaultAction":"SCMP_ACT_ERRNO","flags":["SECCOMP_FILTER_FLAG_LOG"],"listenerPath":"/x","syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8","arches":["amd64","arm64"]},"excludes":{"minKernel":"99.0","caps":["CAP_KILL"]}}]}`,
		`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.0"}},{"names":["b"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"3.0"}}]}`,
		`{"syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW"}]}`,
		// errors
		`{"archMap":[{"architecture":"SCMP_ARCH_X86_64"}],"architectures":["SCMP_ARCH_X86_64"],"defaultAction":"SCMP_ACT_ALLOW"}`,
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"]}]}`,
		`{"syscalls":[{"names":["a"],"includes":{"minKernel":"4"}}]}`,
		`{`, `[]`, `nonsense`,
	} {
		bounding := []string{"CAP_SYS_ADMIN"}
		want, wantErr := moby.LoadProfile(text, &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: bounding}}})
		got, err := ParseSeccomp(text, bounding)
		if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
			t.Errorf("%.60s: %v, Docker says %v", text, err, wantErr)
		}
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%.60s: kind %v", text, fault.KindOf(err))
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%.60s:\ngot  %+v\nwant %+v", text, got, want)
		}
	}
}

func TestResolveForOtherMachines(t *testing.T) {
	has := func(p *specs.LinuxSeccomp, name string) bool {
		return slices.ContainsFunc(p.Syscalls, func(s specs.LinuxSyscall) bool { return slices.Contains(s.Names, name) })
	}
	old, err := resolve(moby.DefaultProfile(), nil, machine{"amd64", specs.ArchX86_64, moby.KernelVersion{Kernel: 4, Major: 4}})
	if err != nil || has(old, "ptrace") || !has(old, "arch_prctl") {
		t.Errorf("Linux 4.4 on amd64: %v", err)
	}
	s390, err := resolve(moby.DefaultProfile(), nil, machine{"s390x", specs.ArchS390X, moby.KernelVersion{Kernel: 6}})
	if err != nil || !has(s390, "s390_runtime_instr") || has(s390, "arch_prctl") || !slices.Equal(s390.Architectures, []specs.Arch{specs.ArchS390X, specs.ArchS390}) {
		t.Errorf("s390x: %v", err)
	}
	riscv, err := resolve(moby.DefaultProfile(), nil, machine{"riscv64", specs.ArchRISCV64, moby.KernelVersion{Kernel: 6}})
	if err != nil || !slices.Equal(riscv.Architectures, []specs.Arch{specs.ArchRISCV64}) {
		t.Errorf("riscv64: %v", err)
	}
}

func TestProfiles(t *testing.T) {
	var p Profiles
	first, err := p.Get("", DefaultCapabilities())
	if err != nil || first.Filter == nil || first.Spec == nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			again, err := p.Get(Builtin, DefaultCapabilities())
			if err != nil || again.Filter != first.Filter {
				t.Error("compiled again", err)
			}
		})
	}
	wg.Wait()
	other, err := p.Get("", append(DefaultCapabilities(), "CAP_SYS_ADMIN"))
	if err != nil || other.Filter == first.Filter {
		t.Error("one filter for different capabilities", err)
	}
	none, err := p.Get(Unconfined, nil)
	if err != nil || none.Filter != nil {
		t.Error(none, err)
	}
	if _, err := p.Get(`{"defaultAction":"SCMP_ACT_X","syscalls":[]}`, nil); err == nil || !strings.Contains(err.Error(), `unknown action "SCMP_ACT_X"`) {
		t.Error(err)
	}
	for n := range 3 * maxProfiles {
		if _, err := p.Get(`{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/`+strings.Repeat("x", n)+`"}`, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.kept) > maxProfiles {
		t.Error(len(p.kept), "kept")
	}
}

func FuzzParseSeccomp(f *testing.F) {
	whole, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(whole))
	f.Add(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[null]}`)
	f.Add(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var p Profiles
		got, err := p.Get(text, []string{"CAP_KILL"})
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%v is no fault of the input's", err)
		}
		if err == nil && (got.Spec == nil) != (got.Filter == nil) {
			t.Error("half a profile")
		}
	})
}

func BenchmarkDefaultSeccomp(b *testing.B) {
	for b.Loop() {
		DefaultSeccomp(DefaultCapabilities())
	}
}

// golden compares with a file in testdata; -update writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", path, got)
	}
}

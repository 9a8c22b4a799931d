package build

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/platforms"
)

// The engine's own platform comes first, as it is what a build without a platform is for; then what else the processor runs.
func TestWorkerPlatforms(t *testing.T) {
	var got []string
	for _, p := range workerPlatforms() {
		got = append(got, platforms.Format(p))
	}
	if want := platforms.Format(platforms.Normalize(platforms.DefaultSpec())); got[0] != want {
		t.Errorf("first %s, want %s", got[0], want)
	}
	if runtime.GOARCH != "amd64" {
		return
	}
	for variant, flags := range map[string]string{
		"v2": "cx16 popcnt pni ssse3 sse4_1 sse4_2",
		"v3": "avx avx2 bmi1 bmi2 fma xsave",
		"v4": "avx512f avx512bw avx512cd avx512dq avx512vl",
	} {
		if has := slices.Contains(got, "linux/amd64/"+variant); has != kernelTells(t, flags) {
			t.Errorf("%s: %v of %v", variant, has, got)
		}
	}
	if !slices.Contains(got, "linux/386") {
		t.Errorf("no linux/386 in %v", got)
	}
}

// kernelTells reports whether the kernel names all flags of the processor.
func kernelTells(t *testing.T, flags string) bool {
	t.Helper()
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Skipf("needs /proc/cpuinfo: %v", err)
	}
	_, rest, _ := strings.Cut(string(info), "\nflags")
	line, _, _ := strings.Cut(rest, "\n")
	have := strings.Fields(line)
	for _, f := range strings.Fields(flags) {
		if !slices.Contains(have, f) {
			return false
		}
	}
	return true
}

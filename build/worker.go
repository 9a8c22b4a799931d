package build

import (
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/platforms"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/cpu"

	"berth/build/cache"
	"berth/build/exec"
)

// Labels of the worker, in BuildKit's words. Clients take the snapshotter's for the sign that the builder has an image
// store of its own, and allow several platforms, attestations and all outputs only then.
const (
	labelExecutor    = "org.mobyproject.buildkit.worker.executor"
	labelSnapshotter = "org.mobyproject.buildkit.worker.snapshotter"
	labelHostname    = "org.mobyproject.buildkit.worker.hostname"
	labelNetwork     = "org.mobyproject.buildkit.worker.network"
)

// Worker is what builds, as clients are told: there is one.
type Worker struct {
	ID        string
	Labels    map[string]string
	Platforms []ocispec.Platform   // the engine's own first, then those that can be emulated
	Policy    []cache.PruneOptions // what is removed without being asked for
	Version   string               // the engine's
}

// Worker describes what builds.
func (b *Builder) Worker() Worker {
	host, _ := os.Hostname()
	w := Worker{
		ID: digest.FromString("berth worker " + b.cfg.DataRoot).Encoded()[:25],
		Labels: map[string]string{
			labelExecutor: "berth", labelSnapshotter: "overlayfs", labelHostname: host, labelNetwork: "bridge",
		},
		Platforms: workerPlatforms(),
		Policy:    b.cfg.Policy,
		Version:   b.cfg.Version,
	}
	maps.Copy(w.Labels, b.cfg.Labels)
	return w
}

// Devices gives the devices that steps can have, by name.
func (b *Builder) Devices() []exec.Device {
	if b.cfg.Devices == nil {
		return nil
	}
	return b.cfg.Devices.List()
}

func (b *Builder) workerInfo() gateway.WorkerInfo {
	w := b.Worker()
	return gateway.WorkerInfo{ID: w.ID, Labels: w.Labels, Platforms: w.Platforms}
}

// emulated are the interpreters that qemu-user registers with binfmt_misc, and the platforms they are for.
var emulated = [...]struct{ name, platform string }{
	{"qemu-x86_64", "linux/amd64"}, {"qemu-aarch64", "linux/arm64"}, {"qemu-riscv64", "linux/riscv64"}, {"qemu-ppc64le", "linux/ppc64le"},
	{"qemu-s390x", "linux/s390x"}, {"qemu-i386", "linux/386"}, {"qemu-mips64el", "linux/mips64le"}, {"qemu-mips64", "linux/mips64"},
	{"qemu-loongarch64", "linux/loong64"}, {"qemu-arm", "linux/arm/v7"}, {"qemu-arm", "linux/arm/v6"},
}

// workerPlatforms lists what steps can run on: it is asked each time, because interpreters come and go.
func workerPlatforms() []ocispec.Platform {
	own := platforms.Normalize(platforms.DefaultSpec())
	list := []ocispec.Platform{own}
	if own.Architecture == "amd64" {
		for _, v := range amd64Variants() {
			list = append(list, ocispec.Platform{OS: "linux", Architecture: "amd64", Variant: v})
		}
		list = append(list, ocispec.Platform{OS: "linux", Architecture: "386"})
	}
	for _, e := range emulated {
		p := platforms.MustParse(e.platform)
		if p.Architecture != own.Architecture && interpreted(e.name) {
			list = append(list, platforms.Normalize(p))
		}
	}
	return dedup(list)
}

// amd64Variants lists the levels of x86-64 above the first that the processor and the kernel offer: they are variants of the platform.
// LAHF, F16C, LZCNT and MOVBE, which belong to them, are not looked at: no processor has the rest without them.
func amd64Variants() []string {
	x := &cpu.X86
	var list []string
	for _, level := range []struct {
		variant string
		has     bool
	}{
		{"v2", x.HasCX16 && x.HasPOPCNT && x.HasSSE3 && x.HasSSSE3 && x.HasSSE41 && x.HasSSE42},
		{"v3", x.HasOSXSAVE && x.HasAVX && x.HasAVX2 && x.HasBMI1 && x.HasBMI2 && x.HasFMA},
		{"v4", x.HasAVX512F && x.HasAVX512BW && x.HasAVX512CD && x.HasAVX512DQ && x.HasAVX512VL},
	} {
		if !level.has {
			break
		}
		list = append(list, level.variant)
	}
	return list
}

// interpreted reports whether an interpreter is registered and enabled.
func interpreted(name string) bool {
	data, err := os.ReadFile(filepath.Join("/proc/sys/fs/binfmt_misc", name))
	return err == nil && strings.HasPrefix(string(data), "enabled")
}

func dedup(list []ocispec.Platform) []ocispec.Platform {
	seen := map[string]bool{}
	var out []ocispec.Platform
	for _, p := range list {
		if key := platforms.Format(p); !seen[key] {
			seen[key] = true
			out = append(out, p)
		}
	}
	return out
}

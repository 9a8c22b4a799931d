package image

import (
	"runtime"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// String gives the platform as people write it: linux/arm64/v8.
func (p Platform) String() string { return platforms.Format(p.oci()) }

// ParsePlatform reads "os/arch/variant" or a part of it. Errors are Invalid.
func ParsePlatform(s string) (Platform, error) {
	p, err := platforms.Parse(s)
	if err != nil {
		return Platform{}, fault.Wrap(fault.Invalid, err, "invalid platform %q", s)
	}
	return fromOCI(p), nil
}

// HostPlatform is what this machine runs.
func HostPlatform() Platform { return fromOCI(platforms.DefaultSpec()) }

func (p Platform) oci() ocispec.Platform {
	return platforms.Normalize(ocispec.Platform{Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures, Variant: p.Variant})
}

func fromOCI(p ocispec.Platform) Platform {
	return Platform{Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures, Variant: p.Variant}
}

// platform is what the image says it runs on; very old ones do not say.
func (d *Document) platform() Platform {
	p := d.Platform
	if p.OS == "" {
		p.OS = runtime.GOOS
	}
	if p.Architecture == "" {
		p.Architecture = runtime.GOARCH
	}
	return p
}

// wants says which of several platforms to take.
type wants struct {
	match platforms.MatchComparer
	name  string
	exact bool // somebody asked for it: nothing else will do
}

func wantPlatform(p *Platform) wants {
	if p != nil {
		return wants{match: platforms.Only(p.oci()), name: p.String(), exact: true}
	}
	return wants{match: platforms.Default(), name: HostPlatform().String()}
}

// runnable reports whether images for the operating system can be kept here.
func runnable(os string) bool { return strings.EqualFold(os, "linux") }

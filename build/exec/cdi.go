package exec

import (
	"slices"
	"strconv"
	"strings"

	"tags.cncf.io/container-device-interface/pkg/parser"

	"berth/base/fault"
)

// Device is one that steps can have.
type Device struct {
	Name        string // qualified: vendor.com/class=name
	Annotations map[string]string
}

// Annotations of devices, in BuildKit's words.
const (
	annotationClass = "org.mobyproject.buildkit.device.class"     // a word that stands for all devices that have it
	annotationFree  = "org.mobyproject.buildkit.device.autoallow" // every build may have the device
)

// Free reports whether every build may have the device, as its specification says.
func (d Device) Free() bool {
	free, _ := strconv.ParseBool(d.Annotations[annotationFree])
	return free
}

// MeantDevices gives the devices that a step's word means: one by its qualified name, the first of a kind ("vendor.com/class"), all of a kind
// ("vendor.com/class=*"), else all of a class. Where there are none it gives none.
func (r *Runner) MeantDevices(word string) []Device {
	if r.cfg.Devices == nil {
		return nil
	}
	return meant(r.cfg.Devices.List(), word)
}

func meant(all []Device, word string) (found []Device) {
	kind, name, _ := strings.Cut(word, "=")
	if vendor, _ := parser.ParseQualifier(kind); vendor != "" {
		for _, d := range all {
			if !strings.HasPrefix(d.Name, kind+"=") || name != "" && name != "*" && d.Name != word {
				continue
			}
			if found = append(found, d); name == "" {
				break
			}
		}
	}
	if len(found) > 0 {
		return found
	}
	for _, d := range all {
		if class, ok := d.Annotations[annotationClass]; ok && class == word {
			found = append(found, d)
		}
	}
	return found
}

// inject adds the devices that the step names. One that is optional may be missing.
func (b *box) inject() error {
	var names []string
	for _, d := range b.cfg.devices {
		if !d.Optional && b.r.cfg.Devices == nil {
			return fault.New(fault.NotFound, "no CDI device %s: this engine has no directories of device specifications", d.Name)
		}
		found := b.r.MeantDevices(d.Name)
		if len(found) == 0 && !d.Optional {
			return fault.New(fault.NotFound, "required device %q is not registered", d.Name)
		}
		for _, f := range found {
			if !slices.Contains(names, f.Name) {
				names = append(names, f.Name)
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	return b.r.cfg.Devices.Inject(b.spec, names)
}

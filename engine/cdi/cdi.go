package cdi

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	cdilib "tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"

	"berth/base/fault"
	"berth/engine/container"
)

// DefaultDirs are where specifications are looked for where nothing else is configured. Of two that name the same device the one in the
// later directory holds.
func DefaultDirs() []string { return []string{"/etc/cdi", "/var/run/cdi"} }

// Devices are the devices of a list of directories. The zero value has none: requests are refused.
type Devices struct{ dirs []string }

// New gives the devices that the specifications in dirs describe. A directory need not exist.
func New(dirs []string) *Devices { return &Devices{slices.Clone(dirs)} }

// Dirs gives the directories.
func (d *Devices) Dirs() []string { return d.dirs }

// List gives the qualified names of all devices, sorted. problems says which files are wrong, and how; their devices are not listed.
func (d *Devices) List() (names []string, problems []error) {
	if len(d.dirs) == 0 {
		return nil, nil
	}
	c, problems := d.read()
	return c.ListDevices(), problems
}

// Device is one that is described.
type Device struct {
	Name        string            // qualified: vendor.com/class=name
	Annotations map[string]string // those of its specification, and its own over them
}

// Described gives all devices with what is said of them, by name.
func (d *Devices) Described() (list []Device) {
	if len(d.dirs) == 0 {
		return nil
	}
	c, _ := d.read()
	for _, name := range c.ListDevices() {
		one := Device{Name: name, Annotations: map[string]string{}}
		if dev := c.GetDevice(name); dev != nil {
			maps.Copy(one.Annotations, dev.GetSpec().Annotations)
			maps.Copy(one.Annotations, dev.Annotations)
		}
		list = append(list, one)
	}
	return list
}

// read reads all specifications as they are now.
func (d *Devices) read() (*cdilib.Cache, []error) {
	c, err := cdilib.NewCache(cdilib.WithSpecDirs(d.dirs...), cdilib.WithAutoRefresh(false))
	if err != nil { // is never told by this version: errors of files are GetErrors'
		return c, []error{err}
	}
	var problems []error
	for file, errs := range c.GetErrors() {
		for _, err := range errs {
			if !strings.Contains(err.Error(), file) {
				err = fmt.Errorf("%s: %w", file, err)
			}
			problems = append(problems, err)
		}
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return c, problems
}

// Inject edits a container's specification so that it has the devices that are asked for. The errors are Docker's: fault.Invalid for a
// request that no driver serves or a device that is not described. See Beyond for what may then be in it.
func (d *Devices) Inject(s *specs.Spec, requests []container.DeviceRequest) error {
	if len(requests) == 0 {
		return nil
	}
	var c *cdilib.Cache
	var problems []error
	if len(d.dirs) > 0 {
		c, problems = d.read()
	}
	var names []string
	for i := range requests {
		more, err := resolve(&requests[i], c)
		if err != nil {
			return err
		}
		names = append(names, more...)
	}
	if len(names) == 0 {
		return nil
	}
	if unresolved, err := c.InjectDevices(s, names...); err != nil {
		for _, p := range problems { // a file that cannot be read may be the one that describes the device
			if len(unresolved) > 0 {
				err = fmt.Errorf("%w (%v)", err, p)
			}
		}
		return fault.Wrap(fault.Invalid, err, "CDI device injection failed")
	}
	return nil
}

// Beyond names what a specification asks for that only programs with runc's command line do, and not the engine's own launch: hooks,
// network devices that are moved, Intel RDT. "" is nothing. Vendors' tools write hooks into most specifications of graphics cards.
func Beyond(s *specs.Spec) string {
	var all []string
	if s.Hooks != nil && hookNames(s.Hooks) != "" {
		all = append(all, "hooks ("+hookNames(s.Hooks)+")")
	}
	if len(s.Linux.NetDevices) > 0 {
		all = append(all, "network devices")
	}
	if s.Linux.IntelRdt != nil {
		all = append(all, "Intel RDT")
	}
	return strings.Join(all, ", ")
}

// hookNames lists the kinds of hooks that are there.
func hookNames(h *specs.Hooks) string {
	var names []string
	//lint:ignore SA1019 deprecated, and still in use
	prestart := h.Prestart
	for _, k := range []struct {
		name string
		of   []specs.Hook
	}{
		{"prestart", prestart}, {"createRuntime", h.CreateRuntime}, {"createContainer", h.CreateContainer},
		{"startContainer", h.StartContainer}, {"poststart", h.Poststart}, {"poststop", h.Poststop},
	} {
		if len(k.of) > 0 {
			names = append(names, k.name)
		}
	}
	return strings.Join(names, ", ")
}

// Drivers of requests, as Docker names them.
const (
	driverCDI    = "cdi"
	driverNVIDIA = "nvidia"
	driverAMD    = "amd"
)

// gpuKinds are the kinds of devices that graphics cards are, by driver, in the order in which a request that names no driver tries them.
var gpuKinds = [...]struct{ driver, vendor, kind string }{
	{driverNVIDIA, "nvidia.com", "nvidia.com/gpu"}, {driverAMD, "amd.com", "amd.com/gpu"},
}

// resolve turns one request into qualified names. c is nil where no directory is configured.
func resolve(r *container.DeviceRequest, c *cdilib.Cache) ([]string, error) {
	nobody := fault.New(fault.Invalid, "could not select device driver %q with capabilities: %v", r.Driver, r.Capabilities)
	if c == nil {
		return nil, nobody
	}
	if r.Driver == driverCDI {
		return qualified(r)
	}
	for _, k := range gpuKinds {
		switch {
		case r.Driver != "" && r.Driver != k.driver:
			continue
		case r.Driver == "" && !wantsGPU(r.Capabilities):
			continue
		case !slices.Contains(c.ListVendors(), k.vendor):
			continue
		}
		return cards(r, k.kind, len(c.ListDevices()))
	}
	return nil, nobody
}

// wantsGPU reads Docker's list of alternatives, each a list of capabilities that must come together. With CDI every card has all of
// those that are about graphics cards.
func wantsGPU(capabilities [][]string) bool {
	known := []string{"gpu", "nvidia", "amd", "compute", "compat32", "graphics", "utility", "video", "display"}
	for _, all := range capabilities {
		if slices.Contains(all, "gpu") && !slices.ContainsFunc(all, func(s string) bool { return !slices.Contains(known, s) }) {
			return true
		}
	}
	return false
}

// qualified checks a request that names its devices.
func qualified(r *container.DeviceRequest) ([]string, error) {
	switch {
	case r.Count != 0:
		return nil, fault.New(fault.Invalid, "unexpected count in CDI device request")
	case len(r.Options) > 0:
		return nil, fault.New(fault.Invalid, "unexpected options in CDI device request")
	}
	for _, name := range r.DeviceIDs {
		if _, _, _, err := parser.ParseQualifiedName(name); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "CDI device injection failed")
		}
	}
	return r.DeviceIDs, nil
}

// cards gives the names of graphics cards: by id, by number, or all. there is how many devices are described at all.
func cards(r *container.DeviceRequest, kind string, there int) (names []string, err error) {
	switch {
	case len(r.DeviceIDs) > 0 && r.Count != 0:
		return nil, fault.Wrap(fault.Invalid, errors.New("cannot set both Count and DeviceIDs on device request"), "")
	case len(r.Options) > 0:
		return nil, fault.New(fault.Invalid, "could not select device driver %q: the option %q is not one of CDI's", r.Driver, firstKey(r.Options))
	case len(r.DeviceIDs) > 0:
		for _, id := range r.DeviceIDs {
			if _, _, _, err := parser.ParseQualifiedName(id); err == nil {
				names = append(names, id) // Compose files have both spellings
				continue
			}
			names = append(names, kind+"="+id)
		}
	case r.Count < 0:
		names = []string{kind + "=all"}
	default:
		for n := range min(r.Count, there+1) { // one that is not there says it for all
			names = append(names, kind+"="+strconv.Itoa(n))
		}
	}
	return names, nil
}

func firstKey(m map[string]string) (first string) {
	for k := range m {
		if first == "" || k < first {
			first = k
		}
	}
	return first
}

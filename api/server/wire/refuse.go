package wire

import (
	"reflect"

	"berth/base/fault"
)

// Why whole groups of fields are refused.
const (
	noKernelLimit = "KernelMemory: kernel memory limits were dropped by Linux 5.4 and by Docker's API 1.42. Limitation discarded."
	notLinux      = "it is an option of Windows"
)

// refuse names the first field that is set and that this build does not honour. What the build cannot do yet is NotImplemented;
// what makes no sense on Linux is Invalid.
func (r *CreateRequest) refuse() error {
	h := &r.HostConfig
	for _, f := range []struct {
		set  bool
		name string
		kind fault.Kind
		why  string
	}{
		{h.Cgroup != "", "HostConfig.Cgroup", fault.NotImplemented, "containers have a cgroup of their own"},
		{h.CPUCount != 0, "HostConfig.CpuCount", fault.Invalid, notLinux},
		{h.CPUPercent != 0, "HostConfig.CpuPercent", fault.Invalid, notLinux},
	} {
		if f.set {
			return fault.New(f.kind, "%s: %s", f.name, f.why)
		}
	}
	return nil
}

// firstSet names the first field beneath v that is not empty; "" when all are.
func firstSet(v reflect.Value, at string) string {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return ""
		}
		return firstSet(v.Elem(), at)
	case reflect.Slice, reflect.Map:
		if v.Len() == 0 {
			return ""
		}
		return at
	case reflect.Struct:
		if v.NumField() == 0 || !v.Type().Field(0).IsExported() {
			break // an opaque value, as netip.Addr
		}
		for i := range v.NumField() {
			if f := firstSet(v.Field(i), at+"."+v.Type().Field(i).Name); f != "" {
				return f
			}
		}
		return ""
	}
	if v.IsZero() {
		return ""
	}
	return at
}

package config

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/runtime/oci/jsonread"
)

// Config is a config.json that has been read.
type Config struct {
	// Spec is the configuration; Spec.Linux.Seccomp is nil, whatever the file says.
	Spec *specs.Spec
	// RawSeccomp is the text of linux.seccomp, or nil if there is none.
	RawSeccomp []byte
}

// Parse reads a whole config.json. Errors say line, column and member.
func Parse(data []byte) (*Config, error) {
	d := &decoder{Reader: jsonread.New(data)}
	s := &specs.Spec{}
	d.Object(func(key string) { d.spec(s, key) })
	if err := d.End(); err != nil {
		return nil, err
	}
	return &Config{Spec: s, RawSeccomp: d.seccompText}, nil
}

// Seccomp decodes linux.seccomp; nil if there is none.
func (c *Config) Seccomp() (*specs.LinuxSeccomp, error) {
	if c.RawSeccomp == nil {
		return nil, nil
	}
	d := &decoder{Reader: jsonread.New(c.RawSeccomp)}
	s := d.seccomp()
	return s, d.End()
}

// ParseProcess reads a process object, as `exec --process` takes it.
func ParseProcess(data []byte) (*specs.Process, error) {
	d := &decoder{Reader: jsonread.New(data)}
	p := &specs.Process{}
	d.Object(func(key string) { d.process(p, key) })
	return p, d.End()
}

// ParseResources reads a resources object, as `update --resources` takes it.
func ParseResources(data []byte) (*specs.LinuxResources, error) {
	d := &decoder{Reader: jsonread.New(data)}
	r := &specs.LinuxResources{}
	d.Object(func(key string) { d.resources(r, key) })
	return r, d.End()
}

type decoder struct {
	*jsonread.Reader
	seccompText []byte
}

// list reads an array with one call of read for each element. null is nil; an empty array is not.
func list[T any](d *decoder, read func() T) []T {
	if d.Null() {
		return nil
	}
	all := []T{}
	d.Array(func(int) { all = append(all, read()) })
	return all
}

// table reads an object whose members are all alike. null is nil.
func table[T any](d *decoder, read func() T) map[string]T {
	if d.Null() {
		return nil
	}
	m := map[string]T{}
	d.Object(func(key string) { m[key] = read() })
	return m
}

// ptr reads a value that may be absent: null is nil.
func ptr[T any](d *decoder, read func() T) *T {
	if d.Null() {
		return nil
	}
	v := read()
	return &v
}

// object reads an object into a T. null is T's zero value.
func object[T any](d *decoder, member func(*T, string)) T {
	var v T
	d.Object(func(key string) { member(&v, key) })
	return v
}

// objects reads an array of objects.
func objects[T any](d *decoder, member func(*T, string)) []T {
	return list(d, func() T { return object(d, member) })
}

// maybe reads an object that may be absent.
func maybe[T any](d *decoder, member func(*T, string)) *T {
	return ptr(d, func() T { return object(d, member) })
}

func words[T ~string](d *decoder) []T {
	return list(d, func() T { return T(d.Text()) })
}

func (d *decoder) int() int { return int(d.Int()) }

func (d *decoder) int32() int32 { return int32(d.IntBelow(-1<<31, 1<<31-1)) }

func (d *decoder) uint16() uint16 { return uint16(d.IntBelow(0, 1<<16-1)) }

func (d *decoder) uint() uint { return uint(d.Uint()) }

func (d *decoder) fileMode() os.FileMode { return os.FileMode(d.Uint32()) }

func (d *decoder) spec(s *specs.Spec, key string) {
	switch key {
	case "ociVersion":
		s.Version = d.Text()
	case "process":
		s.Process = maybe(d, d.process)
	case "root":
		s.Root = maybe(d, d.root)
	case "hostname":
		s.Hostname = d.Text()
	case "domainname":
		s.Domainname = d.Text()
	case "mounts":
		s.Mounts = objects(d, d.mount)
	case "hooks":
		s.Hooks = maybe(d, d.hooks)
	case "annotations":
		s.Annotations = d.TextMap()
	case "linux":
		s.Linux = maybe(d, d.linux)
	default:
		d.Skip()
	}
}

func (d *decoder) root(r *specs.Root, key string) {
	switch key {
	case "path":
		r.Path = d.Text()
	case "readonly":
		r.Readonly = d.Bool()
	default:
		d.Skip()
	}
}

func (d *decoder) mount(m *specs.Mount, key string) {
	switch key {
	case "destination":
		m.Destination = d.Text()
	case "type":
		m.Type = d.Text()
	case "source":
		m.Source = d.Text()
	case "options":
		m.Options = d.Texts()
	case "uidMappings":
		m.UIDMappings = objects(d, d.idMapping)
	case "gidMappings":
		m.GIDMappings = objects(d, d.idMapping)
	default:
		d.Skip()
	}
}

func (d *decoder) idMapping(m *specs.LinuxIDMapping, key string) {
	switch key {
	case "containerID":
		m.ContainerID = d.Uint32()
	case "hostID":
		m.HostID = d.Uint32()
	case "size":
		m.Size = d.Uint32()
	default:
		d.Skip()
	}
}

func (d *decoder) hooks(h *specs.Hooks, key string) {
	switch key {
	case "prestart":
		//lint:ignore SA1019 deprecated, and still in every other bundle
		h.Prestart = objects(d, d.hook)
	case "createRuntime":
		h.CreateRuntime = objects(d, d.hook)
	case "createContainer":
		h.CreateContainer = objects(d, d.hook)
	case "startContainer":
		h.StartContainer = objects(d, d.hook)
	case "poststart":
		h.Poststart = objects(d, d.hook)
	case "poststop":
		h.Poststop = objects(d, d.hook)
	default:
		d.Skip()
	}
}

func (d *decoder) hook(h *specs.Hook, key string) {
	switch key {
	case "path":
		h.Path = d.Text()
	case "args":
		h.Args = d.Texts()
	case "env":
		h.Env = d.Texts()
	case "timeout":
		h.Timeout = ptr(d, d.int)
	default:
		d.Skip()
	}
}

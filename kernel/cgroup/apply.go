package cgroup

import (
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Apply does the steps. When one fails, what was made is removed again and the error says which file
// refused which value. A directory that is already there is used, if no process is in it, and is not
// removed on failure. NotFound: Lenient left no hierarchy over.
func (s Setup) Apply() (*Cgroup, error) {
	a := applier{setup: &s}
	defer a.file.close()
	for i := range s.Steps {
		if err := a.do(&s.Steps[i]); err != nil {
			a.undo()
			return nil, err
		}
	}
	if err := a.again(); err != nil {
		a.undo()
		return nil, err
	}
	c := &Cgroup{layout: s.Layout, path: s.Path, dirs: make([]string, len(s.Layout.Hierarchies))}
	some := false
	for i := range s.Layout.Hierarchies {
		if dir := s.Layout.Hierarchies[i].Place(s.Layout.Mode, s.Path); !slices.Contains(a.skipped, dir) {
			c.dirs[i] = dir
			some = true
		}
	}
	if !some {
		return nil, fault.New(fault.NotFound, "cgroup %s: this user may make it in no hierarchy", s.Path)
	}
	return c, nil
}

// applier is the state of one Apply or Update.
type applier struct {
	setup   *Setup
	made    []string         // directories made here, parents first
	skipped []string         // Lenient: the container's directories that could not be made
	enable  map[string]error // why a directory lacks a controller, for the error of a later write
	later   []*Step          // refused for now
	file    openFile
}

func (a *applier) do(s *Step) error {
	if s.Op != Mkdir && slices.Contains(a.skipped, s.Dir) {
		if s.Op == Write && !s.Optional && !neutral(s) {
			return fault.New(fault.Forbidden, "%s: this user may not make cgroups in %s: ask for a delegated cgroup, or leave the limit out", s.Field, path.Dir(s.Dir))
		}
		return nil
	}
	switch s.Op {
	case Mkdir:
		return a.mkdir(s)
	case Enable:
		a.enableControllers(s)
		return nil
	case Inherit:
		return a.inherit(s.Dir, s.Base)
	case Devices:
		err := s.Program.attach(s.Dir)
		if err == unix.EPERM && inUserNamespace() {
			return nil // no program may be attached there, and no device outside the namespace can be made either
		}
		if err != nil {
			return deviceError(s, err)
		}
		return nil
	}
	err := s.write(&a.file)
	if err == unix.EINVAL && s.Retry {
		a.later = append(a.later, s)
		return nil
	}
	if err != nil {
		return a.explain(s, err)
	}
	return nil
}

// again writes what was refused before, until nothing changes.
func (a *applier) again() error {
	for len(a.later) > 0 {
		todo := a.later
		a.later = nil
		for i, s := range todo {
			switch err := s.write(&a.file); {
			case err == unix.EINVAL:
				a.later = append(a.later, todo[i])
			case err != nil:
				return a.explain(s, err)
			}
		}
		if len(a.later) == len(todo) {
			return a.explain(todo[0], unix.EINVAL)
		}
	}
	return nil
}

// write writes the value, under the other name where the kernel has that one.
func (s *Step) write(f *openFile) error {
	err := f.write(s.Dir, s.File, s.Value)
	if err == unix.ENOENT && s.Or != "" {
		value := s.Value
		if s.OrValue != "" {
			value = s.OrValue
		}
		err = f.write(s.Dir, s.Or, value)
	}
	if err == unix.ENOENT && s.Optional && exists(s.Dir) {
		return nil
	}
	return err
}

// openFile keeps the file of the last write open for the next: v1's device rules are a dozen writes to one
// file, each a write of its own.
type openFile struct {
	dir, name string
	fd        int // valid when name is not ""
}

func (f *openFile) write(dir, name, value string) error {
	if f.name != name || f.dir != dir {
		f.close()
		fd, err := open(dir+"/"+name, unix.O_WRONLY)
		if err != nil {
			return err
		}
		f.dir, f.name, f.fd = dir, name, fd
	}
	return writeAll(f.fd, value)
}

func (f *openFile) close() {
	if f.name != "" {
		unix.Close(f.fd)
		f.name = ""
	}
}

// mkdir makes the container's directory. Parents may come and go while other containers start and fail,
// so a missing one is made again a few times.
func (a *applier) mkdir(s *Step) error {
	var err error
	for range 10 {
		err = unix.Mkdir(s.Dir, 0o755)
		if err != unix.ENOENT {
			break
		}
		if err = a.parents(path.Dir(s.Dir)); err != nil && err != unix.ENOENT {
			break
		}
	}
	switch err {
	case nil:
		a.made = append(a.made, s.Dir)
		return nil
	case unix.EEXIST:
		if a.setup.Shared {
			return nil
		}
		return inUse(s.Dir)
	case unix.EACCES, unix.EPERM, unix.EROFS:
		if a.setup.Lenient {
			a.skipped = append(a.skipped, s.Dir)
			return nil
		}
		return fault.Wrap(fault.Forbidden, err, "make cgroup %s", s.Dir)
	case unix.EAGAIN:
		return fault.Wrap(fault.Unavailable, err, "make cgroup %s (a parent's cgroup.max.descendants or cgroup.max.depth is reached)", s.Dir)
	case unix.ENOSPC, unix.ENOMEM:
		return fault.Wrap(fault.Unavailable, err, "make cgroup %s (the kernel has no room for more: 65535 memory cgroups at most, removed ones that still hold pages included)", s.Dir)
	}
	return fault.Wrap(fault.Internal, err, "make cgroup %s", s.Dir)
}

func (a *applier) parents(dir string) error {
	err := unix.Mkdir(dir, 0o755)
	if err == unix.ENOENT && len(dir) > 1 {
		if err = a.parents(path.Dir(dir)); err == nil {
			err = unix.Mkdir(dir, 0o755)
		}
	}
	if err == nil {
		a.made = append(a.made, dir)
	}
	if err == unix.EEXIST {
		err = nil
	}
	return err
}

// inUse refuses a cgroup that has processes: two containers in one would share limits and be killed
// together.
func inUse(dir string) error {
	b, err := readFile(dir + "/cgroup.procs")
	if err == nil && len(b) > 0 {
		n := strings.Count(string(b), "\n")
		return fault.New(fault.Conflict, "container's cgroup is not empty: %d process(es) found in %s: choose another cgroup path, or end them", n, dir)
	}
	if err != nil && err != unix.ENOTSUP && err != unix.EOPNOTSUPP {
		return fault.Wrap(fault.Internal, err, "look into cgroup %s", dir)
	}
	return nil
}

// enableControllers makes the controllers of every directory above Dir available below it. What cannot
// be enabled is no failure in itself (a delegated tree has only some, and RT threads bar cpu): a limit
// that needs it fails with this reason.
func (a *applier) enableControllers(s *Step) {
	if len(missing(s.Dir+"/cgroup.controllers", s.Controllers)) == 0 {
		return
	}
	rel := strings.TrimPrefix(path.Dir(s.Dir), s.Base)
	dir := s.Base
	for {
		a.enableIn(dir, s.Controllers)
		if rel == "" {
			return
		}
		var part string
		part, rel, _ = strings.Cut(rel[1:], "/")
		if rel != "" {
			rel = "/" + rel
		}
		dir += "/" + part
	}
}

func (a *applier) enableIn(dir string, controllers []string) {
	want := missing(dir+"/cgroup.subtree_control", controllers)
	if absent := missing(dir+"/cgroup.controllers", want); len(absent) > 0 {
		want = slices.DeleteFunc(slices.Clone(want), func(c string) bool { return slices.Contains(absent, c) })
	}
	if len(want) == 0 {
		return
	}
	file := dir + "/cgroup.subtree_control"
	if writeFile(file, "+"+strings.Join(want, " +")) == nil {
		return
	}
	for _, c := range want { // all or none were refused: find the ones that are to blame
		if err := writeFile(file, "+"+c); err != nil {
			if a.enable == nil {
				a.enable = make(map[string]error)
			}
			a.enable[c] = fault.Wrap(fault.Internal, err, "write +%s to %s", c, file)
		}
	}
}

// missing gives those of want that are not among the words of the file.
func missing(file string, want []string) []string {
	b, err := readFile(file)
	if err != nil {
		return want
	}
	have := string(b)
	var out []string
	for _, w := range want {
		if !hasWord(have, w) {
			out = append(out, w)
		}
	}
	return out
}

func hasWord(text, word string) bool {
	for w := range strings.FieldsSeq(text) {
		if w == word {
			return true
		}
	}
	return false
}

// inherit fills cpuset.cpus and cpuset.mems from the mount point down to dir: on v1 a cpuset is born
// empty, and takes no process before it has both. Each write makes the kernel look at every cpuset and
// rebuild its scheduling domains, so a parent made here is told to give birth to full ones
// (cgroup.clone_children, Documentation/admin-guide/cgroup-v1/cpusets.rst).
func (a *applier) inherit(dir, base string) error {
	if trimmed(dir+"/cpuset.cpus") != "" && trimmed(dir+"/cpuset.mems") != "" {
		return nil
	}
	at := base
	rel := strings.TrimPrefix(dir, base)
	var cpus, mems string
	for rel != "" {
		var part string
		part, rel, _ = strings.Cut(rel[1:], "/")
		if rel != "" {
			rel = "/" + rel
		}
		child := at + "/" + part
		for _, f := range [...]struct {
			file string
			up   *string
		}{{"/cpuset.cpus", &cpus}, {"/cpuset.mems", &mems}} {
			if at == base {
				*f.up = trimmed(at + f.file)
			}
			if own := trimmed(child + f.file); own != "" {
				*f.up = own
				continue
			}
			if err := writeFile(child+f.file, *f.up); err != nil {
				return fault.Wrap(fault.Internal, err, "write %q to %s", *f.up, child+f.file)
			}
		}
		if child != dir && slices.Contains(a.made, child) {
			_ = writeFile(child+"/cgroup.clone_children", "1") // else the next one is filled by hand too
		}
		at = child
	}
	return nil
}

// undo removes the directories made so far, children first. Parents that others use by now stay.
func (a *applier) undo() {
	for _, dir := range slices.Backward(a.made) {
		_ = unix.Rmdir(dir)
	}
}

// neutral reports that the step asks for no limit at all.
func neutral(s *Step) bool {
	return s.Value == "max" || s.Value == "-1" || s.Field == "linux.resources.devices"
}

// inUserNamespace reports whether this process is root only over a part of the machine's users.
func inUserNamespace() bool {
	f := strings.Fields(trimmed("/proc/self/uid_map"))
	return len(f) < 3 || f[0] != "0" || f[1] != "0" || f[2] != "4294967295"
}

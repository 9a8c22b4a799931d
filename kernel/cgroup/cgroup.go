package cgroup

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/probe"
)

// Cgroup is one container's cgroup: a directory in every hierarchy that has it. It holds no descriptors
// and may be used from several goroutines; the kernel is the only state.
type Cgroup struct {
	layout Layout
	path   string
	dirs   []string // one for each of layout.Hierarchies; "" where it does not exist
	have   probe.Features
}

// Attach is how a process gets into the cgroup at its birth.
type Attach struct {
	// V2Dir is the v2 directory, for clone3's CLONE_INTO_CGROUP; "" without v2.
	V2Dir string
	// V1Procs are files into which the child itself writes "0" before it has threads: the "tasks" files of
	// the v1 hierarchies. (Not cgroup.procs: moving a whole process takes a lock that costs milliseconds.)
	V1Procs []string
}

// Open finds a cgroup that exists in at least one hierarchy; else the error's kind is NotFound.
func Open(l Layout, path string) (*Cgroup, error) {
	c := &Cgroup{layout: l, path: path, dirs: make([]string, len(l.Hierarchies))}
	found := false
	for i := range l.Hierarchies {
		dir := l.Hierarchies[i].Place(l.Mode, path)
		if exists(dir) {
			c.dirs[i] = dir
			found = true
		}
	}
	if !found {
		return nil, fault.New(fault.NotFound, "cgroup %s does not exist", path)
	}
	return c, nil
}

// Path is the path the cgroup was asked for with.
func (c *Cgroup) Path() string { return c.path }

// Layout is the layout the cgroup lives in.
func (c *Cgroup) Layout() Layout { return c.layout }

// Dir gives the directory that has the controller ("memory", "io", "name=systemd"), or "".
func (c *Cgroup) Dir(controller string) string {
	for i := range c.layout.Hierarchies {
		if c.dirs[i] != "" && c.layout.Hierarchies[i].Has(controller) {
			return c.dirs[i]
		}
	}
	return ""
}

// V2Dir gives the directory in the unified hierarchy, or "".
func (c *Cgroup) V2Dir() string {
	for i := range c.layout.Hierarchies {
		if c.layout.Hierarchies[i].V2 {
			return c.dirs[i]
		}
	}
	return ""
}

// Paths gives the directories by controller, as runtimes list them in a state file: v1's by controller
// name, v2's under "".
func (c *Cgroup) Paths() map[string]string {
	m := make(map[string]string)
	for i, h := range c.layout.Hierarchies {
		switch {
		case c.dirs[i] == "":
		case h.V2:
			m[""] = c.dirs[i]
		default:
			for _, name := range h.Controllers {
				m[name] = c.dirs[i]
			}
		}
	}
	return m
}

// Attach says how a process gets in.
func (c *Cgroup) Attach() Attach {
	a := Attach{V1Procs: make([]string, 0, len(c.dirs))}
	for i, h := range c.layout.Hierarchies {
		switch {
		case c.dirs[i] == "":
		case h.V2:
			a.V2Dir = c.dirs[i]
		default:
			a.V1Procs = append(a.V1Procs, c.dirs[i]+"/tasks")
		}
	}
	return a
}

// AttachBeside says how to get to where a process of the container is, in each hierarchy: in the cgroup
// or in one below it. A new process of a container that manages cgroups itself (systemd inside) must go
// there on v2: a cgroup that has given controllers to its children takes no processes (EBUSY). Where the
// process is elsewhere, or gone, it is Attach.
func (c *Cgroup) AttachBeside(pid int) Attach {
	text, err := readFile("/proc/" + itoa(int64(pid)) + "/cgroup")
	if err != nil {
		return c.Attach()
	}
	beside := Cgroup{layout: c.layout, path: c.path, dirs: slices.Clone(c.dirs)}
	for _, o := range ownPaths(text) {
		for i := range c.layout.Hierarchies {
			h := &c.layout.Hierarchies[i]
			if h.V2 != o.v2 || !o.v2 && !h.Has(firstOf(o.controllers)) || c.dirs[i] == "" {
				continue
			}
			if dir := h.Dir + o.path; strings.HasPrefix(dir, c.dirs[i]+"/") && exists(dir) {
				beside.dirs[i] = dir
			}
		}
	}
	return beside.Attach()
}

func firstOf(list string) string {
	first, _, _ := strings.Cut(list, ",")
	return first
}

// Add moves an existing process, with all its threads, into the cgroup. It is the slow way (see Attach),
// for processes that others started.
func (c *Cgroup) Add(pid int) error {
	value := itoa(int64(pid))
	for _, dir := range c.dirs {
		if dir == "" {
			continue
		}
		if err := writeFile(dir+"/cgroup.procs", value); err != nil {
			if err == unix.ESRCH {
				return fault.Wrap(fault.NotFound, err, "move process %d to cgroup %s", pid, dir)
			}
			return fault.Wrap(fault.Internal, err, "move process %d to cgroup %s", pid, dir)
		}
	}
	return nil
}

// Remove removes the cgroup and the cgroups below it from every hierarchy. Processes that are just
// exiting hold it for a moment, so EBUSY is waited out for up to two seconds in all. A cgroup that does
// not exist is removed already. The parents stay.
func (c *Cgroup) Remove() error {
	deadline := time.Now().Add(2 * time.Second)
	var first error
	for i, dir := range c.dirs {
		if dir == "" {
			continue
		}
		if err := removeTree(dir, deadline); err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		c.dirs[i] = ""
	}
	return first
}

func removeTree(dir string, deadline time.Time) error {
	wait := time.Millisecond
	for {
		err := unix.Rmdir(dir)
		switch err {
		case nil, unix.ENOENT:
			return nil
		case unix.EINTR:
			continue
		case unix.EBUSY, unix.ENOTEMPTY:
		case unix.EROFS:
			if !exists(dir) {
				return nil // a read-only mount answers so for what is not there, too
			}
			fallthrough
		default:
			return fault.Wrap(fault.Internal, err, "remove cgroup %s", dir)
		}
		children, _ := subdirs(dir)
		for _, child := range children {
			if err := removeTree(child, deadline); err != nil {
				return err
			}
		}
		if len(children) > 0 {
			continue
		}
		if time.Now().After(deadline) {
			procs, _ := readProcs(dir)
			return fault.Wrap(fault.Conflict, err, "remove cgroup %s (%d processes are still in it)", dir, len(procs))
		}
		time.Sleep(wait)
		wait = min(2*wait, 50*time.Millisecond)
	}
}

// subdirs lists the cgroups directly below dir.
func subdirs(dir string) ([]string, error) {
	fd, err := open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var out []string
	buf := make([]byte, 8192)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n <= 0 {
			return out, err
		}
		for b := buf[:n]; len(b) > 19; {
			size := int(b[16]) | int(b[17])<<8 // struct linux_dirent64: ino 8, off 8, reclen 2, type 1, name
			if b[18] == unix.DT_DIR {
				if name := unix.ByteSliceToString(b[19:size]); name != "." && name != ".." {
					out = append(out, dir+"/"+name)
				}
			}
			b = b[size:]
		}
	}
}

// Procs lists the processes in the cgroup and the cgroups below it, sorted, each once.
func (c *Cgroup) Procs() ([]int, error) {
	dir := c.procsDir()
	if dir == "" {
		return nil, fault.New(fault.NotFound, "cgroup %s does not exist", c.path)
	}
	pids, err := procsBelow(dir, nil)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "list the processes of cgroup %s", dir)
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// procsDir picks the hierarchy whose membership is taken for the container's: one that a workload rarely
// changes.
func (c *Cgroup) procsDir() string {
	if c.layout.Mode == V2 {
		return c.V2Dir()
	}
	for _, name := range [...]string{"pids", "devices", "freezer", "memory"} {
		if dir := c.Dir(name); dir != "" {
			return dir
		}
	}
	for _, dir := range c.dirs {
		if dir != "" {
			return dir
		}
	}
	return ""
}

// procsBelow adds the processes of dir and its descendants; a cgroup that vanishes meanwhile is skipped.
func procsBelow(dir string, pids []int) ([]int, error) {
	own, err := readProcs(dir)
	if err == unix.ENOENT || err == unix.ENODEV {
		return pids, nil
	}
	if err != nil {
		return pids, err
	}
	pids = append(pids, own...)
	children, err := subdirs(dir)
	if err != nil && err != unix.ENOENT {
		return pids, err
	}
	for _, child := range children {
		if pids, err = procsBelow(child, pids); err != nil {
			return pids, err
		}
	}
	return pids, nil
}

// readProcs reads one cgroup's processes. A threaded v2 cgroup lists only threads.
func readProcs(dir string) ([]int, error) {
	b, err := readFile(dir + "/cgroup.procs")
	if err == unix.ENOTSUP {
		b, err = readFile(dir + "/cgroup.threads")
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for line := range strings.FieldsSeq(string(b)) {
		if n, ok := atou(line); ok {
			pids = append(pids, int(n)) // 0 is a process outside this pid namespace
		}
	}
	return pids, nil
}

package checkpoint

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"berth/base/fault"
)

// Options are what dump and restore have in common. Paths are absolute.
type Options struct {
	Binary        string // criu, or "" to look it up in $PATH
	Images        string // directory of the image files
	Work          string // directory of criu's logs; "" is Images
	Root          string // the container's root: a mount point when restoring
	CgroupsMode   string // soft, full, strict or ignore; "" is soft
	TCP           bool   // allow established TCP connections
	UnixSockets   bool   // allow unix sockets to processes outside
	ShellJob      bool   // allow a session leader outside
	FileLocks     bool
	AutoDedup     bool
	LazyPages     bool
	EmptyNetwork  bool     // make the network namespace, but restore nothing in it
	ExternalFiles []string // mount points of the container whose source is the host's, as container paths
	ExternalNet   string   // path of a network namespace that is not the container's own, or ""
}

// Dump is a checkpoint to be taken.
type Dump struct {
	Options
	PID          int
	Freezer      string // v1 freezer or v2 cgroup directory of the container, or ""
	Parent       string // directory of earlier images, relative to Images
	LeaveRunning bool
	PreDump      bool // memory only; the processes run on
	LinkRemap    bool
	SkipInFlight bool
	PageServer   string // HOST:PORT
	StatusFD     int    // -1: none
}

// Restore is a container to be made from images.
type Restore struct {
	Options
	PIDFile     string            // file that criu writes the first process's id to
	CgroupRoots map[string]string // controller ("" on v2) → path of the container's cgroup below the mount point
	HostPaths   map[string]string // ExternalFiles entry → path on the host
	Descriptors []string          // what the streams were, see Descriptors
	LSMProfile  string
	LSMMount    string
	NetNSFD     int // descriptor of the network namespace that stands for ExternalNet, or -1
}

// netCookie names an external network namespace in images.
const netCookie = "extRootNetNS"

func (o *Options) args(command string) []string {
	a := []string{command, "--images-dir", o.Images, "--work-dir", o.work(), "--log-file", command + ".log", "-v4"}
	if o.Root != "" {
		a = append(a, "--root", o.Root)
	}
	mode := o.CgroupsMode
	if mode == "" {
		mode = "soft"
	}
	a = append(a, "--manage-cgroups="+mode)
	for _, f := range []struct {
		on   bool
		flag string
	}{
		{o.TCP, "--tcp-established"}, {o.UnixSockets, "--ext-unix-sk"}, {o.ShellJob, "--shell-job"}, {o.FileLocks, "--file-locks"},
		{o.AutoDedup, "--auto-dedup"}, {o.LazyPages, "--lazy-pages"},
	} {
		if f.on {
			a = append(a, f.flag)
		}
	}
	if o.EmptyNetwork {
		a = append(a, "--empty-ns", "net")
	}
	return a
}

func (o *Options) work() string {
	if o.Work == "" {
		return o.Images
	}
	return o.Work
}

// Args gives criu's command line.
func (d *Dump) Args() ([]string, error) {
	command := "dump"
	if d.PreDump {
		command = "pre-dump"
	}
	a := append(d.args(command), "--tree", strconv.Itoa(d.PID))
	for _, f := range []struct {
		on   bool
		flag string
	}{{d.LeaveRunning, "--leave-running"}, {d.PreDump || d.Parent != "", "--track-mem"}, {d.LinkRemap, "--link-remap"}, {d.SkipInFlight, "--skip-in-flight"}} {
		if f.on {
			a = append(a, f.flag)
		}
	}
	if d.Freezer != "" {
		a = append(a, "--freeze-cgroup", d.Freezer)
	}
	if d.Parent != "" {
		a = append(a, "--prev-images-dir", d.Parent)
	}
	if d.PageServer != "" {
		host, port, ok := strings.Cut(d.PageServer, ":")
		if !ok || host == "" || port == "" {
			return nil, fault.New(fault.Invalid, "Use --page-server ADDRESS:PORT to specify page server")
		}
		a = append(a, "--page-server", "--address", host, "--port", port)
	}
	if d.StatusFD >= 0 {
		a = append(a, "--status-fd", strconv.Itoa(d.StatusFD))
	}
	for _, m := range d.ExternalFiles {
		a = append(a, "--external", "mnt["+m+"]:"+m)
	}
	if d.ExternalNet != "" {
		inode, err := inode(d.ExternalNet)
		if err != nil {
			return nil, err
		}
		a = append(a, "--external", fmt.Sprintf("net[%d]:%s", inode, netCookie))
	}
	return a, nil
}

// Args gives criu's command line.
func (r *Restore) Args() []string {
	a := append(r.args("restore"), "--restore-detached", "--restore-sibling", "--pidfile", r.PIDFile)
	for _, m := range r.ExternalFiles {
		a = append(a, "--external", "mnt["+m+"]:"+r.HostPaths[m])
	}
	for _, controller := range sorted(r.CgroupRoots) {
		root := r.CgroupRoots[controller]
		if controller != "" {
			root = controller + ":" + root
		}
		a = append(a, "--cgroup-root", root)
	}
	for fd, was := range r.Descriptors {
		if strings.HasPrefix(was, "pipe:") {
			a = append(a, "--inherit-fd", fmt.Sprintf("fd[%d]:%s", fd, was))
		}
	}
	if r.NetNSFD >= 0 {
		a = append(a, "--inherit-fd", fmt.Sprintf("fd[%d]:%s", r.NetNSFD, netCookie))
	}
	if r.LSMProfile != "" {
		a = append(a, "--lsm-profile", r.LSMProfile)
	}
	if r.LSMMount != "" {
		a = append(a, "--lsm-mount-context", r.LSMMount)
	}
	return a
}

// Run takes the checkpoint.
func (d *Dump) Run() error {
	args, err := d.Args()
	if err != nil {
		return err
	}
	if !d.PreDump {
		if err := saveDescriptors(d.Images, d.PID); err != nil {
			return err
		}
	}
	return d.run(args, nil)
}

// Run makes the container's processes and gives the first one's id. They are children of this process.
// streams become its standard streams where they were pipes; files follow from descriptor 3 on.
func (r *Restore) Run(streams [3]*os.File, files ...*os.File) (int, error) {
	if err := r.run(r.Args(), &stdio{streams, files}); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(r.PIDFile)
	if err != nil {
		return 0, fault.Wrap(fault.Internal, err, "criu has not told the process id")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid, fault.Wrap(fault.Internal, err, "the process id that criu told")
}

type stdio struct {
	streams [3]*os.File
	files   []*os.File
}

// run executes criu. Its log's errors become ours.
func (o *Options) run(args []string, io *stdio) error {
	binary := o.Binary
	if binary == "" {
		binary = "criu"
	}
	path, err := exec.LookPath(binary)
	if err != nil {
		return fault.New(fault.Unavailable, "checkpoint and restore need criu, which is not installed (%v): install the package criu, or name the binary with --criu", err)
	}
	cmd := exec.Command(path, args...)
	if io != nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = io.streams[0], io.streams[1], io.streams[2]
		cmd.ExtraFiles = io.files
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if err == nil || !errors.As(err, &exit) {
		return fault.Wrap(fault.Internal, err, "run criu")
	}
	log := filepath.Join(o.work(), args[0]+".log")
	return fault.New(fault.Internal, "criu failed: %v: %s (log file: %s)", exit, complaints(log), log)
}

// complaints gives the errors in criu's log, the last few of them.
func complaints(log string) string {
	f, err := os.Open(log)
	if err != nil {
		return "it wrote no log; `criu check` tells whether it can work on this kernel"
	}
	defer f.Close()
	var all []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if _, text, ok := strings.Cut(s.Text(), "Error "); ok {
			all = append(all, text)
		}
	}
	if len(all) > 3 {
		all = all[len(all)-3:]
	}
	return strings.Join(all, "; ")
}

const descriptorsFile = "descriptors.json"

// saveDescriptors notes what a process's standard streams are.
func saveDescriptors(images string, pid int) error {
	was := make([]string, 3)
	for fd := range was {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
		if err != nil && !os.IsNotExist(err) {
			return fault.Wrap(fault.Internal, err, "look at descriptor %d of process %d", fd, pid)
		}
		was[fd] = target
	}
	text, err := json.Marshal(was)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(images, descriptorsFile), text, 0o600)
}

// Descriptors gives what the first process's standard streams were at the checkpoint, as the links in
// /proc/PID/fd name them.
func Descriptors(images string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(images, descriptorsFile))
	if err != nil {
		return nil, fault.Wrap(fault.NotFound, err, "%s holds no checkpoint", images)
	}
	var was []string
	if err := json.Unmarshal(text, &was); err != nil || len(was) != 3 {
		return nil, fault.New(fault.Invalid, "%s/%s is damaged: %v", images, descriptorsFile, err)
	}
	return was, nil
}

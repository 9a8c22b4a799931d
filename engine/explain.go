package engine

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"berth/engine/container"
	"berth/engine/mergedroot"
	"berth/engine/store"
	"berth/kernel/cgroup"
)

// Explain says what isolates a container, and why it ended if it did.
func (e *Engine) Explain(ctx context.Context, ref string) (Explanation, error) {
	c, err := e.index.find(ref)
	if err != nil {
		return Explanation{}, err
	}
	i := c.snapshot()
	x := Explanation{ID: i.ID, Name: i.Name, Cgroup: c.record().Cgroup}
	p, err := e.plan(c, i.Sandbox, e.knownSources(c.record()))
	switch {
	case err != nil:
		x.Details = append(x.Details, "it could not be started now: "+err.Error())
	default:
		x.Limits = limitLines(p.cgroup)
		// Compiled again rather than kept: it is a hundred times the size of everything else about a container.
		program, err := p.program(plannedAttach(p.cgroup))
		if err != nil {
			x.Details = append(x.Details, "its launch program cannot be compiled: "+err.Error())
			break
		}
		x.Program = program.String()
	}
	if !i.State.Status.Alive() {
		x.Ended, x.Details = e.whyEnded(c, i, x.Details)
	}
	return x, nil
}

// limitLines shows what a cgroup's plan limits, a line for each: the values that it writes, with the file that holds them, and the
// device rules. Those are files on v1 and a program on v2, whose rules are shown in the words of v1's files; the last rule that matches
// decides.
func limitLines(s cgroup.Setup) (lines []string) {
	for _, st := range s.Steps {
		switch st.Op {
		case cgroup.Write:
			lines = append(lines, fmt.Sprintf("%s = %s", filepath.Join(st.Dir, st.File), st.Value))
		case cgroup.Devices:
			for _, rule := range deviceRules(st.Program) {
				lines = append(lines, fmt.Sprintf("%s devices: %s", st.Dir, rule))
			}
		}
	}
	return lines
}

// deviceRules gives a device program's rules in their order, "allow c 1:3 rwm" for one. The first says what holds for the rest.
func deviceRules(p *cgroup.DeviceProgram) []string {
	rules := strings.Split(strings.TrimSuffix(p.String(), "\n"), "\n")
	switch rules[0] {
	case "deny " + everyDevice:
		rules[0] = "deny all"
	case "allow " + everyDevice:
		rules[0] = "allow all"
	default:
		rules = append([]string{"deny all"}, rules...) // what no rule matches is denied
	}
	return rules
}

// everyDevice is how a rule names all that can be done with all devices.
const everyDevice = "a *:* rwm"

// plannedAttach stands for the attachment of a cgroup that does not exist.
func plannedAttach(s cgroup.Setup) cgroup.Attach {
	var a cgroup.Attach
	for _, st := range s.Steps {
		if st.Op != cgroup.Mkdir {
			continue
		}
		if h := s.Layout.V2(); h != nil && strings.HasPrefix(st.Dir, h.Dir+"/") {
			a.V2Dir = st.Dir
		} else {
			a.V1Procs = append(a.V1Procs, filepath.Join(st.Dir, "tasks"))
		}
	}
	return a
}

// whyEnded finds the likeliest cause and what supports it.
func (e *Engine) whyEnded(c *entry, i *container.Info, details []string) (string, []string) {
	at := c.standing()
	s := at.State
	f := at.Figures
	if f == nil {
		f = &store.Figures{}
	}
	say := func(format string, args ...any) { details = append(details, fmt.Sprintf(format, args...)) }
	if f.ForksRefused > 0 {
		say("the limit of %d processes refused %d forks (pids.max)", f.ProcessLimit, f.ForksRefused)
	}
	switch {
	case s.StartedAt.IsZero() && s.Error == "":
		return "it was never started", details
	case s.Error != "" && (s.StartedAt.IsZero() || s.FinishedAt.IsZero() || s.ExitCode >= exitCannotRun && s.ExitCode <= exitStartOther && s.Signal == 0):
		return e.whyNotStarted(c, i, s, details)
	case at.Reboot:
		return "the machine was restarted or went down while it ran", details
	case s.Unknown:
		return "its process is gone and nobody saw how it ended", append(details, "engine and keeper were both away when it ended")
	case s.OOMKilled && s.Signal == int(unix.SIGKILL):
		say("the kernel's OOM killer ended %d of its processes", f.OOMKills)
		say("memory: at most %s used, limit %s (memory.max)", bytesText(f.MemoryPeak), limitText(f.MemoryLimit))
		return "it ran out of memory and was killed", details
	case s.Signal == int(unix.SIGSYS):
		say("SIGSYS is what a seccomp filter sends; the kernel's log names the system call (dmesg, type=1326)")
		say("if the program needs that call, give it a profile of its own: --security-opt seccomp=FILE")
		return "a system call that its seccomp filter forbids killed it", details
	case s.Signal != 0 && s.ManuallyStopped:
		return fmt.Sprintf("it was stopped by a person and ended by signal %d (%s)", s.Signal, unix.SignalName(unix.Signal(s.Signal))), details
	case s.Signal != 0:
		return fmt.Sprintf("signal %d (%s) ended it", s.Signal, unix.SignalName(unix.Signal(s.Signal))), details
	case s.ManuallyStopped:
		return fmt.Sprintf("it was stopped by a person and exited with code %d", s.ExitCode), details
	case s.OOMKilled:
		say("the kernel's OOM killer ended %d of its processes; the first process then exited by itself", f.OOMKills)
		return fmt.Sprintf("it exited with code %d after running out of memory", s.ExitCode), details
	case s.ExitCode == exitNotFound, s.ExitCode == exitCannotRun:
		say("shells use 127 for a command that is not found and 126 for one that cannot be executed")
	}
	return fmt.Sprintf("its first process exited with code %d", s.ExitCode), details
}

// whyNotStarted looks for what a program lacks: itself, its interpreter, its loader.
func (e *Engine) whyNotStarted(c *entry, i *container.Info, s container.State, details []string) (string, []string) {
	details = append(details, s.Error)
	layer, err := e.images.Layer(c.id)
	if err != nil {
		return "its process could not be started", details
	}
	root, err := mergedroot.Open(layer.Upper, layer.Lower)
	if err != nil {
		return "its process could not be started", details
	}
	defer root.Close()
	path, _ := container.LookupEnv(i.Spec.Environment(nil), "PATH")
	found := mergedroot.LookPath(root, i.Path, path)
	if found == "" {
		if !strings.Contains(i.Path, "/") {
			details = append(details, "looked in PATH="+path)
		}
		return fmt.Sprintf("there is no program %q in the image", i.Path), details
	}
	if loader := mergedroot.Loader(root, found); loader != "" {
		if _, err := root.Stat(loader); err != nil {
			return fmt.Sprintf("%s needs %s to run, which is not in the image", found, loader), append(details, "a program built for another C library or another machine looks like this")
		}
	}
	return fmt.Sprintf("%s is there but could not be executed", found), details
}

func bytesText(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}

func limitText(n uint64) string {
	if n == 0 {
		return "none"
	}
	return bytesText(n)
}

package oci

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/process"
)

// hookKind is one of the six moments in a container's life at which programs of the bundle run.
type hookKind struct {
	name string
	of   func(*specs.Hooks) []specs.Hook // never called with nil
}

// The kinds, in the order in which a container meets them.
var (
	//lint:ignore SA1019 deprecated, and still in use
	prestart        = hookKind{"prestart", func(h *specs.Hooks) []specs.Hook { return h.Prestart }}
	createRuntime   = hookKind{"createRuntime", func(h *specs.Hooks) []specs.Hook { return h.CreateRuntime }}
	createContainer = hookKind{"createContainer", func(h *specs.Hooks) []specs.Hook { return h.CreateContainer }}
	startContainer  = hookKind{"startContainer", func(h *specs.Hooks) []specs.Hook { return h.StartContainer }}
	poststart       = hookKind{"poststart", func(h *specs.Hooks) []specs.Hook { return h.Poststart }}
	poststop        = hookKind{"poststop", func(h *specs.Hooks) []specs.Hook { return h.Poststop }}
)

// hookKinds lists them all.
func hookKinds() [6]hookKind {
	return [...]hookKind{prestart, createRuntime, createContainer, startContainer, poststart, poststop}
}

// hooks gives a configuration's hooks of one kind.
func (k hookKind) hooks(s *specs.Spec) []specs.Hook {
	if s.Hooks == nil {
		return nil
	}
	return k.of(s.Hooks)
}

// starter starts a hook's program with the three descriptors as its standard streams and gives its
// process id. The process is our child.
type starter func(h *specs.Hook, in, out, err int) (pid int, e error)

// runHook runs one hook with the container's state on its standard input and waits for it, no longer
// than its timeout. The error holds what the hook printed.
func runHook(h *specs.Hook, state []byte, start starter) error {
	// Files in memory instead of pipes: nobody must read and write at the same time, and a
	// process that the hook leaves behind holds nobody up.
	in, err := memory("hook-stdin", state)
	if err != nil {
		return err
	}
	defer unix.Close(in)
	out, err := memory("hook-stdout", nil)
	if err != nil {
		return err
	}
	defer unix.Close(out)
	errs, err := memory("hook-stderr", nil)
	if err != nil {
		return err
	}
	defer unix.Close(errs)
	pid, err := start(h, in, out, errs)
	if err != nil {
		return err
	}
	var timeout time.Duration
	if h.Timeout != nil {
		timeout = time.Duration(*h.Timeout) * time.Second
	}
	ws, err := waitFor(pid, timeout)
	if err == nil && ws.Exited() && ws.ExitStatus() == 0 {
		return nil
	}
	switch {
	case errors.Is(err, errTimeout):
		err = fmt.Errorf("hook ran past specified timeout of %.1fs", timeout.Seconds())
	case err != nil:
	case ws.Signaled():
		err = fmt.Errorf("signal: %v", ws.Signal())
	default:
		err = fmt.Errorf("exit status %d", ws.ExitStatus())
	}
	return fmt.Errorf("%w, stdout: %s, stderr: %s", err, printed(out), printed(errs))
}

// runHooks runs hooks in order until one fails.
func (t *tool) runHooks(kind hookKind, hooks []specs.Hook, state []byte, start starter) error {
	for i := range hooks {
		t.log.Debug("run hook", "kind", kind.name, "path", hooks[i].Path)
		if err := runHook(&hooks[i], state, start); err != nil {
			return fmt.Errorf("error running %s hook #%d: %w", kind.name, i, err)
		}
	}
	return nil
}

// tryHooks runs all hooks in our own namespaces and only tells which have failed.
func (t *tool) tryHooks(kind hookKind, hooks []specs.Hook, state []byte, bundle string) {
	for i := range hooks {
		if err := runHook(&hooks[i], state, inRuntime(bundle)); err != nil {
			t.log.Warn(fmt.Sprintf("error running %s hook #%d: %v", kind.name, i, err))
		}
	}
}

// memory makes a file in memory that holds data, positioned at its beginning.
func memory(name string, data []byte) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	for off := 0; off < len(data); {
		n, err := unix.Pwrite(fd, data[off:], int64(off))
		if err != nil && err != unix.EINTR {
			unix.Close(fd)
			return -1, fmt.Errorf("write to a file in memory: %w", err)
		}
		off += max(n, 0)
	}
	return fd, nil
}

// printed gives the end of what a hook wrote.
func printed(fd int) string {
	const enough = 4096
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return ""
	}
	b := make([]byte, enough)
	n, err := unix.Pread(fd, b, max(0, st.Size-enough))
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(string(bytes.TrimSpace(b[:n])), "\uFFFD")
}

var errTimeout = errors.New("timeout")

// waitFor waits for a child of ours to end, and kills it when the time is over; 0 waits for ever.
func waitFor(pid int, timeout time.Duration) (unix.WaitStatus, error) {
	var late error
	if timeout > 0 {
		fd, err := process.Open(pid)
		if err != nil {
			return 0, err
		}
		if ended, err := process.Ended(fd, timeout); err != nil || !ended {
			late = errTimeout
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		unix.Close(fd)
	}
	ws, err := reap(pid)
	if late != nil {
		err = late
	}
	return ws, err
}

// reap waits for a child of ours and gives its status.
func reap(pid int) (unix.WaitStatus, error) {
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(pid, &ws, 0, nil)
		if err == nil {
			return ws, nil
		}
		if err != unix.EINTR {
			return 0, fmt.Errorf("wait for process %d: %w", pid, err)
		}
	}
}

// hookArgs gives a hook's argument vector: its path where it names none.
func hookArgs(h *specs.Hook) []string {
	if len(h.Args) > 0 {
		return slices.Clone(h.Args)
	}
	return []string{h.Path}
}

// inRuntime starts hooks in our own namespaces, in the bundle's directory, and in our environment unless
// they have one.
func inRuntime(bundle string) starter {
	return func(h *specs.Hook, in, out, errs int) (int, error) {
		env := h.Env
		if env == nil {
			env = os.Environ()
		}
		pid, err := syscall.ForkExec(h.Path, hookArgs(h), &syscall.ProcAttr{
			Dir: bundle, Env: env, Files: []uintptr{uintptr(in), uintptr(out), uintptr(errs)},
		})
		if err != nil {
			return 0, fault.Wrap(fault.Internal, err, "exec %s", h.Path)
		}
		return pid, nil
	}
}

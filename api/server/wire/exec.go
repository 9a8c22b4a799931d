package wire

import (
	containertypes "github.com/moby/moby/api/types/container"

	"berth/base/fault"
	"berth/engine"
	"berth/engine/container"
)

// ExecCreateRequest is the body of POST /containers/ID/exec.
type ExecCreateRequest struct {
	containertypes.ExecCreateRequest
	Cmd    Words // one text or a list of words
	Detach bool  // said by old clients; what counts is said when it is started
}

// Spec gives the process that the request asks for.
func (r *ExecCreateRequest) Spec(v Version) (container.ExecSpec, error) {
	if len(r.Cmd) == 0 {
		return container.ExecSpec{}, fault.New(fault.Invalid, "No exec command specified")
	}
	e := container.ExecSpec{
		Cmd: r.Cmd, Env: r.Env, WorkingDir: r.WorkingDir, User: r.User, Privileged: r.Privileged, TTY: r.Tty,
		AttachStdin: r.AttachStdin, AttachStdout: r.AttachStdout, AttachStderr: r.AttachStderr, DetachKeys: r.DetachKeys,
	}
	if v < 35 {
		e.WorkingDir = ""
	}
	if r.ConsoleSize != nil && r.Tty && v >= 42 {
		e.ConsoleSize = *r.ConsoleSize
	}
	return e, nil
}

// ExecStartRequest is the body of POST /exec/ID/start.
type ExecStartRequest struct {
	containertypes.ExecStartRequest
}

// Size gives the terminal's size, 0 where none is asked for.
func (r *ExecStartRequest) Size(v Version) (rows, cols uint16, err error) {
	if r.ConsoleSize == nil || !r.Tty || v < 42 {
		return 0, 0, nil
	}
	h, w := r.ConsoleSize[0], r.ConsoleSize[1]
	if h > 0xffff || w > 0xffff {
		return 0, 0, fault.New(fault.Invalid, "ConsoleSize: no terminal has %d rows and %d columns", h, w)
	}
	return uint16(h), uint16(w), nil
}

// Exec is the answer to GET /exec/ID/json.
func Exec(i *engine.ExecInfo) containertypes.ExecInspectResponse {
	r := containertypes.ExecInspectResponse{
		ID: i.ID, Running: i.Running, ExitCode: i.ExitCode, OpenStdin: i.Spec.AttachStdin, OpenStdout: i.Spec.AttachStdout, OpenStderr: i.Spec.AttachStderr,
		CanRemove: i.CanRemove, ContainerID: i.ContainerID, Pid: i.Pid,
		ProcessConfig: &containertypes.ExecProcessConfig{Tty: i.Spec.TTY, Arguments: []string{}, Privileged: &i.Spec.Privileged, User: i.Spec.User},
	}
	if r.DetachKeys, _ = engine.ParseDetachKeys(i.Spec.DetachKeys); r.DetachKeys == nil { // they were checked at creation
		r.DetachKeys = []byte{}
	}
	if len(i.Spec.Cmd) > 0 {
		r.ProcessConfig.Entrypoint, r.ProcessConfig.Arguments = i.Spec.Cmd[0], list(i.Spec.Cmd[1:])
	}
	return r
}

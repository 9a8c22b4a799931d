package oci

import (
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// sendListener sends a process's seccomp listener to the agent that the profile names, together with who
// the process is (specs.ContainerProcessState). The process's calls wait for the agent's answers from the
// next one on, so it is called while the process waits for us.
func sendListener(c *container, cfg *configuration, s status, pid, fd int) error {
	profile, err := cfg.Seccomp()
	if err != nil {
		return err
	}
	message := processState(profile.ListenerMetadata, stateJSON(c.rec, s, c.rec.PID), pid)
	return fault.In(sendFD(profile.ListenerPath, string(message), fd), "failed to connect with seccomp agent specified in the seccomp profile")
}

// processState is specs.ContainerProcessState around a container's state.
func processState(metadata string, state []byte, pid int) []byte {
	b := append(make([]byte, 0, 1024), `{"ociVersion":`...)
	b = appendJSON(b, specs.Version)
	b = append(b, `,"fds":["`+specs.SeccompFdName+`"],"pid":`...)
	b = strconv.AppendInt(b, int64(pid), 10)
	if metadata != "" {
		b = append(b, `,"metadata":`...)
		b = appendJSON(b, metadata)
	}
	b = append(b, `,"state":`...)
	return append(append(b, state...), '}')
}

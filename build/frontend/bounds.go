package frontend

import (
	gwclient "github.com/moby/buildkit/frontend/gateway/client"

	"berth/base/fault"
)

// Bounds on what the frontends of one build may ask for. What they ask is kept until the build ends: for provenance, and for calls that go
// on with it.
const (
	maxCalls      = 10_000    // solves, and names that are resolved
	maxKept       = 256 << 20 // bytes of what they say: definitions, options, inputs
	maxDepth      = 16        // frontends that call frontends
	maxRunning    = 100       // calls of frontends at once
	maxReferences = 20_000    // that a frontend in another process knows by id
	maxPlatforms  = 1_000     // references, or attestations of one, that a result has
	maxContainers = 100       // of a frontend at once
	maxProcesses  = 10_000    // that one stream has started
	maxHeld       = 20_000    // file trees of failed steps that have ids
	maxStreams    = 10_000    // calls under way of a frontend in another process, those included that wait for others of them
)

// admit counts a call that says so many bytes.
func (h *Host) admit(bytes int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.calls++; h.calls > maxCalls {
		return fault.New(fault.Invalid, "the build has asked its builder %d times, which is the most that the frontends of one build may", maxCalls)
	}
	if h.kept += bytes; h.kept > maxKept {
		return fault.New(fault.Invalid, "the frontends of the build have sent more than %d bytes", maxKept)
	}
	return nil
}

// sizeOf is the bytes of a request.
func sizeOf(req *gwclient.SolveRequest) int {
	n := req.Definition.SizeVT() + textOf(req.FrontendOpt)
	for k, in := range req.FrontendInputs {
		n += len(k) + in.SizeVT()
	}
	for _, e := range req.CacheImports {
		n += len(e.Type) + textOf(e.Attrs)
	}
	for _, p := range req.SourcePolicies {
		n += p.SizeVT()
	}
	return n
}

func textOf(attrs map[string]string) (n int) {
	for k, v := range attrs {
		n += len(k) + len(v)
	}
	return n
}

// begin enters a call of a frontend that another one, at this depth, has made; 0 is the client's own.
func (h *Host) begin(depth int) (end func(), err error) {
	if depth >= maxDepth {
		return nil, fault.New(fault.Invalid, "frontends call each other more than %d deep", maxDepth)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running >= maxRunning {
		return nil, fault.New(fault.Unavailable, "the build runs %d frontends already", maxRunning)
	}
	h.running++
	return func() {
		h.mu.Lock()
		h.running--
		h.mu.Unlock()
	}, nil
}

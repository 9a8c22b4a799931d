package server

import (
	"context"
	_ "embed"
	"net/http"
	"runtime/debug"
	"strings"

	"berth/base/fault"
	"berth/engine"
	"berth/kernel/probe"
)

// explains is the verb behind `berth explain`.
type explains interface {
	Explain(ctx context.Context, ref string) (engine.Explanation, error)
}

//go:embed openapi.json
var openapi []byte

// openAPI describes Berth's own routes.
func openAPI(_ *Server, c *call) error { return c.body(http.StatusOK, "application/json", openapi) }

// explanation is Berth's answer about one container.
type explanation struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Cgroup  string   `json:"cgroup"`
	Limits  []string `json:"limits"`
	Ended   string   `json:"ended"`
	Details []string `json:"details"`
	Program string   `json:"program"`
}

func explain(s *Server, c *call) error {
	e, err := s.cfg.Containers.Explain(c.ctx(), c.name)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, explanation{
		ID: e.ID, Name: e.Name, Cgroup: e.Cgroup, Limits: nonNil(e.Limits), Ended: e.Ended, Details: nonNil(e.Details), Program: e.Program,
	})
}

// facility is one thing that the running kernel can or cannot do.
type facility struct {
	Name  string `json:"name"`
	Has   bool   `json:"has"`
	Since string `json:"since,omitempty"` // the Linux version that brought it
	Why   string `json:"why,omitempty"`   // it is missing
}

func kernelFacilities(_ *Server, c *call) error {
	features, all := probe.Host(), []facility{}
	for _, f := range probe.Facilities() {
		one := facility{Name: f.String(), Has: features.Has(f), Why: features.Why(f)}
		if since := f.Since(); since != (probe.Version{}) {
			one.Since = since.String()
		}
		all = append(all, one)
	}
	return c.json(http.StatusOK, struct {
		Release    string     `json:"release"`
		Facilities []facility `json:"facilities"`
	}{probe.Release(), all})
}

// shutdown ends all containers and then the engine. The answer goes out first.
func shutdown(s *Server, c *call) error {
	if s.cfg.Shutdown == nil {
		return fault.New(fault.NotImplemented, "shutting down from outside is not in this build of Berth")
	}
	if err := c.json(http.StatusAccepted, map[string]string{"message": "stopping all containers, then the engine"}); err != nil {
		return err
	}
	_ = http.NewResponseController(c.w).Flush()
	s.cfg.Shutdown()
	return nil
}

func nonNil[T any](in []T) []T {
	if in == nil {
		return []T{}
	}
	return in
}

// stack gives the running goroutine's stack, one line.
func stack() string { return strings.ReplaceAll(string(debug.Stack()), "\n", " | ") }

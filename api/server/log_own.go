package server

import (
	"context"
	"net/http"
	"time"

	"berth/base/fault"
	"berth/engine"
)

// keepsLogs are the verbs on containers' logs that Docker has not.
type keepsLogs interface {
	ClearLogs(ctx context.Context, ref string) error
	LogStatus(ctx context.Context, ref string) (engine.LogStatus, error)
}

// logStatus is the answer to GET /berth/v1/containers/NAME/logs.
type logStatus struct {
	Driver string `json:"driver"`
	Bytes  int64  `json:"bytes"` // on disk, rotated and compressed files included
	Files  int    `json:"files"`
	Limit  int64  `json:"limit"` // bytes; 0: none
	Lost   uint64 `json:"lost"`  // bytes that could not be written

	Collector *logCollector `json:"collector,omitempty"`
}

// logCollector tells how the way to a collector is doing.
type logCollector struct {
	Sent    uint64     `json:"sent"`    // lines taken
	Dropped uint64     `json:"dropped"` // lines passed over, in non-blocking mode
	Behind  int64      `json:"behind"`  // bytes on disk that were not taken yet
	Error   string     `json:"error"`   // why nothing is taken now, "" while all is well
	Since   *time.Time `json:"since,omitempty"`
}

func needLogs(handle func(keepsLogs, *call) error) func(*Server, *call) error {
	return func(s *Server, c *call) error {
		keeper, ok := s.cfg.Containers.(keepsLogs)
		if !ok {
			return fault.New(fault.NotImplemented, "clearing logs is not in this build of Berth")
		}
		return handle(keeper, c)
	}
}

func clearLogs(k keepsLogs, c *call) error {
	if err := k.ClearLogs(c.ctx(), c.name); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func containerLogStatus(k keepsLogs, c *call) error {
	st, err := k.LogStatus(c.ctx(), c.name)
	if err != nil {
		return err
	}
	out := logStatus{Driver: st.Driver, Bytes: st.Bytes, Files: st.Files, Limit: st.Limit, Lost: st.Lost}
	if x := st.Ships; x != nil {
		out.Collector = &logCollector{Sent: x.Sent, Dropped: x.Dropped, Behind: x.Behind, Error: x.Error}
		if !x.Since.IsZero() {
			out.Collector.Since = &x.Since
		}
	}
	return c.json(http.StatusOK, out)
}

// logWarnings says what may fill a disk.
func logWarnings(f *engine.Facts) []string {
	if !f.LogsUnbounded {
		return nil
	}
	return []string{"WARNING: No limit on the size of container logs: set log-bound, or the log option max-size"}
}

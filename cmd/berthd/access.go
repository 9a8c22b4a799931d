package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"berth/api/access"
	"berth/api/server"
	"berth/base/event"
	"berth/base/fault"
)

// accessOptions are the sockets that allow less than everything, and what is written down of requests.
type accessOptions struct {
	Sockets    []access.Policy // of daemon.json
	Audit      bool            // requests on every socket are written down, not only those on access sockets
	AuditSize  int64           // bytes of one file
	AuditFiles int
}

const (
	defaultAuditSize  = 10 << 20
	defaultAuditFiles = 5
)

func accessFlags(o *accessOptions) []option {
	return []option{
		{key: "access", value: &policies{to: &o.Sockets}},
		{"audit", "", "audit", "Write every request on every socket into DATA-ROOT/audit/audit.log; without it only those on access sockets are", &boolean{to: &o.Audit}},
		{"audit-max-size", "", "audit-max-size", "Size at which a new file of the audit log is begun", newSize(&o.AuditSize, defaultAuditSize)},
		{"audit-max-files", "", "audit-max-files", "Files of the audit log that are kept", newNumber(&o.AuditFiles, defaultAuditFiles)},
	}
}

// policies reads access sockets from daemon.json.
type policies struct {
	to  *[]access.Policy
	set bool
}

func (p *policies) String() string   { return "" }
func (p *policies) Type() string     { return "list" }
func (p *policies) given() bool      { return p.set }
func (p *policies) Set(string) error { return fault.New(fault.Invalid, "only in daemon.json") }

func (p *policies) setJSON(raw json.RawMessage) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var all []access.Policy
	if err := dec.Decode(&all); err != nil {
		return err
	}
	names := map[string]bool{}
	for i := range all {
		if err := all[i].Check(); err != nil {
			return err
		}
		if names[all[i].Name] {
			return fmt.Errorf("access %q is there twice", all[i].Name)
		}
		names[all[i].Name] = true
	}
	*p.to, p.set = all, true
	return nil
}

// accessRoom joins the sockets, their server and the audit log.
type accessRoom struct {
	*access.Sockets
	log *access.Log
}

// socketPatience is how long the requests of an access socket may go on when it ends.
const socketPatience = 2 * time.Second

// openAudit opens the log; the sockets come with serve.
func openAudit(cfg config) (*accessRoom, error) {
	l, err := access.OpenLog(filepath.Join(cfg.DataRoot, "audit", "audit.log"), cfg.Access.AuditSize, cfg.Access.AuditFiles)
	return &accessRoom{log: l}, err
}

// serve makes the access sockets, which are served beside s.
func (r *accessRoom) serve(cfg config, s *server.Server, events *event.Bus, log *slog.Logger) (err error) {
	r.Sockets, err = access.Open(access.Config{
		Dir: filepath.Join(cfg.DataRoot, "access"), Run: filepath.Join(cfg.ExecRoot, "access"), Fixed: cfg.Access.Sockets, Log: log,
		Serve: func(l net.Listener, p *access.Policy) func() {
			narrow := s.Scoped(p)
			narrow.Serve(l)
			return func() {
				ctx, cancel := context.WithTimeout(context.Background(), socketPatience)
				defer cancel()
				if err := narrow.Shutdown(ctx); err != nil {
					log.Info("requests on an access socket were cut off", "name", p.Name, "error", err)
				}
			}
		},
		Expired: func(p *access.Policy) {
			events.Publish(event.Event{Type: "daemon", Action: "access_expired", Attributes: map[string]string{"name": p.Name}})
		},
	})
	return err
}

// Log gives the audit log's last entries.
func (r *accessRoom) Log(name string, n int) ([]access.Entry, error) { return r.log.Tail(name, n) }

func (r *accessRoom) close() {
	if r.Sockets != nil {
		r.Sockets.Close()
	}
	_ = r.log.Close()
}

package build

import (
	"context"
	"errors"

	sessionexporter "github.com/moby/buildkit/session/exporter"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"

	"berth/base/fault"
	"berth/base/id"
	"berth/build/export"
	"berth/build/frontend"
)

// findOutputs asks the client for more outputs, now that it can be told what the result is.
func (j *job) findOutputs(ctx context.Context) error {
	client, err := j.sessionExporter(ctx)
	if err != nil {
		return err
	}
	req := &sessionexporter.FindExportersRequest{Metadata: j.result.Metadata}
	err = frontend.EachReference(j.result, func(r *frontend.Reference) error {
		name := id.New() // a client without a gateway cannot read it
		if j.run.bridge != nil {
			name = j.run.bridge.Name(r)
		}
		req.Refs = append(req.Refs, name)
		return nil
	})
	if err != nil {
		return err
	}
	found, err := client.FindExporters(ctx, req)
	switch grpcerrors.Code(err) {
	case codes.Unavailable, codes.Unimplemented:
		return nil
	}
	if err != nil {
		return fault.In(err, "ask the client for exporters")
	}
	if n := len(j.outputs) + len(found.Exporters); n > maxExporters {
		return fault.New(fault.Invalid, "the build has %d outputs: more than %d", n, maxExporters)
	}
	text := 0
	for _, e := range found.Exporters {
		if err := checkAttributes(e.Attrs, &text); err != nil {
			return err
		}
		out, err := j.p.export.Resolve(export.Request{Type: e.Type, Attrs: e.Attrs, ID: len(j.outputs)})
		if err != nil {
			return err
		}
		j.outputs, j.made = append(j.outputs, out), append(j.made, nil)
	}
	return nil
}

// tellOutputs tells the client what became of the outputs that it named.
func (j *job) tellOutputs(ctx context.Context, response map[string]string) error {
	client, err := j.sessionExporter(ctx)
	if err != nil {
		return err
	}
	_, err = client.FinalizeExport(ctx, &sessionexporter.FinalizeExportRequest{ExporterResponse: response})
	switch grpcerrors.Code(err) {
	case codes.Unavailable, codes.Unimplemented:
		return nil
	}
	return fault.In(err, "tell the client what was exported")
}

func (j *job) sessionExporter(ctx context.Context) (sessionexporter.ExporterClient, error) {
	if j.req.Session == "" {
		return nil, errors.New("no session to ask for exporters")
	}
	caller, err := j.b.sessions.Get(ctx, j.req.Session)
	if err != nil {
		return nil, err
	}
	return sessionexporter.NewExporterClient(caller.Conn()), nil
}
